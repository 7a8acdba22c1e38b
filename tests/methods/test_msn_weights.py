"""Weights of MSN in and out: checkpoints of ours, official ones, transformers, timm names."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from lit_ssl import MSN
from lit_ssl.checkpoints.origins import read_weights


def official_checkpoint(module: MSN) -> dict:
    """A dict with the keys and prefixes of the official checkpoints."""

    def network(backbone, head):
        names = {
            **backbone.vit.state_dict(),
            **{f"fc.{k}": v for k, v in head.state_dict().items()},
        }
        return {f"module.{key}": value.clone() for key, value in names.items()}

    return {
        "target_encoder": network(module.target_backbone, module.target_head),
        "encoder": network(module.backbone, module.projection_head),
        "prototypes": module.prototypes.detach().clone(),
        "opt": {"state": {}, "param_groups": []},
        "epoch": 3, "loss": 1.0, "batch_size": 2, "world_size": 1, "lr": 1e-3,
    }  # fmt: skip


def test_official_checkpoint(tiny, tmp_path):
    source = tiny.msn()
    for p in source.target_backbone.parameters():
        p.data.add_(0.1)
    torch.save(official_checkpoint(source), tmp_path / "official.pth.tar")
    module = tiny.msn(pretrained=str(tmp_path / "official.pth.tar"))
    module.setup("fit")
    for key, value in source.state_dict().items():
        torch.testing.assert_close(module.state_dict()[key], value)
    # into a plain timm network
    vit = tiny.vit()
    vit.load_state_dict(read_weights(tmp_path / "official.pth.tar").encoder)
    images = torch.randn(2, 3, 16, 16)
    # weights of one sign lose digits in every sum, and the last blocks sum in other orders
    torch.testing.assert_close(vit(images), source(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("saved", ["folder", "names in memory", "classifier"])
def test_transformers_vit_msn(tiny, tmp_path, saved):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTMSNConfig(
        hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        image_size=16, patch_size=4, layer_norm_eps=1e-6,
    )  # fmt: skip
    path = tmp_path / "hf"
    if saved == "classifier":
        network = transformers.ViTMSNForImageClassification(config).eval()
        network.save_pretrained(path)
        network = network.vit
    else:
        network = transformers.ViTMSNModel(config).eval()
        if saved == "folder":
            network.save_pretrained(path)
        else:
            path = tmp_path / "hf.pth"
            torch.save(network.state_dict(), path)
    module = tiny.msn(pretrained=str(path)).eval()
    module.setup("validate")
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = network(images).last_hidden_state[:, 0]
        torch.testing.assert_close(module(images), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(module.backbone(images), expected, rtol=1e-4, atol=1e-5)


def test_timm_names(tiny, tmp_path):
    vit = tiny.vit()
    save_file(vit.state_dict(), tmp_path / "vit.safetensors")
    module = tiny.msn()
    module.load_weights(str(tmp_path / "vit.safetensors"))
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(module(images), vit(images), rtol=1e-4, atol=1e-5)


def test_unknown_weights_are_explained(tiny, tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights at"):
        tiny.msn(pretrained="absent.pth").setup("fit")
    torch.save({"model": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(
        ValueError, match=r"holds no weights of a backbone: expected .* found \['model'\]"
    ):
        tiny.msn().load_weights(str(tmp_path / "other.pth"))


def test_checkpoint_reloads_without_arguments_when_the_backbone_has_a_name(tiny, tmp_path):
    kwargs = {"img_size": 16, "patch_size": 4, "depth": 2, "embed_dim": 12, "num_heads": 2}
    module = tiny.msn(backbone="vit_tiny_patch16_224", backbone_kwargs=kwargs)
    trainer = tiny.trainer()
    trainer.fit(module, tiny.loader([tiny.views()]))
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    loaded = MSN.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    assert loaded.hparams == module.hparams
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(loaded(images), module(images))


def test_checkpoint_of_a_module_backbone_needs_the_backbone(tiny, tmp_path):
    module = tiny.msn()
    trainer = tiny.trainer()
    trainer.fit(module, tiny.loader([tiny.views()]))
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    path = tmp_path / "x.ckpt"
    loaded = MSN.load_from_checkpoint(path, weights_only=True, backbone=tiny.vit())
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(loaded(images), module(images))
