"""Weights of an encoder out of every kind of file, into a network."""

from __future__ import annotations

import pickle

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from lit_ssl import MSN, PAWS, ImageClassifier
from lit_ssl.checkpoints.encoders import load_encoder, read_encoder_weights
from lit_ssl.checkpoints.export import export_encoder
from lit_ssl.methods import SuNCEt
from lit_ssl.models import ClassTokenViT

KWARGS = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 2}


class Mine(MSN):
    """A user's subclass with a part of its own."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.extra = torch.nn.Linear(2, 2)


def equal(found, wanted):
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert torch.equal(found[key], value), key


def checkpoint(tiny, module, path):
    trainer = tiny.trainer(max_steps=0)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path)
    return path


@pytest.mark.parametrize("method", [MSN, Mine])
def test_checkpoint_of_msn_gives_the_slow_copy_or_the_trained_one(tiny, tmp_path, method):
    module = tiny.msn(method)
    module.target_backbone.vit.norm.bias.data += 1
    path = checkpoint(tiny, module, tmp_path / "run.ckpt")
    equal(read_encoder_weights(path), module.target_backbone.vit.state_dict())
    equal(read_encoder_weights(path, online=True), module.backbone.vit.state_dict())


@pytest.mark.parametrize(
    "module",
    [
        lambda: PAWS("wide_resnet28_2", proj_output_dim=8),
        lambda: SuNCEt("wide_resnet28_2", proj_output_dim=8),
        lambda: ImageClassifier("resnet10t", num_classes=3),
    ],
)
def test_checkpoints_of_other_methods(tiny, tmp_path, module):
    module = module()
    path = checkpoint(tiny, module, tmp_path / "run.ckpt")
    for online in (False, True):
        equal(read_encoder_weights(path, online), module.backbone.state_dict())


def test_compiled_parts_and_other_modules(tiny, tmp_path):
    names = {f"backbone._orig_mod.{k}": v for k, v in tiny.vit().state_dict().items()}
    content = {"pytorch-lightning_version": "2.6", "state_dict": names}
    torch.save(content, tmp_path / "compiled.ckpt")
    assert "cls_token" in read_encoder_weights(tmp_path / "compiled.ckpt")
    content["state_dict"] = {"net.weight": torch.zeros(1)}
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"without `backbone`, but with \['net'\].*lit-ssl export"):
        read_encoder_weights(tmp_path / "other.ckpt")


def test_official_checkpoints(tiny, tmp_path):
    def named(network, prefix="", **more):
        names = {f"module.{prefix}{k}": v.clone() for k, v in network.state_dict().items()}
        return {**names, **{f"module.{k}": v for k, v in more.items()}}

    target, online = tiny.vit(), tiny.vit()
    head = {"fc.fc1.weight": torch.zeros(2, 2)}
    content = {"target_encoder": named(target, **head), "encoder": named(online, **head)}
    torch.save({**content, "prototypes": torch.zeros(2, 2), "opt": {}}, tmp_path / "msn.pth.tar")
    equal(read_encoder_weights(tmp_path / "msn.pth.tar"), target.state_dict())
    equal(read_encoder_weights(tmp_path / "msn.pth.tar", online=True), online.state_dict())

    heads = {"fc.fc1.weight": torch.zeros(2, 2), "pred.fc1.weight": torch.zeros(2, 2)}
    network = timm.create_model("resnet10t", num_classes=0)
    torch.save({"encoder": named(network, **heads), "epoch": 3}, tmp_path / "paws.pth.tar")
    equal(read_encoder_weights(tmp_path / "paws.pth.tar"), network.state_dict())


def test_transformers(tiny, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTMSNConfig(
        hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        image_size=16, patch_size=4, layer_norm_eps=1e-6,
    )  # fmt: skip
    network = transformers.ViTMSNModel(config).eval()
    network.save_pretrained(tmp_path / "hf")
    vit = tiny.vit()
    load_encoder(vit, tmp_path / "hf")
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = network(images).last_hidden_state[:, 0]
        torch.testing.assert_close(vit.eval()(images), expected, rtol=1e-4, atol=1e-5)


def test_exports_and_state_dicts_without_their_classifiers(tiny, tmp_path):
    msn = tiny.msn(backbone="vit_tiny_patch16_224", backbone_kwargs=KWARGS)
    export_encoder(msn.encoder, tmp_path / "vit.safetensors", "vit_tiny_patch16_224", KWARGS)
    wrapped = ClassTokenViT.create("vit_tiny_patch16_224", **KWARGS)
    load_encoder(wrapped, tmp_path / "vit.safetensors")
    equal(wrapped.vit.state_dict(), msn.encoder.state_dict())

    for name in ("resnet10t", "convnext_atto", "mobilenetv3_small_050"):
        trained = timm.create_model(name, num_classes=7)
        torch.save({"state_dict": trained.state_dict()}, tmp_path / "trained.pth")
        empty = timm.create_model(name, num_classes=0)
        load_encoder(empty, tmp_path / "trained.pth")
        equal(empty.state_dict(), read_encoder_weights(tmp_path / "trained.pth"))


def test_torchvision_names_and_a_network_that_keeps_its_own_classifier(tmp_path):
    reference = torchvision.models.resnet50(num_classes=3)
    torch.save(reference.state_dict(), tmp_path / "rn50.pth")
    load_encoder(timm.create_model("resnet50", num_classes=0), tmp_path / "rn50.pth")
    other = torchvision.models.resnet50(num_classes=5)
    classifier = other.fc.weight.clone()
    load_encoder(other, tmp_path / "rn50.pth")
    assert torch.equal(other.conv1.weight, reference.conv1.weight)
    assert torch.equal(other.fc.weight, classifier)


def test_batches_that_nobody_counted_are_no_misfit(tmp_path):
    """Torchvision's first files have no ``num_batches_tracked``."""
    trained = timm.create_model("resnet10t", num_classes=0)
    state = {k: v for k, v in trained.state_dict().items() if "num_batches" not in k}
    torch.save(state, tmp_path / "old.pth")
    network = timm.create_model("resnet10t", num_classes=0)
    load_encoder(network, tmp_path / "old.pth")
    equal(network.state_dict(), trained.state_dict())
    del state["conv1.0.weight"]
    torch.save(state, tmp_path / "less.pth")
    with pytest.raises(ValueError, match=r"1 differ .* \(missing conv1\.0\.weight\)"):
        load_encoder(network, tmp_path / "less.pth")


def test_what_does_not_fit_is_named(tiny, tmp_path):
    save_file(tiny.vit().state_dict(), tmp_path / "vit.safetensors")
    with pytest.raises(ValueError, match=r"another image size: pos_embed is \[1, 17, 12\] there"):
        load_encoder(tiny.vit(img_size=32), tmp_path / "vit.safetensors")
    with pytest.raises(ValueError, match=r"missing blocks\.2\.norm1\.weight, .* …\)"):
        load_encoder(tiny.vit(depth=3), tmp_path / "vit.safetensors")
    with pytest.raises(ValueError, match=r"12 differ in name or shape \(unexpected blocks\.1"):
        load_encoder(tiny.vit(depth=1), tmp_path / "vit.safetensors")
    with pytest.raises(ValueError, match=r"cls_token \[1, 1, 12\] instead of \[1, 1, 8\]"):
        load_encoder(tiny.vit(embed_dim=8), tmp_path / "vit.safetensors")


def test_what_is_no_file_of_weights_is_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights at"):
        read_encoder_weights(tmp_path / "absent.pth")
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    with (tmp_path / "code.pth").open("wb") as file:
        pickle.dump(ValueError("x"), file)
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    (tmp_path / "empty.pth").touch()
    for name in ("text.pth", "text.safetensors", "code.pth", "list.pth", "empty.pth"):
        with pytest.raises(ValueError, match=r"cannot be read as a file of weights: \w"):
            read_encoder_weights(tmp_path / name)
    torch.save({"epoch": 1, "note": "x"}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"no weights of a backbone: .* \['epoch', 'note'\]"):
        read_encoder_weights(tmp_path / "other.pth")
