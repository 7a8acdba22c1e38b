"""Collectives for losses: differentiable where the papers' code is, no-ops on one process."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = [
    "all_gather_rows",
    "all_reduce_mean",
    "gather_rows",
    "gather_stack",
    "is_distributed",
    "process_rank",
    "world_size",
]

# Rows that travel between processes at once: bounds the memory of a gather on the device.
_GATHER_ROWS = 16_384


def is_distributed() -> bool:
    """Whether a process group of more than one process is up."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def world_size() -> int:
    """Number of processes; 1 without a process group."""
    return dist.get_world_size() if is_distributed() else 1


def process_rank() -> int:
    """Rank of this process; 0 without a process group."""
    return dist.get_rank() if is_distributed() else 0


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


def gather_rows(rows: Tensor) -> list[Tensor]:
    """Collect ``[n, ...]`` from all processes, n may differ; one CPU tensor per rank."""
    if not is_distributed():
        return [rows.cpu()]
    sizes = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(world_size())]
    dist.all_gather(sizes, torch.tensor([len(rows)], device=rows.device))
    counts = [int(size) for size in sizes]
    parts: list[list[Tensor]] = [[] for _ in counts]
    for start in range(0, max(counts), _GATHER_ROWS):
        stop = min(start + _GATHER_ROWS, max(counts))
        mine = rows[start:stop]
        padded = rows.new_zeros(stop - start, *rows.shape[1:])
        padded[: len(mine)] = mine
        received = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(received, padded)
        for part, chunk, count in zip(parts, received, counts, strict=True):
            part.append(chunk[: max(0, count - start)].cpu())
    return [torch.cat(part) for part in parts]


class _AllGatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        return gather_stack(x.detach()).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        # Every process has a loss of its own over all rows: the sum of their gradients, cut to the
        # own rows, together with data-parallel averaging is the gradient of the mean loss.
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        start = dist.get_rank() * ctx.rows
        return total[start : start + ctx.rows]


def all_gather_rows(x: Tensor) -> Tensor:
    """Rows of all processes, in the order of ranks; the gradient flows back to each of them.

    The backward sums over processes, as it must where each process' loss uses the rows of all and
    data-parallel training averages the parameter gradients. Without a gradient to compute it is a
    plain gather, for integers too.

    Args:
        x: ``[n, …]``, with the same n on every process.

    Returns:
        ``[W * n, …]``.
    """
    return _AllGatherRows.apply(x) if is_distributed() else x
