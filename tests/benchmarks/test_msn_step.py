"""The ways to write MSN's step that the benchmark compares do the same work."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from lit_ssl import MSN

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from msn_peers import PlainStep, ReferenceStep
from msn_step import OurStep, timed

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


@pytest.fixture
def views():
    torch.manual_seed(1)
    return [torch.randn(6, 2, 3, 32, 32), torch.randn(6, 3, 3, 16, 16)]


def after_a_step(kind, views, mask_ratio):
    torch.manual_seed(0)
    module = MSN(
        "vit_tiny_patch16_224", TINY, num_prototypes=8, proj_hidden_dim=16, proj_output_dim=8,
        mask_ratio=mask_ratio,
    )  # fmt: skip
    processor, clock = timed(kind(module, mask_ratio), views, False)
    assert min(processor, clock) > 0
    return module


@pytest.mark.parametrize("kind", [PlainStep, ReferenceStep])
def test_gradients_and_targets_are_ours(kind, views):
    ours, theirs = (after_a_step(one, views, 0.0) for one in (OurStep, kind))
    checked = 0
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        if p.requires_grad:
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-5, msg=name)
            checked += 1
        else:
            torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-4, msg=name)
    assert checked > 30


def test_masks_reach_the_plain_step(views):
    whole, masked = (after_a_step(PlainStep, views, ratio) for ratio in (0.0, 0.5))
    first = next(iter(whole.backbone.parameters())).grad
    assert not torch.equal(first, next(iter(masked.backbone.parameters())).grad)
