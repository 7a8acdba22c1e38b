"""Collectives for losses: differentiable where the papers' code is, no-ops on one process."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["all_reduce_mean", "gather_stack", "is_distributed", "world_size"]


def is_distributed() -> bool:
    """Whether a process group of more than one process is up."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def world_size() -> int:
    """Number of processes; 1 without a process group."""
    return dist.get_world_size() if is_distributed() else 1


class _AllReduceMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        mean = x.detach() / dist.get_world_size()
        dist.all_reduce(mean)
        return mean

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        # Identity: data-parallel averaging of the parameter gradients supplies the missing 1/W, so
        # that the result is exactly the gradient of the global mean (MSN reference code).
        return grad


def all_reduce_mean(x: Tensor) -> Tensor:
    """Mean over processes; the backward passes the gradient through unchanged."""
    return _AllReduceMean.apply(x) if is_distributed() else x


@torch.no_grad()
def gather_stack(x: Tensor) -> Tensor:
    """Stack a tensor of equal shape from all processes, without gradient.

    Returns:
        ``[W, *x.shape]``, in the order of ranks.
    """
    if not is_distributed():
        return x.unsqueeze(0)
    out = x.new_empty((dist.get_world_size(), *x.shape))
    dist.all_gather(list(out.unbind(0)), x.contiguous())
    return out
