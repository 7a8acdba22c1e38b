"""NAC: training, loss, schedules, logs, precision and errors."""

from __future__ import annotations

import math

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from lit_ssl.callbacks import StepSeeder, ViewLogger
from lit_ssl.datamodules import MNIST5kDataModule
from lit_ssl.errors import InputError
from lit_ssl.methods.nac.classifier import is_undecayed, soft_cross_entropy
from lit_ssl.methods.nac.nac import NAC
from lit_ssl.models import GraphPrior, KernelOptions, SymbolTokenizer, Tokens
from lit_ssl.optim import LossWeight, Schedule


class Seen(pl.Callback):
    """What a training logged, step by step, and the learning rates."""

    def __init__(self):
        self.steps, self.rates, self.truncations = [], [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.rates.append([group["lr"] for group in optimizer.param_groups])
        self.truncations.append(
            getattr(pl_module.net.propagator(0).attention.kernel, "truncation", 0)
        )

    def on_train_batch_end(self, trainer, *_):
        self.steps.append({k: v.item() for k, v in trainer.callback_metrics.items()})


def fit(tiny, module, batches=None, ckpt_path=None, **kwargs):
    seen = Seen()
    trainer = tiny.trainer(callbacks=[seen, StepSeeder(0)], **kwargs)
    loader = tiny.loader(batches or tiny.batches())
    trainer.fit(module, loader, ckpt_path=ckpt_path, weights_only=ckpt_path and True)
    return seen, trainer


@pytest.mark.parametrize("dropout", ["none", "random", "nested", "sandwich", "distilled"])
def test_training_lowers_the_loss(tiny, dropout):
    wiring = "persistent" if dropout == "none" else "from_input"
    module = tiny.nac(tiny.net(wiring=wiring), lr=1e-2, label_smoothing=0.0, module_dropout=dropout)
    seen, _ = fit(tiny, module, tiny.batches(4, 32), max_epochs=14)
    first, last = (
        sum(step["train/ce"] for step in part) / len(part)
        for part in (seen.steps[:8], seen.steps[-8:])
    )
    assert last < 0.8 * first


def test_losses_are_logged_and_add_up(tiny):
    module = tiny.nac(
        tiny.net(graph_prior=GraphPrior("erdos-renyi", steps=20)), prior_weight=0.3,
        repulsion_weight=0.2, mixture_weight=0.1, module_dropout="sandwich",
    )  # fmt: skip
    seen, _ = fit(tiny, module)
    for step in seen.steps:
        expected = (step["train/ce"] + step["train/prefix_ce"]) / 2
        expected += 0.3 * step["train/prior"] + 0.2 * step["train/repulsion"]
        expected += 0.1 * step["train/mixture"]
        assert step["train/loss"] == pytest.approx(expected, abs=1e-5)
        assert 0 <= step["train/acc1"] <= 1


def test_weights_of_losses_may_change(tiny):
    module = tiny.nac(repulsion_hinge=2.0, repulsion_weight=LossWeight(1.0, 0.0), label_smoothing=0)
    seen, _ = fit(tiny, module)
    for number, step in enumerate(seen.steps):
        expected = step["train/ce"] + (1 - number / 4) * step["train/repulsion"]
        assert step["train/loss"] == pytest.approx(expected, abs=1e-5)


def test_health_of_the_graph_is_logged(tiny):
    options = KernelOptions(bandwidth=0.7, truncation=0.9)
    module = tiny.nac(tiny.net(kernel=options))
    links = module.net.link_probabilities().detach()
    apart = ~torch.eye(6, dtype=torch.bool)
    seen, _ = fit(tiny, module, batches=tiny.batches(1))
    assert seen.steps[0]["monitor/density"] == pytest.approx((links[:, apart] > 0).float().mean())
    assert seen.steps[0]["monitor/mean_link"] == pytest.approx(links[:, apart].mean().item())
    assert seen.steps[0]["monitor/bandwidth_1"] == pytest.approx(0.7)
    assert 0 < seen.steps[0]["monitor/degree_entropy"] <= 1


def test_health_is_measured_on_logging_steps_only(tiny, monkeypatch):
    module, calls = tiny.nac(), []
    monkeypatch.setattr(NAC, "graph_statistics", lambda self: calls.append(1) or {})
    fit(tiny, module, batches=tiny.batches(7), log_every_n_steps=3)
    assert len(calls) == 2


def test_unknown_labels_do_not_count(tiny):
    logits, labels = torch.randn(4, 3), torch.tensor([0, 2, -1, 1])
    module = tiny.nac(label_smoothing=0.3)
    targets = module._soft_targets(labels)
    known = logits[labels >= 0].log_softmax(1)
    expected = -(0.7 * known[torch.arange(3), labels[labels >= 0]] + 0.3 * known.mean(1)).mean()
    torch.testing.assert_close(soft_cross_entropy(logits, targets), expected)
    assert soft_cross_entropy(logits, 0 * targets) == 0
    assert soft_cross_entropy(logits.bfloat16(), targets).dtype == torch.float32


def test_a_batch_without_any_known_label_trains_no_nan(tiny):
    module = tiny.nac()
    fit(tiny, module, batches=[(torch.randn(4, 1, 8, 8), torch.full((4,), -1))])
    assert all(p.isfinite().all() for p in module.parameters())


def test_a_last_batch_of_one(tiny):
    seen, _ = fit(tiny, tiny.nac(mixup=0.8, cutmix=1.0), [*tiny.batches(2), *tiny.batches(1, 1)])
    assert all(math.isfinite(step["train/loss"]) for step in seen.steps)
    assert "train/acc1" not in seen.steps[-1]  # of mixed labels


# ---------------------------------------------------------------- optimisation


def test_warm_up_and_cosine_reach_all_groups(tiny):
    module = tiny.nac(lr=1e-2, start_lr=1e-4, final_lr=1e-3, warmup_epochs=1)
    seen, trainer = fit(tiny, module, max_epochs=3)
    expected = Schedule(1e-4, 1e-2, 1e-3, 12, 4)
    assert [rates[0] for rates in seen.rates] == pytest.approx([expected(s) for s in range(12)])
    assert all(len(set(rates)) == 1 for rates in seen.rates)
    assert isinstance(trainer.optimizers[0], torch.optim.AdamW)
    assert trainer.optimizers[0].defaults["eps"] == 1e-8


def test_what_is_decayed(tiny):
    module = tiny.nac(tiny.net(wiring="persistent", initial_state="seeder"))
    undecayed = {n for n, p in module.named_parameters() if is_undecayed(n, p)}
    assert {
        "net.signatures.mediator", "net.signatures.input", "net.tokenizer.positions",
        "net.propagators.0.attention.kernel.log_bandwidth", "net.head.classifier.bias",
    } <= undecayed  # fmt: skip
    assert not {"net.codes.mediator", "net.codes.input", "net.head.classifier.weight"} & undecayed


def test_another_optimizer_follows_the_schedule(tiny):
    module = tiny.nac(optimizer=lambda groups: torch.optim.SGD(groups, lr=9.0), lr=0.01)
    seen, trainer = fit(tiny, module)
    assert isinstance(trainer.optimizers[0], torch.optim.SGD)
    assert seen.rates[0] == pytest.approx([0.01, 0.01])


@pytest.mark.parametrize("dropout", ["none", "sandwich"])
def test_all_parameters_get_a_gradient(tiny, dropout):
    module = tiny.nac(module_dropout=dropout)
    fit(tiny, module, batches=tiny.batches(1))
    assert [name for name, p in module.named_parameters() if p.grad is None] == []


# ------------------------------------------------------------------- signatures


def test_signatures_start_from_the_graph_and_are_not_fitted_again(tiny, monkeypatch):
    prior = GraphPrior("planted-partition", arguments={"clusters": 2}, steps=200)
    net = tiny.net(graph_prior=prior, kernel=KernelOptions(truncation=0.9))
    module, calls = tiny.nac(net, lr=0.0, start_lr=0.0, final_lr=0.0), []
    fitted = net.init_signatures
    monkeypatch.setattr(net, "init_signatures", lambda: calls.append(1) or fitted())
    _, trainer = fit(tiny, module)
    live = net.link_probabilities(0) > 0
    assert torch.equal(live, prior.adjacency(6) | torch.eye(6, dtype=torch.bool))
    trainer.save_checkpoint("last.ckpt")
    trainer.fit(module, tiny.loader(tiny.batches()))
    assert calls == [1]
    fit(tiny, module := tiny.nac(net), max_epochs=2, ckpt_path="last.ckpt")
    assert calls == [1]


def test_a_network_that_was_trained_keeps_its_signatures_in_a_new_module(tiny):
    prior = GraphPrior("planted-partition", arguments={"clusters": 2}, steps=50)
    net = tiny.net(graph_prior=prior)
    fit(tiny, tiny.nac(net))
    trained = net.signatures["mediator"].clone()
    other = tiny.net(graph_prior=prior)
    other.reset_classifier(net.num_classes)
    other.load_state_dict(net.state_dict())
    for one in (net, other):
        fit(tiny, tiny.nac(one, lr=0.0, start_lr=0.0, final_lr=0.0))
        assert torch.equal(one.signatures["mediator"], trained)


def test_prior_of_the_network_is_the_target_unless_another_is_given(tiny):
    net = tiny.net(graph_prior=GraphPrior("complete"))
    assert tiny.nac(net).wiring.matching.targets.mean() == 1
    other = tiny.nac(net, prior=GraphPrior("erdos-renyi", arguments={"p": 0.25}))
    assert other.wiring.matching.targets[0, 1] == 0.25
    assert tiny.nac(net, prior_weight=0.0).wiring.matching is None
    assert tiny.nac().wiring.matching is None


def test_a_pruned_network_keeps_its_signatures(tiny):
    small = tiny.net(graph_prior=GraphPrior("complete")).prune([0, 2, 3])
    module = tiny.nac(small, lr=0.0, start_lr=0.0, final_lr=0.0)
    before = small.signatures["mediator"].clone()
    fit(tiny, module, tiny.batches(1))
    assert torch.equal(small.signatures["mediator"], before)
    assert module.wiring.matching is None


def test_a_network_without_graph_trains_by_the_cross_entropy_alone(tiny):
    module = tiny.nac(tiny.net(graph=False, modulation="none"), module_dropout="nested")
    seen, _ = fit(tiny, module)
    assert seen.steps[0]["train/loss"] == pytest.approx(seen.steps[0]["train/ce"])
    assert not any(name.startswith("monitor/") for name in seen.steps[0])


# -------------------------------------------------------------------- annealing


def test_kernels_settle_and_a_checkpoint_remembers_how_far_they_are(tiny):
    def make():
        options = KernelOptions(truncation=0.8, bandwidth=0.5, learnable_bandwidth=False)
        return tiny.nac(
            tiny.net(kernel=options), start_truncation=2.0, start_temperature=2.0,
            start_bandwidth=2.0, anneal_share=0.5,
        )  # fmt: skip

    module = make()
    seen, trainer = fit(tiny, module, max_epochs=4)
    assert seen.truncations[:8] == pytest.approx([2 - 1.2 * step / 8 for step in range(8)])
    assert seen.truncations[8:] == [0.8] * 8
    kernel = module.net.kernel(1)
    assert (kernel.temperature, kernel.bandwidth.item()) == (0.5, pytest.approx(0.5))
    trainer = tiny.trainer(max_epochs=4, callbacks=[StopAt(5, "half.ckpt")])
    trainer.fit(half := make(), tiny.loader(tiny.batches()))
    loaded = NAC.load_from_checkpoint("half.ckpt", net=make().net, weights_only=True)
    for name in ("temperature", "truncation", "bandwidth"):
        one, other = (getattr(m.net.kernel(0), name) for m in (half, loaded))
        assert float(one) == pytest.approx(float(other)) != getattr(kernel.options, name)


# ------------------------------------------------------------- saved and resumed


class StopAt(pl.Callback):
    """Saves after a step, in the middle of an epoch, and stops."""

    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


@pytest.mark.parametrize("dropout", ["none", "nested"])
def test_a_run_that_was_stopped_in_mid_epoch_continues_identically(tiny, dropout):
    def run(**kwargs):
        torch.manual_seed(0)
        prior = GraphPrior("erdos-renyi", steps=50)
        net = tiny.net(28, graph_prior=prior, code_noise=0.05, drop_path=0.1)
        module = tiny.nac(
            net, num_classes=10, module_dropout=dropout, prior_refresh=3, mixture_weight=0.1,
            start_temperature=2.0, mixup=0.5,
        )  # fmt: skip
        data = MNIST5kDataModule(batch_size=600, seed=0)
        callbacks = [StepSeeder(0), StopAt(kwargs.pop("stop", -1), "mid.ckpt")]
        trainer = tiny.trainer(max_epochs=2, callbacks=callbacks, limit_val_batches=0)
        trainer.fit(module, data, **kwargs, weights_only=True)
        return module.state_dict()

    whole, _ = run(), run(stop=8)
    resumed = run(ckpt_path="mid.ckpt")
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_a_saved_module_gives_the_same_features(tiny):
    module = tiny.nac(mixup=0.2)
    _, trainer = fit(tiny, module)
    trainer.save_checkpoint("run.ckpt")
    loaded = NAC.load_from_checkpoint("run.ckpt", net=tiny.net(), weights_only=True)
    images = torch.randn(3, 1, 8, 8)
    for m in (module.eval(), loaded.eval()):
        assert m(images).shape == (3, m.embed_dim)
    assert torch.equal(module(images), loaded(images))
    assert torch.equal(module.logits(images), module.logits(images))  # nothing is drawn
    assert loaded.hparams["mixup"] == 0.2


def test_pretrained_takes_all_but_the_classifier(tiny):
    _, trainer = fit(tiny, first := tiny.nac())
    trainer.save_checkpoint("first.ckpt")
    second = tiny.nac(num_classes=5, pretrained="first.ckpt", lr=0.0, start_lr=0.0, final_lr=0.0)
    head = second.net.head.classifier.weight.clone()
    fit(tiny, second)
    own = first.net.state_dict()
    for name, value in second.net.state_dict().items():
        if not name.startswith("head.classifier"):
            assert torch.equal(value, own[name]), name
    assert torch.equal(second.net.head.classifier.weight, head)
    with pytest.raises(InputError, match="are not those of the net"):
        fit(tiny, tiny.nac(tiny.net(state_dim=32), pretrained="first.ckpt"))


# -------------------------------------------------------------------- precision


def test_bf16_autocast_has_float32_losses(tiny):
    seen, _ = fit(tiny, tiny.nac(), precision="bf16-mixed")
    assert all(math.isfinite(step["train/loss"]) for step in seen.steps)


def test_half_precision_does_not_narrow_the_wiring(tiny):
    prior = GraphPrior("erdos-renyi", steps=20)
    module = tiny.nac(tiny.net(graph_prior=prior), lr=1e-3)
    fit(tiny, module, precision="bf16-true")
    assert module.net.signatures["mediator"].dtype == torch.float32
    for kernel in (module.net.kernel(0), module.net.read_out.attention.kernel):
        assert kernel.log_bandwidth.dtype == torch.float32
    assert module.wiring.matching.targets.dtype == torch.float32
    assert module.net.codes["mediator"].dtype == torch.bfloat16


# ----------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"num_classes": None}, "NAC needs num_classes"),
        ({"num_classes": 1}, "at least 2 classes"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"prior_weight": -1.0}, "prior_weight must be >= 0"),
        ({"repulsion_hinge": 3.0}, "hinge"),
        ({"module_dropout": "neste"}, "module_dropout must be"),
        ({"drop_rate": 1.0}, "drop_rate"),
        ({"final_lr": -1e-3}, "final_lr >= 0"),
        ({"warmup_epochs": -1.0}, "warmup_epochs >= 0"),
        ({"start_truncation": 2.0}, "kernels with a truncation"),
        ({"start_bandwidth": 2.0}, "learnable_bandwidth: false"),
        ({"start_temperature": -1.0}, "finite number > 0"),
        ({"start_temperature": 0.0}, "positive number"),
        ({"anneal_share": 0.0}, "anneal_share"),
        ({"lr": -1.0}, "finite lr >= 0"),
        ({"final_lr": -1.0}, "finite final_lr >= 0"),
        ({"start_lr": math.nan}, "finite start_lr >= 0"),
        ({"warmup_epochs": -1.0}, "finite warmup_epochs >= 0"),
        ({"weight_decay": math.inf}, "finite weight_decay >= 0"),
        ({"mixture_components": 0}, "mixture_components"),
    ],
)
def test_wrong_options(tiny, kwargs, match):
    with pytest.raises(InputError, match=match):
        tiny.nac(**kwargs)


def test_a_network_of_another_number_of_classes_or_without_graph(tiny):
    with pytest.raises(InputError, match="has 4 classes, and num_classes is 3"):
        tiny.nac(tiny.net(num_classes=4))
    assert tiny.nac(tiny.net(num_classes=3)).net.num_classes == 3
    plain = tiny.net(graph=False)
    with pytest.raises(InputError, match="needs a network with a graph"):
        tiny.nac(plain, prior=GraphPrior("complete"))
    with pytest.raises(InputError, match="needs a network with a graph"):
        tiny.nac(plain, start_temperature=1.0)


def test_mixing_is_for_images(tiny):
    class Points(nn.Module):
        token_dim = 3

        def forward(self, points):
            return Tokens(points)

    data = [(torch.randn(4, 10, 3), torch.tensor([0, 1, 2, 0]))]
    seen, _ = fit(tiny, tiny.nac(tiny.net(tokenizer=Points())), data)
    assert math.isfinite(seen.steps[0]["train/loss"])
    with pytest.raises(InputError, match=r"NAC: mixup, cutmix .* are for images"):
        fit(tiny, tiny.nac(tiny.net(tokenizer=Points()), cutmix=1.0), data)


def test_views_and_labels_out_of_range(tiny):
    with pytest.raises(InputError, match="NAC needs labelled batches"):
        fit(tiny, tiny.nac(), [torch.randn(2, 1, 8, 8)])
    with pytest.raises(InputError, match="labels from 0 to 3"):
        fit(tiny, tiny.nac(), [(torch.randn(2, 1, 8, 8), torch.tensor([0, 3]))])


@pytest.mark.parametrize("learned", [True, False], ids=["learned", "fixed"])
def test_frozen_codes_and_signatures_stay_and_only_bandwidths_are_matched(tiny, learned):
    prior = GraphPrior("erdos-renyi", steps=20)
    net = tiny.net(
        graph_prior=prior, learn_codes=False, learn_signatures=False,
        kernel=KernelOptions(learnable_bandwidth=learned),
    )  # fmt: skip
    module = tiny.nac(net, mixture_weight=0.1)
    net.init_signatures()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    seen, _ = fit(tiny, module)
    for name, value in net.state_dict().items():
        if name.startswith(("codes.", "signatures.")):
            assert torch.equal(value, before[name]), name
    assert ("train/prior" in seen.steps[0]) == learned
    assert not {"train/repulsion", "train/mixture"} & set(seen.steps[0])
    assert all(p.grad is not None for p in module.parameters() if p.requires_grad)


def test_views_of_what_is_no_image_are_refused(tiny):
    ids = torch.ones(2, 4, dtype=torch.int64)
    data = [({"input_ids": ids, "attention_mask": ids}, torch.tensor([0, 1]))]
    net = tiny.net(tokenizer=SymbolTokenizer(5, 8, 4, max_length=4))
    trainer = tiny.trainer(callbacks=[ViewLogger()])
    with pytest.raises(InputError, match="ViewLogger draws images"):
        trainer.fit(tiny.nac(net), tiny.loader(data))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"truncation": 0.9}, " %"),
        ({"eval_truncation": 0.9}, "after pruning; training has no truncation and keeps all links"),
        ({}, "the kernel itself keeps all links"),
    ],
)
def test_what_the_fitted_graph_cuts_is_said(tiny, monkeypatch, options, words):
    said = []
    monkeypatch.setattr("lit_ssl.methods.nac.nac.rank_zero_info", said.append)
    prior = GraphPrior("erdos-renyi", steps=20)
    tiny.nac(tiny.net(graph_prior=prior, kernel=KernelOptions(**options))).load_start()
    assert said[0].endswith(words)


def test_a_checkpoint_of_another_number_of_modules_is_one_clear_error(tiny):
    _, trainer = fit(tiny, tiny.nac())
    trainer.save_checkpoint("run.ckpt")
    with pytest.raises(InputError, match="with num_modules 6, and this one has num_modules 5"):
        NAC.load_from_checkpoint("run.ckpt", net=tiny.net(num_modules=5), weights_only=True)
