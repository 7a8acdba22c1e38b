"""Weights are fetched only to be used: not where a checkpoint or a file replaces them."""

from __future__ import annotations

import inspect
import json
import sys

import lightning.pytorch as pl
import numpy as np
import pytest
import timm
import torch

from lit_ssl import MSN, PAWS, PMSN, FineTuning, FrozenEncoder, ImageClassifier, LinearEvaluation
from lit_ssl.__main__ import main
from lit_ssl.errors import InputError
from lit_ssl.methods import AttributePredictor, GroupRobustClassifier, PretrainedClassifier
from lit_ssl.models import TextBackbone, create_backbone, load_classifier
from lit_ssl.models.backbones.fetching import weights_follow

SMALL = {"img_size": 16, "patch_size": 4, "depth": 1, "embed_dim": 12, "num_heads": 2}
HEADS = {"num_prototypes": 4, "proj_hidden_dim": 8, "proj_output_dim": 8}
MADE = {
    MSN: HEADS,
    PMSN: HEADS,
    PAWS: {"num_classes": 3, "proj_output_dim": 8, "pred_hidden_dim": 4},
    ImageClassifier: {"num_classes": 3},
    FineTuning: {"num_classes": 3},
    LinearEvaluation: {"num_classes": 3},
    FrozenEncoder: {},
    GroupRobustClassifier: {"num_classes": 3, "num_attributes": 2},
    AttributePredictor: {"num_classes": 3, "num_attributes": 2},
}
NAME = "vit_tiny_patch16_224"


class Offline(Exception):
    """A hub's client that finds no network."""

    __module__ = "httpx._exceptions"


@pytest.fixture
def asked(monkeypatch):
    """Names of the models whose weights somebody wants to fetch; there is no network."""
    names = []

    def fetch(model, pretrained_cfg=None, **kwargs):
        names.append(pretrained_cfg["architecture"])
        raise Offline("[Errno -3] Temporary failure\n in name resolution")

    monkeypatch.setattr(timm.models._builder, "load_pretrained", fetch)
    return names


def save(module, path):
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path)
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"]["backbone_kwargs"]["pretrained"] = True
    torch.save(content, path)
    return str(path)


@pytest.mark.parametrize("method", MADE, ids=lambda method: method.__name__)
def test_a_checkpoint_loads_without_a_network(asked, tmp_path, method):
    module = method(NAME, dict(SMALL), **MADE[method])
    path = save(module, tmp_path / "run.ckpt")
    loaded = method.load_from_checkpoint(path, weights_only=True)
    assert asked == []
    assert loaded.hparams.backbone_kwargs["pretrained"] is True  # as it was trained
    for name, value in module.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, equal_nan=True)
    with pytest.raises(InputError, match=r"with backbone_kwargs\.pretrained: true cannot be"):
        method.load_from_checkpoint(path, weights_only=True, strict=False)
    assert asked == [NAME]


@pytest.mark.parametrize("method", MADE, ids=lambda method: method.__name__)
def test_without_a_network_model_and_option_are_named(asked, method):
    message = (
        rf"^{NAME} with backbone_kwargs\.pretrained: true cannot be loaded: Offline: \[Errno -3\] "
        "Temporary failure in name resolution; .* check the name and the network, or leave that out"
    )
    with pytest.raises(InputError, match=message):
        method(NAME, {**SMALL, "pretrained": True}, **MADE[method])


@pytest.mark.parametrize(
    "method", [m for m in MADE if {"pretrained", "weights"} & set(inspect.signature(m).parameters)]
)
def test_a_file_of_weights_replaces_those_of_timm(asked, tmp_path, tiny, method):
    network = tiny.vit(depth=1)
    torch.save(network.state_dict(), tmp_path / "net.pth")
    option = next(o for o in ("pretrained", "weights") if o in inspect.signature(method).parameters)
    file = {option: str(tmp_path / "net.pth")}
    module = method(NAME, {**SMALL, "pretrained": True}, **file, **MADE[method])
    module.setup("test")
    assert torch.equal(module.encoder.patch_embed.proj.weight, network.patch_embed.proj.weight)
    assert asked == []


def test_other_errors_of_timm_stay_as_they_are(monkeypatch):
    def build(*args, **kwargs):
        raise KeyError("a bug")

    monkeypatch.setattr(timm.models._builder, "load_pretrained", build)
    with pytest.raises(KeyError, match="a bug"):
        create_backbone("resnet10t", {"pretrained": True})


@pytest.mark.parametrize("model", ["timm:resnet10t", "torchvision:resnet18"])
def test_trained_classifiers(asked, monkeypatch, model):
    def fetch(self, **kwargs):
        asked.append("torchvision")
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", fetch)
    with pytest.raises(InputError, match=f"{model} cannot be loaded: .*give as model a local file"):
        PretrainedClassifier(model)
    assert len(asked) == 1
    with weights_follow():
        assert load_classifier(model).outputs == 1000
    assert len(asked) == 1


def test_a_text_encoder_needs_its_configuration_only(tmp_path):
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8,
    )  # fmt: skip
    BertModel(config).save_pretrained(tmp_path)
    before = TextBackbone(str(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="is no model"):
        TextBackbone(str(tmp_path))
    with weights_follow():
        after = TextBackbone(str(tmp_path))
    after.load_state_dict(before.state_dict())
    assert {v.dtype for v in after.state_dict().values()} == {
        v.dtype for v in before.state_dict().values()
    }
    tokens = {"input_ids": torch.tensor([[1, 2, 3]]), "attention_mask": torch.ones(1, 3).long()}
    assert [m.training for m in after.modules()] == [m.training for m in before.modules()]
    torch.testing.assert_close(after.eval()(tokens), before.eval()(tokens))


# resuming


class Views(torch.utils.data.Dataset):
    """Four images, two views each."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return [torch.randn(2, 3, 16, 16, generator=generator)], index % 2


def loader():
    return torch.utils.data.DataLoader(Views(), batch_size=2)


def msn(tiny, kind=MSN, **kwargs):
    return kind(NAME, SMALL, warmup_epochs=0, **HEADS, **kwargs)


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_a_run_that_is_resumed_does_not_read_its_weights_again(tiny, tmp_path, command):
    torch.save(tiny.vit(depth=1).state_dict(), tmp_path / "net.pth")
    module = msn(tiny, pretrained=str(tmp_path / "net.pth"))
    trainer = tiny.trainer(max_epochs=1)
    trainer.fit(module, loader())
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    (tmp_path / "net.pth").unlink()
    again = msn(tiny, pretrained=str(tmp_path / "net.pth"))
    run = tiny.trainer(max_epochs=1)
    data = loader() if command == "fit" else [(torch.zeros(2, 3, 16, 16), torch.zeros(2).long())]
    if command != "fit":
        data = tiny.loader(data)
    getattr(run, command)(again, data, ckpt_path=str(tmp_path / "run.ckpt"))
    for name, value in module.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    with pytest.raises(FileNotFoundError, match=r"no weights at .*net\.pth"):
        tiny.trainer(max_epochs=1).fit(msn(tiny, pretrained=str(tmp_path / "net.pth")), loader())


def test_a_module_that_loads_only_some_weights_starts_from_its_file(tiny, tmp_path):
    network = tiny.vit(depth=1)
    torch.save(network.state_dict(), tmp_path / "net.pth")
    module = msn(tiny)
    trainer = tiny.trainer(max_epochs=1)
    trainer.fit(module, loader())
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    content = torch.load(tmp_path / "run.ckpt", weights_only=True)
    kept = {k: v for k, v in content["state_dict"].items() if "backbone" not in k}
    torch.save({**content, "state_dict": kept}, tmp_path / "some.ckpt")
    again = msn(tiny, pretrained=str(tmp_path / "net.pth"))
    again.strict_loading = False
    tiny.trainer(max_epochs=1).fit(again, loader(), ckpt_path=str(tmp_path / "some.ckpt"))
    assert torch.equal(again.encoder.patch_embed.proj.weight, network.patch_embed.proj.weight)


def test_pmsn_resumes_without_its_prior_file(tiny, tmp_path):
    path = tmp_path / "prior.npy"
    np.save(path, np.array([1.0, 2.0, 3.0, 4.0]))
    module = msn(tiny, PMSN, prior=str(path))
    trainer = tiny.trainer(max_epochs=1)
    trainer.fit(module, loader())
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    path.unlink()
    for kind in ("resumed", "loaded"):
        if kind == "resumed":
            again, start = msn(tiny, PMSN, prior=str(path)), {"ckpt_path": tmp_path / "run.ckpt"}
        else:
            again, start = PMSN.load_from_checkpoint(tmp_path / "run.ckpt", weights_only=True), {}
        tiny.trainer(max_epochs=2).fit(again, loader(), **start)
        torch.testing.assert_close(again.loss.prior, torch.tensor([0.1, 0.2, 0.3, 0.4]))
    with pytest.raises(FileNotFoundError, match="no prior at"):
        tiny.trainer(max_epochs=1).fit(msn(tiny, PMSN, prior=str(path)), loader())
    other = msn(tiny, PMSN, prior=[1.0, 1.0, 1.0, 2.0])
    with pytest.warns(UserWarning, match=r"goes on with its own prior \(.*prior\.npy"):
        tiny.trainer(max_epochs=2).fit(other, loader(), ckpt_path=tmp_path / "run.ckpt")
    changed = PMSN.load_from_checkpoint(
        tmp_path / "run.ckpt", weights_only=True, prior=[1.0, 1.0, 1.0, 2.0]
    )
    tiny.trainer(max_epochs=1).fit(changed, loader())
    torch.testing.assert_close(changed.loss.prior, torch.tensor([0.2, 0.2, 0.2, 0.4]))


# the command line


def test_the_command_line_fetches_nothing_that_a_checkpoint_replaces(
    asked, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    kwargs = {**SMALL, "in_chans": 1, "img_size": 28}
    path = save(ImageClassifier(NAME, dict(kwargs), num_classes=10), tmp_path / "run.ckpt")
    words = [
        "lit-ssl", "test", "--model=ImageClassifier", "--data=MNIST5kDataModule",
        "--model.backbone", NAME,
        f"--model.backbone_kwargs={json.dumps({**kwargs, 'pretrained': True})}",
        "--trainer.logger=false", "--trainer.accelerator=cpu", "--trainer.limit_test_batches=1",
        "--trainer.enable_progress_bar=false",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", [*words, f"--ckpt_path={path}"])
    assert main() is None
    assert asked == []
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit):
        main()
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"error: {NAME} with backbone_kwargs.pretrained: true cannot be loaded")
