"""Collectives for losses: differentiable where the papers' code is, no-ops on one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = [
    "all_gather_rows",
    "all_reduce_mean",
    "all_reduce_sum",
    "gather_rows",
    "gather_stack",
    "is_distributed",
    "process_rank",
    "streamed_rows",
    "world_size",
]

# What travels between processes at once bounds the memory of a gather on the device: so many rows
# of each process at most, and so many bytes of all.
_GATHER_ROWS = 16_384
_GATHER_BYTES = 2**26


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
    """Mean over processes; the backward passes the gradient through unchanged.

    Args:
        x: A tensor of the same shape on every process.

    Returns:
        The mean, of the shape of ``x``; on one process ``x`` itself.
    """
    return _AllReduceMean.apply(x) if is_distributed() else x


@torch.no_grad()
def gather_stack(x: Tensor) -> Tensor:
    """Stack a tensor of equal shape from all processes, without gradient.

    Args:
        x: Of the same shape and type on every process.

    Returns:
        ``[W, *x.shape]``, in the order of ranks.
    """
    if not is_distributed():
        return x.unsqueeze(0)
    out = x.new_empty((dist.get_world_size(), *x.shape))
    dist.all_gather(list(out.unbind(0)), x.contiguous())
    return out


@torch.no_grad()
def all_reduce_sum(x: Tensor) -> Tensor:
    """Sum over processes, without gradient; ``x`` itself on one process.

    Args:
        x: A tensor of the same shape on every process; it is not changed.
    """
    if not is_distributed():
        return x
    total = x.contiguous().clone()
    dist.all_reduce(total)
    return total


def gather_rows(rows: Tensor) -> list[Tensor]:
    """Collect ``[n, ...]`` from all processes, n may differ; one CPU tensor per rank.

    They are parts of one tensor, which is filled piece by piece.

    Args:
        rows: ``[n, …]`` on any device; all but n is the same on every process.

    Returns:
        One tensor ``[n_r, …]`` for each rank r, in their order.
    """
    if not is_distributed():
        return [rows.cpu()]
    counts = gather_stack(torch.tensor([len(rows)], device=rows.device)).flatten().tolist()
    parts = torch.empty(sum(counts), *rows.shape[1:], dtype=rows.dtype).split(counts)
    for start, pieces in streamed_rows(lambda a, b: rows[a:b], counts, rows):
        for part, piece in zip(parts, pieces, strict=True):
            part[start : start + len(piece)] = piece.cpu()
    return list(parts)


@torch.no_grad()
def streamed_rows(
    read: Callable[[int, int], Tensor],
    counts: Sequence[int],
    like: Tensor,
    only_rank_zero: bool = False,
) -> Iterator[tuple[int, list[Tensor]]]:
    """Rows of all processes, piece by piece: memory is bounded however many there are.

    Args:
        read: Gives rows ``start`` … ``stop`` of this process, ``[…, *like.shape[1:]]``; fewer where
            it has no more.
        counts: How many rows each process has, the same on every process.
        like: A tensor with shape, type and device of rows, of any length.
        only_rank_zero: Send them to process 0 alone; the others get empty lists.

    Yields:
        The number of a first row, and from there on the next rows of each process, none where it
        has no more.
    """
    if not is_distributed():
        yield 0, [read(0, counts[0])]
        return
    step = _rows_at_once(like, len(counts))
    gets = not only_rank_zero or dist.get_rank() == 0
    for start in range(0, max(counts), step):
        stop = min(start + step, max(counts))
        mine = read(start, stop)
        padded = like.new_zeros(stop - start, *like.shape[1:])
        padded[: len(mine)] = mine
        received = [torch.empty_like(padded) for _ in counts] if gets else []
        if only_rank_zero:
            dist.gather(padded, received or None, dst=0)
        else:
            dist.all_gather(received, padded)
        yield (
            start,
            [
                piece[: max(0, min(stop, count) - start)]
                for piece, count in zip(received, counts, strict=gets)
            ],
        )


def _rows_at_once(like: Tensor, processes: int) -> int:
    size = like[:0].new_empty(1, *like.shape[1:]).nbytes
    return max(1, min(_GATHER_ROWS, _GATHER_BYTES // max(1, size * processes)))


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
