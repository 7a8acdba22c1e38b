"""Density, mean and degree entropy of link probabilities, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from lit_ssl.metrics import KnownAccuracy, degree_entropy, link_density, mean_link


def test_only_pairs_of_different_modules_count():
    links = torch.eye(5)
    assert link_density(links) == 0
    assert mean_link(links) == 0
    links[1, 3] = 0.5
    links[0, 4] = 0.25
    assert link_density(links).item() == pytest.approx(2 / 20)
    assert mean_link(links).item() == pytest.approx(0.75 / 20)


def test_depths_are_averaged():
    links = torch.stack([torch.ones(3, 3), torch.eye(3)])
    assert link_density(links) == 0.5
    assert mean_link(links) == 0.5


def test_degree_entropy_is_1_for_equal_degrees_and_lower_for_a_star():
    assert degree_entropy(torch.ones(7, 7)).item() == pytest.approx(1)
    star = torch.eye(5)
    star[0] = star[:, 0] = 1
    shares = [0.5] + [0.125] * 4
    expected = -sum(q * math.log(q) for q in shares) / math.log(5)
    assert degree_entropy(star).item() == pytest.approx(expected)


def test_what_is_not_defined_is_nan():
    assert degree_entropy(torch.eye(4)).isnan()
    one = torch.ones(1, 1)
    assert all(value(one).isnan() for value in (link_density, mean_link, degree_entropy))


def test_top_5_of_known_labels():
    logits, labels = torch.randn(50, 9), torch.randint(9, (50,))
    labels[:7] = -1
    metric = KnownAccuracy(9, top_k=5)
    metric.update(logits, labels)
    hits = (logits.topk(5).indices == labels[:, None]).any(dim=1)[7:]
    assert metric.compute().item() == pytest.approx(hits.float().mean().item())
    unknown = KnownAccuracy(9)
    unknown.update(logits, torch.full((50,), -1))
    assert unknown.compute().isnan()
