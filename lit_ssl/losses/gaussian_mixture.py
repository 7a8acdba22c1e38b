"""Mixtures of Gaussians on a line."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["fit_mixture", "log_densities"]

_SCALE_FLOOR = 1e-3  # equal points would have an infinite density


def log_densities(points: Tensor, weights: Tensor, means: Tensor, scales: Tensor) -> Tensor:
    """Log densities of weighted components, whose ``logsumexp`` is that of the mixture.

    Args:
        points: ``[n]``.
        weights: ``[K]``, > 0, their sum 1.
        means: ``[K]``.
        scales: standard deviations ``[K]``, > 0.

    Returns:
        ``[n, K]``.
    """
    scaled = (points[:, None] - means) / scales
    return weights.log() - 0.5 * scaled.square() - scales.log() - 0.5 * math.log(2 * math.pi)


def fit_mixture(
    points: Tensor, num_components: int, max_steps: int = 500, tolerance: float = 1e-9
) -> tuple[Tensor, Tensor, Tensor]:
    """Fit a mixture by expectation maximisation, from means at quantiles: no random numbers.

    Args:
        points: float64 ``[n]``, n ≥ 1.
        num_components: K ≥ 1.
        max_steps: at most.
        tolerance: stop where the mean log-likelihood of a point grows by less.

    Returns:
        Weights, means and standard deviations ``[K]``; the latter at least 1e-3.
    """
    ranks = (torch.arange(num_components, dtype=torch.float64) + 0.5) / num_components * len(points)
    means = points.sort().values[ranks.long()]
    weights = torch.full_like(means, 1 / num_components)
    scales = points.std(correction=0).clamp(min=_SCALE_FLOOR).expand_as(means)
    last = -math.inf
    for _ in range(max_steps):
        joint = log_densities(points, weights, means, scales)
        likelihood = float(joint.logsumexp(-1).mean())
        if likelihood - last < tolerance:
            break
        last = likelihood
        shares = joint.softmax(-1)
        # a component that lost all points keeps a weight whose logarithm is finite
        mass = shares.sum(0).clamp(min=1e-12)
        weights = mass / mass.sum()
        means = (shares * points[:, None]).sum(0) / mass
        spread = (shares * (points[:, None] - means).square()).sum(0) / mass
        scales = spread.sqrt().clamp(min=_SCALE_FLOOR)
    return weights, means, scales
