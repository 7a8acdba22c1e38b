"""Clipping of gradients that may still be scaled."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["clip_grad_norm_"]


def clip_grad_norm_(
    parameters: Iterable[nn.Parameter], max_norm: float, scale: Tensor | None = None
) -> Tensor:
    """``torch.nn.utils.clip_grad_norm_`` for gradients that all still have a common factor.

    Args:
        parameters: whose gradients are clipped together.
        max_norm: largest norm of the gradients without the factor; infinity: only measured.
        scale: the factor, a scalar on the device of the gradients; None: 1.

    Returns:
        Norm before clipping, without the factor.
    """
    if scale is None:
        return nn.utils.clip_grad_norm_(parameters, max_norm)
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients) / scale
    torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm
