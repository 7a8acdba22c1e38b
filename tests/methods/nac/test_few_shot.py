"""Adaptation of a trained circuit: what moves, what does not, and where the network comes from."""

from __future__ import annotations

import pytest
import torch

from lit_ssl.errors import InputError
from lit_ssl.methods.nac.few_shot import NACFewShot
from lit_ssl.models import KernelOptions, PerceiverIO

ADAPTED = {
    "head": ("head.classifier.",),
    "head+signatures": ("head.classifier.", "signatures."),
    "head+codes": ("head.classifier.", "codes."),
    "all": ("",),
}


def noisy(tiny, **kwargs):
    """A network that is noisy in training."""
    return tiny.net(num_classes=3, drop_path=0.3, code_noise=0.1, pooling="gumbel", **kwargs)


def fit(tiny, module, **kwargs):
    trainer = tiny.trainer(**{"max_epochs": 3, **kwargs})
    trainer.fit(module, tiny.loader([*tiny.batches(2), *tiny.batches(1, 1)]))
    return trainer


@pytest.mark.parametrize("adapt", ADAPTED)
@pytest.mark.parametrize("wiring", ["from_input", "persistent"])
def test_only_what_is_adapted_moves(tiny, adapt, wiring):
    module = NACFewShot(noisy(tiny, wiring=wiring), 4, adapt=adapt, lr=0.1)
    before = {name: value.clone() for name, value in module.net.state_dict().items()}
    trainer = fit(tiny, module)
    moved = {n for n, v in module.net.state_dict().items() if not torch.equal(v, before[n])}
    frozen = {n for n in before if not n.startswith(ADAPTED[adapt])}
    assert not moved & frozen
    for part in ADAPTED[adapt]:
        assert any(name.startswith(part) for name in moved)
    names = {n for n, p in module.net.named_parameters() if p.requires_grad}
    assert all(name.startswith(ADAPTED[adapt]) for name in names)
    stepped = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert stepped == {id(p) for p in module.parameters() if p.requires_grad}


@pytest.mark.parametrize("adapt", ["head", "head+signatures", "head+codes"])
def test_a_frozen_network_draws_nothing(tiny, adapt):
    module = NACFewShot(noisy(tiny), 4, adapt=adapt).train()
    images = torch.randn(5, 1, 8, 8)
    assert torch.equal(module(images), module(images))
    full = NACFewShot(noisy(tiny), 4, adapt="all").train()
    assert not torch.equal(full(images), full(images))


def test_what_had_no_gradient_gets_none_with_all(tiny):
    net = noisy(tiny)
    net.tokenizer.requires_grad_(False)
    module = NACFewShot(net, 4, adapt="all")
    assert not any(p.requires_grad for p in module.net.tokenizer.parameters())
    assert module.net.codes["mediator"].requires_grad


def test_the_protocol_is_sgd_at_a_constant_rate(tiny):
    group = fit(tiny, NACFewShot(noisy(tiny), 3)).optimizers[0].param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (3e-4, 0.9, 0.0)
    module = NACFewShot(
        noisy(tiny), 3, lr=0.02, weight_decay=0.1, adapt="head+codes",
        optimizer=lambda groups: torch.optim.AdamW(groups),
    )  # fmt: skip
    optimizer = fit(tiny, module).optimizers[0]
    assert isinstance(optimizer, torch.optim.AdamW)
    rates = {g["name"]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups}
    assert rates == {"decay": (0.02, 0.1), "no_decay": (0.02, 0.0)}


def test_a_network_that_was_built_in_python_is_given(tiny):
    first = tiny.nac(noisy(tiny))
    fit(tiny, first).save_checkpoint("first.ckpt")
    with pytest.raises(InputError, match="give it as net"):
        NACFewShot(num_classes=4, pretrained="first.ckpt")
    module = NACFewShot(noisy(tiny), 4, pretrained="first.ckpt")
    fit(tiny, module)
    own = first.net.state_dict()
    for name, value in module.net.state_dict().items():
        assert name.startswith("head.classifier.") or torch.equal(value, own[name]), name


def test_a_perceiver_io_has_latents_and_no_signatures(tiny):
    def net():
        return PerceiverIO(
            tiny.net().tokenizer, 3, state_dim=16, num_modules=6, depth=2, num_heads=2, head_dim=8
        )

    module = NACFewShot(net(), 4, adapt="head+codes", lr=0.1)
    before = {name: value.clone() for name, value in module.net.state_dict().items()}
    fit(tiny, module)
    moved = {n for n, v in module.net.state_dict().items() if not torch.equal(v, before[n])}
    assert {name.split(".")[0] for name in moved} == {"states", "head"}
    with pytest.raises(InputError, match="this one has no signatures"):
        NACFewShot(net(), 4, adapt="head+signatures")


def test_wrong_options(tiny):
    with pytest.raises(InputError, match="adapt must be"):
        NACFewShot(noisy(tiny), 4, adapt="heads")
    with pytest.raises(InputError, match="needs a trained network"):
        NACFewShot(num_classes=4)
    with pytest.raises(InputError, match="NACFewShot needs num_classes"):
        NACFewShot(noisy(tiny))
    with pytest.raises(InputError, match="momentum"):
        NACFewShot(noisy(tiny), 4, momentum=1.0)
    with pytest.raises(InputError, match="finite lr >= 0"):
        NACFewShot(noisy(tiny), 4, lr=float("nan"))
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        NACFewShot(num_classes=4, pretrained="nowhere.ckpt")
    threshold = noisy(tiny, kernel=KernelOptions(eval_mode="threshold"))
    with pytest.raises(InputError, match="have no gradient"):
        NACFewShot(threshold, 4, adapt="head+signatures")


@pytest.mark.parametrize(
    ("hparams", "match"),
    [
        (
            {"_class_path": "lit_ssl.methods.NAC", "net": {"class_path": "os.PathLike"}},
            "os.PathLike",
        ),
        (
            {"_class_path": "mine.NAC", "net": {"class_path": "lit_ssl.models.PerceiverIO"}},
            "mine.NAC",
        ),
        (
            {
                "_class_path": "lit_ssl.methods.NAC",
                "net": {
                    "class_path": "lit_ssl.models.PerceiverIO",
                    "init_args": {"tokenizer": {"class_path": "theirs.Tokenizer"}},
                },
            },
            "theirs.Tokenizer",
        ),
    ],
)
def test_a_file_chooses_no_code(tiny, hparams, match):
    torch.save({"state_dict": {}, "hyper_parameters": hparams}, "foreign.ckpt")
    with pytest.raises(InputError, match=f"names {match} .*, which is not of this package"):
        NACFewShot(num_classes=4, pretrained="foreign.ckpt")


def test_half_precision_does_not_narrow_the_signatures(tiny):
    module = NACFewShot(noisy(tiny), 4, adapt="head+signatures", lr=0.1)
    fit(tiny, module, precision="bf16-true")
    assert module.net.signatures["mediator"].dtype == torch.float32
    assert module.net.codes["mediator"].dtype == torch.bfloat16
