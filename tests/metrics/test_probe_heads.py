"""Stacked heads: values, gradients and reference trajectory are those of single heads."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lit_ssl.metrics import ProbeHead
from lit_ssl.models.probes import ProbeHeads, probe_losses
from lit_ssl.optim.stacked_sgd import StackedSGD


def heads_with_different_weights(count=3, width=5, classes=4):
    heads = ProbeHeads(count, width, classes).double()
    with torch.no_grad():
        for p in heads.parameters():
            p.add_(torch.randn_like(p))
    return heads


def test_all_heads_start_as_one_head_does():
    torch.manual_seed(3)
    alone = ProbeHead(6, 4)
    torch.manual_seed(3)
    heads = ProbeHeads(5, 6, 4)
    x = torch.randn(7, 6)
    torch.testing.assert_close(heads(x), alone(x).expand(5, 7, 4))


def test_logits_losses_and_gradients_are_those_of_each_head():
    heads = heads_with_different_weights()
    x, labels = torch.randn(6, 5).double(), torch.tensor([0, 3, -1, 1, 2, -1])
    losses = probe_losses(heads(x), labels)
    losses.sum().backward()
    for index in range(3):
        alone = heads.select(index)
        loss = F.cross_entropy(alone(x), labels, ignore_index=-1)
        loss.backward()
        torch.testing.assert_close(losses[index], loss)
        torch.testing.assert_close(heads.weight.grad[index], alone.linear.weight.grad)
        torch.testing.assert_close(heads.bias.grad[index], alone.linear.bias.grad)
        torch.testing.assert_close(heads.norm_weight.grad[index], alone.norm.weight.grad)
        torch.testing.assert_close(heads.norm_bias.grad[index], alone.norm.bias.grad)


def test_one_head_of_the_stack_follows_the_reference_trajectory(golden):
    data = golden("msn/linear_probe")
    heads = ProbeHeads(3, 10, 5).double()
    names = {
        "norm_weight": "norm.weight", "norm_bias": "norm.bias",
        "weight": "linear.weight", "bias": "linear.bias",
    }  # fmt: skip
    with torch.no_grad():
        for ours, theirs in names.items():
            getattr(heads, ours).copy_(data[f"init/{theirs}"].expand_as(getattr(heads, ours)))
    optimizer = StackedSGD(heads.parameters(), [0.3, 6.4, 50.0], [0.0, 0.0, 0.1])
    for step in range(6):
        optimizer.param_groups[0]["lr"] = data["lr_used"][step].item() / 6.4
        losses = probe_losses(heads(data["x"][step]), data["y"][step])
        torch.testing.assert_close(losses[1], data["losses"][step], rtol=1e-9, atol=1e-12)
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
    for ours, theirs in names.items():
        result = getattr(heads, ours)[1].detach()
        torch.testing.assert_close(result, data[f"final/{theirs}"], rtol=1e-9, atol=1e-12)
    assert not torch.allclose(heads.weight[0], heads.weight[1])


def test_a_head_that_is_not_finite_disturbs_no_other():
    x, labels = torch.randn(6, 5).double(), torch.tensor([0, 3, 1, 1, 2, 0])
    clean, broken = (heads_with_different_weights() for _ in range(2))
    broken.load_state_dict(clean.state_dict())
    with torch.no_grad():
        broken.weight[1, 0, 0] = torch.inf
        broken.norm_bias[1] = torch.nan
    assert broken.finite().tolist() == [True, False, True]
    for heads in (clean, broken):
        losses = probe_losses(heads(x), labels)
        torch.where(losses.isfinite(), losses, 0.0).sum().backward()
    for p, q in zip(clean.parameters(), broken.parameters(), strict=True):
        assert torch.equal(p.grad[[0, 2]], q.grad[[0, 2]])


def test_logits_are_float32_under_autocast():
    heads = ProbeHeads(2, 5, 3)
    x = torch.randn(4, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(heads(x), heads(x.clone()))
        assert heads(x.bfloat16()).dtype == torch.float32


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="num_heads must be >= 1"):
        ProbeHeads(0, 4, 3)
    with pytest.raises(ValueError, match="embed_dim and num_classes"):
        ProbeHeads(2, 0, 3)
