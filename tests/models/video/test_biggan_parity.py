"""Values and gradients of BigGAN's released layers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lit_ssl.models import (
    ConditionalBatchNorm2d,
    DiscriminatorBlock,
    GeneratorBlock,
    SelfAttention2d,
    spectral_norm,
    standing_statistics,
)
from lit_ssl.models.ema import ema_state_update_
from lit_ssl.models.video.orthogonal import orthogonal_penalty_
from lit_ssl.models.video.projection_head import ProjectionHead2d

sys.path.insert(0, str(Path(__file__).parent))
from biggan_reference import fill, fill_from, under, weight_of

CLOSE = {"rtol": 1e-4, "atol": 5e-6}


@pytest.fixture
def arrays(golden):
    return golden("video_biggan_layers")


def test_spectral_norm(arrays):
    a = under(arrays, "sn_")
    conv = spectral_norm(nn.Conv2d(3, 5, 3, padding=1))
    fill(conv, a["w"], a["u0"], a["b"])
    x = a["x"].requires_grad_()
    for step in range(3):
        out = conv(x)
        assert_close(out, a[f"train_out{step}"], **CLOSE)
        u = conv.parametrizations.weight[0].u
        assert_close(u[None], a[f"u_after{step}"], **CLOSE)
    (out * a["cot"]).sum().backward()
    assert_close(x.grad, a["grad_x"], **CLOSE)
    assert_close(weight_of(conv).grad, a["grad_weight"], **CLOSE)
    assert_close(conv.bias.grad, a["grad_bias"], **CLOSE)
    conv.eval()
    assert_close(conv(x), a["eval_out"], **CLOSE)
    assert_close(conv(x), a["eval_out"], **CLOSE)
    assert_close(u[None], a["u_after_eval"], **CLOSE)


def test_sigma(arrays):
    a = under(arrays, "sn_")
    conv = spectral_norm(nn.Conv2d(3, 5, 3, padding=1))
    fill(conv, a["w"], a["u0"])
    for step in range(3):
        assert_close((a["w"] / conv.weight).mean()[None], a[f"sv{step}"], **CLOSE)


def test_spectral_norm_of_an_embedding(arrays):
    a = under(arrays, "sne_")
    embedding = spectral_norm(nn.Embedding(4, 6))
    fill(embedding, a["w"], a["u0"])
    assert_close(embedding(a["y"]), a["out"], **CLOSE)


def conditional_norm(arrays):
    norm = ConditionalBatchNorm2d(4, 7)
    fill(norm.gain, arrays["ccbn_gain_w"])
    fill(norm.shift, arrays["ccbn_bias_w"])
    return norm


def test_conditional_batch_norm(arrays):
    a = under(arrays, "ccbn_")
    norm = conditional_norm(arrays)
    assert_close(norm(a["x"], a["y"]), a["train"], **CLOSE)
    assert_close(norm.bn.running_mean, a["mean"], **CLOSE)
    assert_close(norm.bn.running_var, a["var"], **CLOSE)
    assert_close(norm.eval()(a["x"], a["y"]), a["eval"], **CLOSE)


def test_standing_statistics(arrays):
    a = under(arrays, "stand_")
    norm = conditional_norm(arrays)
    norm(torch.randn(3, 4, 5, 5), arrays["ccbn_y"])  # forgotten
    standing_statistics(norm, lambda i: norm(a[f"x{i}"], arrays["ccbn_y"]), 3)
    assert_close(norm.bn.running_mean, a["mean"], **CLOSE)
    assert_close(norm.bn.running_var, a["var"], **CLOSE)
    assert_close(norm(arrays["ccbn_x"], arrays["ccbn_y"]), a["eval"], **CLOSE)


@pytest.mark.parametrize(("case", "out", "scale"), [("g_up", 6, 2), ("g_same", 4, 1)])
def test_generator_block(arrays, case, out, scale):
    a = under(arrays, f"{case}_")
    block = GeneratorBlock(4, out, 7, scale)
    ours = {"conv1": block.conv1, "conv2": block.conv2, "conv_sc": block.shortcut}
    for name, norm in (("bn1", block.norm1), ("bn2", block.norm2)):
        ours |= {
            f"{name}.gain": spectral_norm(norm.gain),
            f"{name}.bias": spectral_norm(norm.shift),
        }
        norm.bn.running_mean.copy_(a[f"sd_{name}.stored_mean"])
    check(block, ours, a, a["y"])


@pytest.mark.parametrize(
    ("case", "sizes", "down", "preactivation"),
    [
        ("d_first", (3, 4), True, False),
        ("d_mid", (4, 6), True, True),
        ("d_last", (4, 4), False, True),
    ],
)
def test_discriminator_block(arrays, case, sizes, down, preactivation):
    block = DiscriminatorBlock(*sizes, down=down, preactivation=preactivation)
    ours = {"conv1": block.conv1, "conv2": block.conv2, "conv_sc": block.shortcut}
    check(block, ours, under(arrays, f"{case}_"))


def test_self_attention(arrays):
    a = under(arrays, "att_")
    block = SelfAttention2d(16)
    block.gamma.data.copy_(a["sd_gamma"])
    ours = {"theta": block.query, "phi": block.key, "g": block.value, "o": block.out}
    check(block, ours, a)
    assert_close(block.gamma.grad, a["grad_gamma"], **CLOSE)


def check(block, ours, a, *condition):
    """Output and all gradients of ``sum(out * cot)``."""
    ours = {name: layer for name, layer in ours.items() if f"sd_{name}.weight" in a}
    assert len(ours) == sum(name.startswith("sd_") and name.endswith(".weight") for name in a)
    for name, layer in ours.items():
        fill_from(layer, under(a, "sd_"), name)
    x = a["x"].requires_grad_()
    out = block(x, *condition)
    assert_close(out, a["out"], **CLOSE)
    (out * a["cot"]).sum().backward()
    assert_close(x.grad, a["grad_x"], **CLOSE)
    for name, layer in ours.items():
        assert_close(weight_of(layer).grad, a[f"grad_{name}.weight"], **CLOSE)
        if f"grad_{name}.bias" in a:
            assert_close(layer.bias.grad, a[f"grad_{name}.bias"], **CLOSE)


def test_projection_discriminator(arrays):
    """BigGAN's for 32 pixels: four blocks of width 8, two of which halve the size."""
    a = under(arrays, "disc_")
    state = under(a, "sd_")
    blocks = nn.Sequential(
        *(
            DiscriminatorBlock(3 if i == 0 else 8, 8, down=i < 2, preactivation=i > 0)
            for i in range(4)
        )
    )
    head = ProjectionHead2d(8, 5)
    for i, block in enumerate(blocks):
        fill_from(block.conv1, state, f"blocks.{i}.0.conv1")
        fill_from(block.conv2, state, f"blocks.{i}.0.conv2")
        if i < 2:
            fill_from(block.shortcut, state, f"blocks.{i}.0.conv_sc")
    fill_from(head.linear, state, "linear")
    fill_from(head.embed, state, "embed")
    x = a["x"].requires_grad_()
    out = head(blocks(x), a["y"])
    assert_close(out, a["out"], **CLOSE)
    (out * a["cot"]).sum().backward()
    assert_close(x.grad, a["grad_x"], **CLOSE)
    assert_close(weight_of(head.embed).grad, a["grad_embed"], **CLOSE)
    assert_close(weight_of(head.linear).grad, a["grad_linear"], **CLOSE)


def test_average_of_all_state(arrays):
    """Before the start (step 2) the average is a copy."""
    a = under(arrays, "ema_")
    slow, fast = (nn.Module(), nn.Module())
    for module in (slow, fast):
        module.w = nn.Parameter(torch.zeros(4, 3))
        module.register_buffer("m", torch.zeros(4))
        module.register_buffer("steps", torch.tensor(0))
    for i in range(5):
        fast.w.data.copy_(a[f"src_w{i}"])
        fast.m.copy_(a[f"src_m{i}"])
        fast.steps += 1
        ema_state_update_(slow, fast, 0.0 if i + 1 < 2 else 0.9)
        assert_close(slow.w.data, a[f"tgt_w{i}"], **CLOSE)
        assert_close(slow.m, a[f"tgt_m{i}"], **CLOSE)
        assert slow.steps == i + 1


def test_orthogonal_penalty(arrays):
    conv = nn.Conv2d(3, 4, 3)
    fill(conv, arrays["ortho_w"])
    for before in (0.0, 0.5):
        conv.weight.grad = torch.full_like(conv.weight, before) if before else None
        conv.bias.grad = torch.zeros(4)
        orthogonal_penalty_(conv, 1e-4)
        added = conv.weight.grad - before
        assert_close(added, arrays["ortho_grad_added"], rtol=1e-4, atol=1e-7)
        assert not conv.bias.grad.any()


def test_orthogonal_penalty_leaves_the_classes_of_a_generator_alone():
    layers = nn.ModuleList([nn.Embedding(3, 4), spectral_norm(nn.Embedding(3, 4)), nn.Linear(4, 3)])
    layers[2].weight.requires_grad_(False)
    orthogonal_penalty_(layers, 1.0)
    assert layers[0].weight.grad is None
    assert weight_of(layers[1]).grad.abs().sum() > 0
    assert layers[2].weight.grad is None
