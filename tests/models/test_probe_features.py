"""Kinds of features for linear probes."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from lit_ssl.models import ClassTokenViT
from lit_ssl.models.probe_features import ProbeFeatures


def vit(**kwargs):
    arguments = {
        "img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 3, "num_heads": 2,
        "num_classes": 0, "reg_tokens": 2,
    }  # fmt: skip
    return VisionTransformer(**{**arguments, **kwargs}).eval()


def tokens_of_blocks(network, images):
    """Tokens after each block, through hooks."""
    seen = []
    hooks = [b.register_forward_hook(lambda *args: seen.append(args[2])) for b in network.blocks]
    network.forward_features(images)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("wrapped", [False, True])
def test_kinds_are_what_they_say(wrapped):
    network, images = vit(), torch.randn(2, 3, 16, 16)
    layers = tokens_of_blocks(network, images)
    mean = layers[-1][:, 3:].mean(1)  # behind a class token and two registers
    expected = {
        "token-1": layers[-1][:, 0],
        "token-3": torch.cat([layer[:, 0] for layer in layers], dim=1),
        "mean": mean,
        "token-2+mean": torch.cat([layers[1][:, 0], layers[2][:, 0], mean], dim=1),
        "pooled": network(images),
    }
    backbone = ClassTokenViT(network) if wrapped else network
    for kinds in (list(expected), ["token-1"], ["token-3", "token-1"], ["mean"], ["pooled"]):
        features = ProbeFeatures(backbone, 12, kinds)
        found = features(images)
        assert [x.shape[1] for x in found] == features.widths
        for kind, x in zip(kinds, found, strict=True):
            torch.testing.assert_close(x, expected[kind], atol=2e-6, rtol=1e-5)


def test_defaults_go_with_the_backbone():
    class Net(nn.Module):
        def forward(self, images):
            return images.mean((2, 3))

    assert ProbeFeatures(vit(), 12).kinds == ["token-1"]
    assert ProbeFeatures(vit(class_token=False, global_pool="avg"), 12).kinds == ["pooled"]
    plain = ProbeFeatures(Net(), 3)
    assert (plain.kinds, plain.widths) == (["pooled"], [3])
    assert torch.equal(plain(torch.ones(2, 3, 4, 4))[0], torch.ones(2, 3))
    patches = ProbeFeatures(vit(class_token=False, global_pool="avg", reg_tokens=0), 12, ["mean"])
    assert patches(torch.randn(2, 3, 16, 16))[0].shape == (2, 12)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (["token-0"], "there are no features 'token-0': choose from"),
        (["token-4"], "has 3 blocks"),
        (["mean", "mean"], "each kind of features may be there once"),
    ],
)
def test_wrong_kinds_are_refused(kinds, message):
    with pytest.raises(ValueError, match=message):
        ProbeFeatures(vit(), 12, kinds)


def test_kinds_that_do_not_go_with_the_backbone_are_refused():
    with pytest.raises(ValueError, match="Linear has pooled only"):
        ProbeFeatures(nn.Linear(3, 2), 2, ["token-1"])
    with pytest.raises(ValueError, match="need a class token"):
        ProbeFeatures(vit(class_token=False, global_pool="avg"), 12, ["token-1"])
    flat = ProbeFeatures(nn.Conv2d(3, 2, 1), 2)
    with pytest.raises(ValueError, match=r"expected pooled features \[4, 2\]"):
        flat(torch.zeros(4, 3, 2, 2))


def test_a_second_token_is_not_dropped_in_silence():
    """A distilled DeiT is pooled by timm, and has no class token that could be computed alone."""
    options = {"num_classes": 0, "img_size": 16, "depth": 1}
    network = timm.create_model("deit_tiny_distilled_patch16_224", **options).eval()
    extract = ProbeFeatures(network, 192)
    images = torch.randn(2, 3, 16, 16)
    assert extract.kinds == ["pooled"]
    assert torch.equal(extract(images)[0], network(images))
    with pytest.raises(ValueError, match="need a class token: VisionTransformerDistilled has a"):
        ProbeFeatures(network, 192, ["token-1"])
