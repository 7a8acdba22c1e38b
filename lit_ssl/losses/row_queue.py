"""The latest rows of earlier steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lit_ssl.distributed import gather_stack, process_rank, world_size
from lit_ssl.errors import InputError

__all__ = ["RowQueue"]


class RowQueue(nn.Module):
    """First in, first out: the latest rows of all processes, the same on each of them.

    It starts empty. What it holds is saved in checkpoints, so that a resumed run goes on as it
    would have.

    Args:
        size: rows that it holds at most, >= 1.
        width: of a row.

    Raises:
        ValueError: if the size is below 1.
    """

    rows: Tensor
    count: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        if size < 1:
            raise InputError(f"a queue needs a size >= 1, not {size}")
        self.register_buffer("rows", torch.zeros(size, width))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self._filled: int | None = None  # the count, known without waiting for a device
        self.register_load_state_dict_post_hook(_forget)

    def __len__(self) -> int:
        if self._filled is None:
            self._filled = int(self.count)
        return self._filled

    def own(self) -> Tensor:
        """Rows ``[n, width]`` that this process counts, so that all together count each once."""
        return self.rows[: len(self)][process_rank() :: world_size()]

    def total(self) -> Tensor:
        """Sum ``[width]`` of all rows."""
        return self.rows[: len(self)].sum(dim=0)

    @torch.no_grad()
    def push(self, rows: Tensor) -> None:
        """Add rows ``[n, width]``, equally many on each process, and drop the oldest.

        Args:
            rows: of this process; the queue keeps those of all.
        """
        new = gather_stack(rows.to(self.rows.dtype)).flatten(0, 1)
        size = len(self.rows)
        filled = min(size, len(self) + len(new))
        self.rows.copy_(torch.cat([new, self.rows])[:size])
        self.count.fill_(filled)
        self._filled = filled


def _forget(queue: Any, _: Any) -> None:
    queue._filled = None
