"""Averages over processes: flat buffers, chunked all-reduce, and a table with a row for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lit_ssl.strategies.ddp.gradients import Groups
from lit_ssl.strategies.options import Options
from lit_ssl.strategies.sync.buffers import Extra
from lit_ssl.strategies.sync.compression import CompressedSum, make_codec

__all__ = ["Averager", "InFlight", "all_gather_flat", "flat_dtype", "pack_", "unpack_", "views_of"]


def flat_dtype(tensors: Sequence[Tensor]) -> torch.dtype:
    """float64 if all tensors are, else float32: averages are never taken in half precision.

    Args:
        tensors: of any floating-point types; none: float32.
    """
    doubles = bool(tensors) and all(t.dtype == torch.float64 for t in tensors)
    return torch.float64 if doubles else torch.float32


def views_of(flat: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """One view into a flat buffer for each tensor, in order, with its shape.

    Args:
        flat: 1-D, with as many elements as all tensors or more.
        tensors: of any shapes.
    """
    sizes = [t.numel() for t in tensors]
    pieces = flat[: sum(sizes)].split(sizes) if sizes else ()
    return [piece.view(t.shape) for piece, t in zip(pieces, tensors, strict=True)]


@torch.no_grad()
def pack_(flat: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """Copy tensors one after the other into the beginning of a flat buffer.

    Args:
        flat: 1-D, with as many elements as all tensors or more.
        tensors: of any shapes.

    Returns:
        ``flat``.
    """
    if tensors:
        torch._foreach_copy_(views_of(flat, tensors), list(tensors))
    return flat


@torch.no_grad()
def unpack_(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    """Copy a flat buffer back into tensors, in place: storage and memory format stay.

    Args:
        flat: as ``pack_`` has filled it.
        tensors: of the same shapes, in the same order.
    """
    if tensors:
        torch._foreach_copy_(list(tensors), views_of(flat, tensors))


def all_gather_flat(out: Tensor, piece: Tensor, group: Any = None) -> None:
    """Gather equal pieces of all processes into one flat tensor.

    Args:
        out: ``[W * n]``; it is filled, in the order of ranks.
        piece: ``[n]``, of this process.
        group: the process group; None: all processes.
    """
    # PyTorch 2.14 renamed the function and warns about the old name.
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    gather(out, piece, group=group)


@dataclass
class InFlight:
    """An average that was started; sums, once it is finished.

    ``[parameters | others | counts of unset | table]``

    Args:
        flat: the buffer.
        numel: number of parameter elements.
        table_at: where the table begins.
        works: handles of the collectives.
        compressed: exchange of the parameters, if they are compressed.
        extras: buffers and frozen tensors, the first of the others.
        states: of the inner optimizer, the rest of the others.
        unset: those of the extras with elements that do not count on every process.
        snapshot: local values of all, if training goes on meanwhile.

    Attributes:
        table: once it is finished, a row for each process.
        weight: likewise, that of all processes behind the parameters' sum.
        others_weight: likewise, behind the sums of the others.
        asks: a process has been told that its job is about to end.
        ends: a process has been told that its job ends now.
        is_heeded: this was acted upon while the average was under way.
    """

    flat: Tensor
    numel: int
    table_at: int
    works: list[Any] = field(default_factory=list)
    compressed: CompressedSum | None = None
    extras: list[Extra] = field(default_factory=list)
    states: list[Tensor] = field(default_factory=list)
    unset: list[Extra] = field(default_factory=list)
    snapshot: Tensor | None = None
    # once it is finished
    table: list[list[float]] = field(default_factory=list)  # a row for each process
    weight: float = 0.0  # of all processes behind the parameters' sum
    others_weight: float = 0.0
    asks: bool = False  # a process has been told that its job is about to end
    ends: bool = False  # … to end now
    is_heeded: bool = False  # … which was acted upon while this was under way

    @property
    def others(self) -> list[Tensor]:
        """The tensors of the module and the optimizer that lie after the parameters."""
        return [x.tensor for x in self.extras] + self.states

    def parts(self) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Views: all of the others; each of the unset; the counts of these."""
        values = self.flat[self.numel : self.table_at]
        names = {x.name for x in self.unset}
        count = sum(t.numel() for t in self.others)
        views = views_of(values, [x.tensor for x in self.extras])
        unset = [v for v, x in zip(views, self.extras, strict=True) if x.name in names]
        counts = views_of(values[count:], [x.tensor for x in self.unset])
        return values[:count], unset, counts


class Averager:
    """Averages flat buffers over processes and counts the traffic.

    The parameters of a buffer are averaged in ``group`` (peers of other nodes, or all processes),
    all else over all processes. Each process also hands in a row of numbers, and gets everyone's.

    Args:
        rank: number of this process.
        world_size: number of processes.
        groups: peers.
        options: compression, size of the pieces sent one after the other, what inf and NaN do.
    """

    # Columns; learning rates come last. What signals a process has got stands in its period: a
    # column more would make averages under way in older checkpoints unreadable.
    WEIGHT, NONFINITE, PERIOD, SCALE, RATES = range(5)

    def __init__(self, rank: int, world_size: int, groups: Groups, options: Options) -> None:
        self.rank = rank
        self.world_size = world_size
        self.chunk_bytes = int(options.bucket_cap_mb * 2**20)
        self.group, self.group_ranks = groups.peers, groups.peer_ranks
        self.codec = make_codec(options.compression)
        self.node = groups.node
        self.skip_nonfinite = options.nonfinite == "skip_rank"
        self.bytes_sent = 0
        self.bad_loss: Tensor | None = None  # whether this process's losses are not finite, bool

    @staticmethod
    def tell(period: int, asks: bool, ends: bool) -> float:
        """A period that also says what a process was told.

        Args:
            period: steps of the next round.
            asks: its job is about to end: the sign is negative.
            ends: it has to end now: a half is added.
        """
        value = period + 0.5 * ends
        return -value if asks else value

    def reduce(self, flat: Tensor, group: Any = None, size: int | None = None) -> list[Any]:
        """Start summing a flat tensor, in place and in chunks; returns the handles.

        Args:
            flat: 1-D, equally long on all of them.
            group: the process group; None: all processes.
            size: number of processes in it; None: all.
        """
        size = self.world_size if size is None else size
        self.bytes_sent += round(2 * (size - 1) / size * flat.numel() * flat.element_size())
        step = max(1, self.chunk_bytes // flat.element_size())
        return [
            dist.all_reduce(chunk, group=group, async_op=True)
            for chunk in flat.split(step)
            if chunk.numel()
        ]

    @torch.no_grad()
    def start(
        self,
        flat: Tensor,
        numel: int,
        row: Sequence[float],
        x0: Tensor | None = None,
        error: Tensor | None = None,
    ) -> InFlight:
        """Start averaging what was packed into a buffer.

        Args:
            flat: ``[parameters | others | counts | room for the table]``.
            numel: number of parameter elements.
            row: this process's numbers, in the order of the columns; NONFINITE is filled in.
            x0: parameters at the start of the round, if they are to be compressed.
            error: then the error feedback; holds the new error afterwards.
        """
        table_at = flat.numel() - self.world_size * len(row)
        values, table = flat[:table_at], flat[table_at:].zero_().view(self.world_size, -1)
        flight = InFlight(flat, numel, table_at)
        # One pass without a temporary tensor: both ends are NaN if anything is.
        bad = ~torch.isfinite(torch.stack(torch.aminmax(values))).all()
        if self.bad_loss is not None:
            bad = bad | self.bad_loss
        if self.skip_nonfinite and self.node is not None:
            # Processes of a node have equal parameters: they are left out together, or would part.
            worst = bad.to(flat.dtype)
            dist.all_reduce(worst, op=dist.ReduceOp.MAX, group=self.node)
            bad = worst > 0
        table[self.rank] = torch.tensor(row, dtype=flat.dtype)
        table[self.rank, self.NONFINITE] = bad.to(flat.dtype)
        if x0 is not None:
            torch.sub(x0, values[:numel], out=values[:numel])
        if self.skip_nonfinite:
            values.masked_fill_(bad, 0)
            table[self.rank, self.WEIGHT].masked_fill_(bad, 0)
        if row[self.WEIGHT] != 1:
            values.mul_(row[self.WEIGHT])
        if self.codec is not None and x0 is not None and error is not None:
            flight.works = self.reduce(flat[numel:])
            flight.compressed = CompressedSum(flat[:numel], error, self.codec, self.group)
            self.bytes_sent += flight.compressed.bytes_sent
        elif self.group is None:
            flight.works = self.reduce(flat)
        else:
            flight.works = self.reduce(flat[numel:])
            flight.works += self.reduce(flat[:numel], self.group, len(self.group_ranks))
        return flight

    def wait(self, flight: InFlight) -> None:
        """Finish the communication of an average; its sums are then in the buffer.

        Args:
            flight: the average.
        """
        for work in flight.works:
            work.wait()
        if flight.compressed is not None:
            flight.compressed.finish()
        flight.works, flight.compressed = [], None

    @torch.no_grad()
    def finish(self, flight: InFlight) -> None:
        """Wait for an average, and read its table.

        Args:
            flight: the average; what it tells is written into it.
        """
        self.wait(flight)
        flight.table = flight.flat[flight.table_at :].view(self.world_size, -1).tolist()
        told = [] if flight.is_heeded else [row[self.PERIOD] for row in flight.table]
        flight.asks = any(period < 0 for period in told)
        flight.ends = any(period % 1 for period in told)
        for row in flight.table:
            row[self.PERIOD] = float(int(abs(row[self.PERIOD])))
        weights = [row[self.WEIGHT] for row in flight.table]
        flight.weight = sum(weights[rank] for rank in self.group_ranks)
        flight.others_weight = sum(weights)

    @torch.no_grad()
    def mean(self, tensors: Sequence[Tensor], group: Any = None, size: int | None = None) -> Tensor:
        """Equally weighted mean of tensors, at once and uncompressed, as a new flat buffer.

        Args:
            tensors: local values; they are not changed.
            group: processes to average over; None: all.
            size: their number.

        Returns:
            1-D, the tensors one after the other.
        """
        size = self.world_size if size is None else size
        total = sum(t.numel() for t in tensors)
        flat = torch.empty(total, dtype=flat_dtype(tensors), device=tensors[0].device)
        for work in self.reduce(pack_(flat, tensors), group, size):
            work.wait()
        return flat.div_(size)
