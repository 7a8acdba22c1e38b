"""Features of a split of which each process holds its own rows."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lit_ssl.distributed import gather_rows, is_distributed, process_rank, streamed_rows

__all__ = ["ShardedFeatures"]


class ShardedFeatures:
    """Features of the N rows of a split; each process holds some, all know the labels.

    Every method that exchanges rows is a collective: call it on every process.

    Args:
        stored: float32 ``[n, D]`` on the CPU, what this process holds; D is the same everywhere.
        places: int64 ``[m]``, which of these are rows of the split.
        numbers: int64 ``[m]``, ascending: their numbers in the split. Each of 0 … N − 1 is on
            exactly one process.
        labels: int64 ``[N]``, of all rows, the same on every process; −1 where unknown.
        device: Where rows are compared, and from where they are sent.
    """

    def __init__(
        self,
        stored: Tensor,
        places: Tensor,
        numbers: Tensor,
        labels: Tensor,
        device: torch.device | str = "cpu",
    ) -> None:
        self.labels = labels
        self.device = torch.device(device)
        self._is_on_rank_zero = self._is_everywhere = False  # the same on every process
        self._hold(stored, places, numbers)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def held(self) -> int:
        """How many rows this process holds."""
        return len(self.numbers)

    @property
    def width(self) -> int:
        """D."""
        return self.stored.shape[1]

    def read(self, start: int, stop: int) -> Tensor:
        """Some rows that this process holds, in their order, on the device: ``[…, D]``.

        Args:
            start: first of them, counted from 0 on this process.
            stop: one after the last; fewer come where there are no more.
        """
        part = slice(start, stop)
        rows = self.stored[part] if self._in_order else self.stored[self.places[part]]
        return rows.to(self.device)

    def pick(self, rows: Tensor) -> ShardedFeatures:
        """Some rows as a split of their own; nothing is copied.

        Args:
            rows: int64 ``[K]``, ascending, each once; the same on every process.
        """
        if len(rows) == len(self):
            return self
        place = torch.full((len(self),), -1)
        place[rows] = torch.arange(len(rows))
        numbers = place[self.numbers]
        kept = numbers >= 0
        return ShardedFeatures(
            self.stored, self.places[kept], numbers[kept], self.labels[rows], self.device
        )

    def pieces(self, only_rank_zero: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        """All rows, piece by piece, on every process; on one process as one piece.

        Args:
            only_rank_zero: Send them to process 0 alone; the others get no pieces.

        Yields:
            Numbers, int64 on the CPU, and features on the device.
        """
        if not is_distributed():
            yield self.numbers, self.read(0, self.held)
            return
        numbers = gather_rows(self.numbers.to(self.device))
        counts = [len(part) for part in numbers]
        like = torch.empty(0, self.width, device=self.device)
        for start, parts in streamed_rows(self.read, counts, like, only_rank_zero):
            found = [
                number[start : start + len(part)]
                for number, part in zip(numbers, parts, strict=False)
            ]
            if found:
                yield torch.cat(found), torch.cat(parts)

    def everywhere(self) -> Tensor:
        """All rows in order, ``[N, D]`` on the CPU, on every process."""
        whole = self._gathered(only_rank_zero=False)
        assert whole is not None
        return whole

    def on_rank_zero(self) -> Tensor | None:
        """All rows in order, ``[N, D]`` on the CPU, on process 0; None on the others."""
        return self._gathered(only_rank_zero=True)

    def _gathered(self, only_rank_zero: bool) -> Tensor | None:
        if not is_distributed():
            if not self._in_order:
                self._hold(self.stored[self.places], self.numbers, self.numbers)
            return self.stored
        gets = not only_rank_zero or process_rank() == 0
        if not (self._is_everywhere or (only_rank_zero and self._is_on_rank_zero)):
            whole = torch.empty(len(self) if gets else 0, self.width)
            for numbers, features in self.pieces(only_rank_zero):
                whole[numbers] = features.cpu()
            if gets:  # what was held is a part of it, and is let go
                self._hold(whole, self.numbers, self.numbers)
            self._is_on_rank_zero, self._is_everywhere = True, not only_rank_zero
        return self.stored if gets else None

    def _hold(self, stored: Tensor, places: Tensor, numbers: Tensor) -> None:
        self.stored, self.places, self.numbers = stored, places, numbers
        self._in_order = len(places) == len(stored) and torch.equal(
            places, torch.arange(len(stored))
        )
