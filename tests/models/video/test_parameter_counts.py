"""Sizes of the networks of the large recipes, in millions of parameters."""

from __future__ import annotations

import pytest
import torch

from lit_ssl.models import (
    ClipDiscriminator,
    DVDGenerator,
    FrameDiscriminator,
    MatchingDiscriminator,
    UpsamplingGenerator,
)


@pytest.mark.parametrize(
    ("network", "millions"),
    [
        (lambda: DVDGenerator(12, 64, 600, channels=128), 305),
        (lambda: DVDGenerator(8, 64, 101, channels=96), 174),
        (lambda: DVDGenerator(48, 128, 600, channels=128), 311),
        (lambda: UpsamplingGenerator(600, channels=64), 6.4),
        (lambda: UpsamplingGenerator(1, channels=32), 1.8),
        (lambda: FrameDiscriminator(64, 600, 128), 39),
        (lambda: FrameDiscriminator(128, 600, 96), 33),
        (lambda: FrameDiscriminator(256, 1, 64), 20),
        (lambda: ClipDiscriminator(64, 24, 600, 128), 22),
        (lambda: MatchingDiscriminator(64, 12, 600, 96), 23),
    ],
)
def test_parameters(network, millions):
    with torch.device("meta"):
        count = sum(p.numel() for p in network().parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.025)
