"""Weights of PAWS in and out: checkpoints of ours, official ones, backbones."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from lit_ssl.checkpoints.origins import read_weights
from lit_ssl.methods import PAWS, SuNCEt


def official_checkpoint(module):
    """A dict with the keys and prefixes of the official checkpoints."""
    parts = {"": module.backbone, "fc.": module.projection_head, "pred.": module.prediction_head}
    names = {
        f"module.{prefix}{key}": value.clone()
        for prefix, part in parts.items()
        if part is not None
        for key, value in part.state_dict().items()
    }
    return {"encoder": names, "opt": {"state": {}}, "epoch": 3, "amp": None}


def small(**kwargs):
    return PAWS(**{"backbone": "wide_resnet28_2", "proj_output_dim": 16, **kwargs})


@pytest.mark.parametrize("head", [True, False])
def test_official_checkpoint(tmp_path, head):
    source = small(use_prediction_head=head)
    content = official_checkpoint(source)
    # the names of the released code
    assert {"module.conv1.bias", "module.layer1.0.bn1.running_mean", "module.fc.bn2.weight"} < set(
        content["encoder"]
    )
    path = tmp_path / "official.pth.tar"
    torch.save(content, path)
    module = small(use_prediction_head=head, pretrained=str(path))
    assert not torch.equal(module.backbone.conv1.weight, source.backbone.conv1.weight)
    module.setup("fit")
    for key, value in source.state_dict().items():
        torch.testing.assert_close(module.state_dict()[key], value)
    wrong = "False" if not head else "True"
    with pytest.raises(ValueError, match=f"set use_prediction_head={wrong}"):
        small(use_prediction_head=not head).load_weights(str(path))


def test_official_resnet50_has_the_names_of_torchvision(tmp_path):
    reference = torchvision.models.resnet50()
    reference.fc = nn.Identity()
    state = {f"module.{key}": value for key, value in reference.state_dict().items()}
    torch.save({"encoder": state}, tmp_path / "resnet.pth.tar")
    module = PAWS("resnet50", proj_hidden_dim=8, proj_output_dim=8)
    module.load_weights(str(tmp_path / "resnet.pth.tar"))
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(
        module.eval()(images), reference.eval()(images), rtol=1e-4, atol=1e-4
    )
    timm.create_model("resnet50", num_classes=0).load_state_dict(
        read_weights(tmp_path / "resnet.pth.tar").encoder
    )


def test_backbone_alone(tmp_path):
    source = small()
    classifier = {"fc.weight": torch.zeros(10, 128), "fc.bias": torch.zeros(10)}
    save_file({**source.encoder.state_dict(), **classifier}, tmp_path / "net.safetensors")
    module = small(pretrained=str(tmp_path / "net.safetensors"))
    head = module.projection_head.fc1.weight.clone()
    module.setup("fit")
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(module(images), source(images))
    assert torch.equal(module.projection_head.fc1.weight, head)


def test_unknown_weights_are_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights at"):
        small(pretrained="absent.pth").setup("fit")
    torch.save({"epoch": 3, "model": "x"}, tmp_path / "other.pth")
    with pytest.raises(
        ValueError, match=r"holds no weights of a backbone: .* \['epoch', 'model'\]"
    ):
        small().load_weights(str(tmp_path / "other.pth"))


def test_checkpoint_reloads_without_arguments_when_the_backbone_has_a_name(tiny, tmp_path):
    module = small(num_classes=2, proj_hidden_dim=12)
    views, supports = [torch.randn(4, 2, 3, 16, 16)], torch.randn(4, 3, 16, 16)
    batch = {"unlabelled": views, "support": (supports, torch.tensor([0, 1, 0, 1]))}
    trainer = tiny.trainer()
    trainer.fit(module, tiny.loader([batch]))
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    loaded = PAWS.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    assert loaded.hparams == module.hparams
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(loaded.eval().embed(images), module.eval().embed(images))


def test_checkpoint_of_a_run_gives_its_heads(tiny, tmp_path):
    source = small(use_prediction_head=False)
    trainer = tiny.trainer()
    trainer.strategy.connect(source)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    module = SuNCEt("wide_resnet28_2", proj_output_dim=16, pretrained=str(tmp_path / "run.ckpt"))
    module.setup("fit")
    for key, value in source.projection_head.state_dict().items():
        assert torch.equal(module.projection_head.state_dict()[key], value), key
    assert torch.equal(module.backbone.conv1.weight, source.backbone.conv1.weight)


def test_checkpoint_of_msn_gives_its_slow_backbone_and_no_head(tiny, tmp_path):
    msn = tiny.msn(proj_hidden_dim=8)
    msn.target_backbone.vit.norm.bias.data += 1
    trainer = tiny.trainer()
    trainer.strategy.connect(msn)
    trainer.save_checkpoint(tmp_path / "msn.ckpt")
    module = PAWS(tiny.vit(), proj_hidden_dim=8, proj_output_dim=8)
    head = module.projection_head.fc1.weight.clone()
    module.load_weights(str(tmp_path / "msn.ckpt"))
    assert torch.equal(module.backbone.norm.bias, msn.encoder.norm.bias)
    assert torch.equal(module.projection_head.fc1.weight, head)
