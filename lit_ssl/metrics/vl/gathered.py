"""Rows that a metric keeps one by one, and that processes put together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["RowsMetric"]


class RowsMetric(Metric):
    """A metric that needs all rows at once, from any number of processes with any share of them.

    torchmetrics gathers a list state by its tensors, so that a process without a row would leave
    the others waiting. Here each list begins with an empty tensor.

    Args:
        rows: Name and dtype of each list; its tensors are flat, ``[n]``.
        kwargs: Passed to ``torchmetrics.Metric``.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True

    def __init__(self, rows: Mapping[str, torch.dtype], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.row_types = dict(rows)
        for name in self.row_types:
            self.add_state(name, [], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        """Forget all rows."""
        super().reset()
        for name, dtype in self.row_types.items():
            setattr(self, name, [torch.empty(0, dtype=dtype, device=self.device)])

    def add_rows(self, **rows: Tensor) -> None:
        """Keep the rows of a batch.

        Args:
            rows: ``[n]`` for each name.
        """
        for name, values in rows.items():
            getattr(self, name).append(values.detach().to(self.row_types[name]).flatten())

    def all_rows(self, name: str) -> Tensor:
        """Return what was kept under a name, after gathering of all processes; on the CPU.

        Args:
            name: Of the state.

        Returns:
            ``[N, …]``, the rows of all processes.
        """
        kept: list[Tensor] | Tensor = getattr(self, name)  # one tensor where it was gathered
        return torch.cat(list(kept) if isinstance(kept, list) else [kept]).cpu()
