"""Fréchet distance of two sets of feature vectors."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lit_ssl.errors import InputError

__all__ = ["Moments", "feature_moments", "frechet_distance", "frechet_distance_from_features"]


class Moments(NamedTuple):
    """Mean and covariance of rows.

    Attributes:
        mean: float64 ``[D]``.
        covariance: float64 ``[D, D]``.
    """

    mean: Tensor
    covariance: Tensor


def feature_moments(
    features: Tensor, unbiased: bool = False, weights: Tensor | None = None
) -> Moments:
    """Mean and covariance of rows.

    Args:
        features: ``[N, D]``, N >= 2.
        unbiased: Whether the covariance is divided by N − 1 instead of N.
        weights: how often each row counts, integers ``[N]``; None: once.

    Raises:
        ValueError: Fewer than two rows, or another shape.
    """
    if features.ndim != 2 or len(features) < 2:
        raise InputError(f"needs at least 2 rows of features, got {list(features.shape)}")
    rows = features.double()
    w = rows.new_ones(len(rows)) if weights is None else weights.to(rows)
    count = w.sum()
    mean = w @ rows / count
    centred = rows - mean
    return Moments(mean, (centred * w[:, None]).T @ centred / (count - int(unbiased)))


def frechet_distance(mu1: Tensor, s1: Tensor, mu2: Tensor, s2: Tensor) -> Tensor:
    """Fréchet distance of two normal distributions.

        |mu1 − mu2|² + tr(s1 + s2 − 2 (s1 s2)^½)

    The trace of the root is the sum of the singular values of ``s1^½ s2^½``. Eigenvalues of s1 and
    s2 within rounding error of 0 are 0: the roots of what rounding leaves of them add up to 2e-4 of
    a distance with itself (100 rows of 400 features), where this gives 1e-12.

    Args:
        mu1: mean ``[D]``.
        s1: covariance ``[D, D]``.
        mu2: mean ``[D]``.
        s2: covariance ``[D, D]``.

    Returns:
        float64, 0-d, on the CPU; from about −1e-12 upwards.

    Raises:
        ValueError: Shapes do not fit, or values are not finite.

    Source: arXiv 1706.08500, equation 6.
    """
    mu1, s1, mu2, s2 = (t.detach().cpu().double() for t in (mu1, s1, mu2, s2))
    size = mu1.numel()
    if mu1.shape != mu2.shape or mu1.ndim != 1 or not s1.shape == s2.shape == (size, size):
        shapes = [list(t.shape) for t in (mu1, s1, mu2, s2)]
        raise InputError(f"frechet_distance needs [D], [D, D], [D] and [D, D], got {shapes}")
    if not all(bool(t.isfinite().all()) for t in (mu1, s1, mu2, s2)):
        raise InputError("frechet_distance got values that are NaN or infinite")
    root = torch.linalg.svdvals(_root(s1).T @ _root(s2)).sum()
    return (mu1 - mu2).square().sum() + s1.trace() + s2.trace() - 2 * root


def frechet_distance_from_features(a: Tensor, b: Tensor, unbiased: bool = False) -> Tensor:
    """Fréchet distance of two sets of rows.

    Args:
        a: ``[N, D]``, N >= 2.
        b: ``[M, D]``, M >= 2.
        unbiased: Whether covariances are divided by N − 1 and M − 1.

    Returns:
        float64, 0-d, on the CPU.

    Raises:
        ValueError: Too few rows, shapes that do not fit, or values that are not finite.
    """
    return frechet_distance(*feature_moments(a, unbiased), *feature_moments(b, unbiased))


def _root(covariance: Tensor) -> Tensor:
    """A matrix R with R Rᵀ = covariance."""
    values, vectors = torch.linalg.eigh(covariance)
    noise = values.max().clamp(min=0) * len(values) * torch.finfo(values.dtype).eps
    return vectors * torch.where(values > noise, values, 0.0).sqrt()
