"""Attention written out against torch's own, and which of the two runs where."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from lit_ssl.models.backbones.attention import (
    LONGEST_WRITTEN_OUT,
    attention,
    written_out_attention,
)


class OperationNames(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))

    @property
    def wrote_out(self) -> bool:
        assert self.names
        return not any("scaled_dot_product" in name for name in self.names)


def draw(dtype=torch.float64, keys=7, queries=5, width=4):
    shapes = ((2, 3, queries, 4), (2, 3, keys, 4), (2, 3, keys, width))
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def masks():
    seen = torch.rand(2, 1, 5, 7) > 0.4
    seen[1, 0, 2] = False  # a query that may look nowhere
    return {
        "none": None,
        "bool": seen,
        "keys": torch.tensor([[True] * 7, [True] * 3 + [False] * 4])[:, None, None],
        "bias": torch.randn(1, 3, 5, 7, dtype=torch.float64),
        "added": torch.zeros(2, 1, 5, 7, dtype=torch.float64).masked_fill(~seen, -torch.inf),
    }


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("name", masks())
def test_values_and_gradients_are_torchs(name, scale):
    parts, mask = draw(width=6), masks()[name]
    weight = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    results = []
    for out in (
        F.scaled_dot_product_attention(*parts, attn_mask=mask, scale=scale),
        written_out_attention(*parts, mask=mask, scale=scale),
    ):
        assert out.isfinite().all()
        results.append([out, *torch.autograd.grad((out * weight).sum(), parts)])
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_bfloat16_is_rounded_no_worse_than_its_scores():
    parts = draw(torch.bfloat16, keys=97, queries=97)
    exact = F.scaled_dot_product_attention(*(p.double() for p in parts))
    out = attention(*parts)
    assert out.dtype == torch.bfloat16
    assert (out - exact).norm() < 2**-7 * exact.norm()


@pytest.mark.parametrize(
    ("dtype", "keys", "autocast", "expected"),
    [
        (torch.bfloat16, 7, False, True),
        (torch.float32, 7, True, True),
        (torch.bfloat16, LONGEST_WRITTEN_OUT + 1, False, False),
        (torch.float32, 7, False, False),
        (torch.float16, 7, False, False),
    ],
)
def test_short_bfloat16_on_the_cpu_is_written_out(dtype, keys, autocast, expected):
    parts = [part.detach() for part in draw(dtype, keys=keys)]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast), OperationNames() as seen:
        out = attention(*parts)
    assert seen.wrote_out is expected
    assert out.dtype == (torch.bfloat16 if autocast else dtype)


def test_what_is_exported_has_torchs_attention():
    class Layer(torch.nn.Module):
        def forward(self, q, k, v):
            return attention(q, k, v)

    program = torch.export.export(Layer(), tuple(p.detach() for p in draw(torch.bfloat16)))
    assert "scaled_dot_product_attention" in str(program.graph)


def test_weights_are_dropped():
    torch.manual_seed(0)
    query, key = torch.zeros(1, 1, 50, 4), torch.zeros(1, 1, 400, 4)
    value = torch.ones(1, 1, 400, 1)
    out = written_out_attention(query, key, value, dropout=0.5)
    assert out.std() > 0.02  # sums of what was left of 400 equal weights, doubled
    assert out.mean().item() == pytest.approx(1.0, abs=0.05)
