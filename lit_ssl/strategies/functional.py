"""Arithmetic of local SGD, slow momentum and DiLoCo: plain tensors, no processes.

Notation: ``x0`` parameters at the start of a round, ``mean`` their average over workers at its end.
All functions work elementwise on tensors of any shape and keep the dtype of their arguments.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lit_ssl.errors import InputError

__all__ = [
    "mix_",
    "pooled_variance",
    "quadratic_period",
    "rebase_",
    "slow_momentum_",
    "weighted_mean_",
]


@torch.no_grad()
def weighted_mean_(total: Tensor, weight: float, fallback: Tensor | None = None) -> Tensor:
    """Turn a sum over workers ``Σ w_i x_i`` into their mean, in place.

    Args:
        total: the sum; becomes the mean.
        weight: ``Σ w_i``, ≥ 0.
        fallback: what to use when no worker has any weight; required in that case.

    Returns:
        ``total``.

    Raises:
        ValueError: if the weight is 0 and there is no fallback.
    """
    if weight > 0:
        return total.div_(weight)
    if fallback is None:
        raise InputError("the mean of no workers was asked for: give a fallback")
    return total.copy_(fallback)


@torch.no_grad()
def slow_momentum_(
    x0: Tensor,
    u: Tensor,
    mean: Tensor,
    lr: float,
    alpha: float = 1.0,
    beta: float = 0.5,
    division_lr: float | None = None,
) -> None:
    """One slow-momentum step on ``x0`` and the slow velocity ``u``, both in place.

    ``u ← β u + (x0 − mean) / γ`` and ``x0 ← x0 − α γ u`` (arXiv 1910.00643, Algorithm 1). Where γ
    is 0, ``x0 ← mean`` and ``u ← β u``. With α = 1 and β = 0 the result is exactly ``mean``.

    Args:
        x0: parameters at the start of the round.
        u: slow velocity, same shape; zeros before the first round.
        mean: average of the workers' parameters.
        lr: fast learning rate γ.
        alpha: slow learning rate α.
        beta: slow momentum β, in [0, 1).
        division_lr: γ of the first line; None: ``lr``.

    Differs from the paper: γ may be 0, and may differ between the two lines, so that a drop of the
    learning rate inside a round does not leave a velocity that is too large.
    """
    division_lr = lr if division_lr is None else division_lr
    if lr == 0 or division_lr == 0:
        u.mul_(beta)
        x0.copy_(mean)
        return
    u.mul_(beta).add_((x0 - mean).div_(division_lr))
    if alpha == 1 and beta == 0 and lr == division_lr:
        x0.copy_(mean)  # in floating point x0 − γ ((x0 − mean) / γ) is only nearly the mean
    else:
        x0.sub_(u, alpha=alpha * lr)


@torch.no_grad()
def mix_(now: Tensor, outer: Tensor, mix: float) -> Tensor:
    """Move local parameters to the outer ones: ``now ← outer + mix (now − outer)``, in place.

    Args:
        now: local parameters.
        outer: result of the outer step.
        mix: share of the local parameters that is kept; 0 takes the outer value exactly.

    Returns:
        ``now``.

    Source: arXiv 2501.18512, section 3.
    """
    return now.copy_(outer) if mix == 0 else now.lerp_(outer, 1 - mix)


@torch.no_grad()
def rebase_(now: Tensor, outer: Tensor, snapshot: Tensor) -> Tensor:
    """Put local progress on top of a delayed result: ``now ← outer + (now − snapshot)``, in place.

    Args:
        now: local parameters.
        outer: result of the outer step on the snapshots.
        snapshot: local parameters when the average was started.

    Returns:
        ``now``.
    """
    return now.sub_(snapshot).add_(outer)


@torch.no_grad()
def pooled_variance(second_moment: Tensor, mean: Tensor) -> Tensor:
    """Variance of the pooled data: ``E[x²] − E[x]²``, at least 0.

    Args:
        second_moment: average over workers of ``var_i + mean_i²``.
        mean: average over workers of ``mean_i``.

    Returns:
        Of the shape of both.
    """
    return (second_moment - mean.square()).clamp_(min=0)


def quadratic_period(lr: float, coefficient: float, base: int, maximum: int) -> int:
    """Steps between synchronisations by the quadratic rule, ``max(base, ⌊(c / γ)²⌋)``, capped.

    Args:
        lr: learning rate γ at the start of the round, > 0.
        coefficient: c, > 0.
        base: smallest period.
        maximum: largest period.

    Source: arXiv 2310.14423, section 2.
    """
    if coefficient > lr * 2**16:
        return maximum
    # A ratio of 2 that float32 has made 1.9999999 still means 4 steps.
    period = math.floor((coefficient / lr) ** 2 * (1 + 1e-6))
    return min(max(base, period), maximum)
