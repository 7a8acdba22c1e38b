"""Accuracy by factor as a torchmetrics metric, for any classifier and any factors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_ssl.errors import InputError
from lit_ssl.imagenet_x.factor_table import FactorTable, table_from_counts
from lit_ssl.imagenet_x.intervals import DRAWS, LEVEL

__all__ = ["FactorAccuracy"]


class FactorAccuracy(Metric):
    """Accuracy and error ratio per factor, each with its number of images and an interval.

    The state is four counts, summed over batches and processes. Intervals: Wilson's for
    accuracies, the bootstrap over images for error ratios
    (:mod:`lit_ssl.imagenet_x.factor_table`). A distributed sampler that pads its data counts some
    images twice;
    :class:`~lit_ssl.metrics.ImageNetXMetric` does not.

    Args:
        factors: Names of the factors, or their number.
        level: Of the intervals, in (0, 1).
        draws: Of the bootstrap, >= 100.
        kwargs: Passed to ``torchmetrics.Metric``.

    Raises:
        ValueError: If there are no factors, or a value lies outside its range.

    Example:
        >>> metric = FactorAccuracy(["pose", "color"])
        >>> metric.update(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]))
        >>> metric.compute()["accuracy"]
        tensor([1., 0.], dtype=torch.float64)

    Source: arXiv 2211.01866, section 3.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    counts: Tensor
    total: Tensor

    def __init__(
        self,
        factors: Sequence[str] | int,
        level: float = LEVEL,
        draws: int = DRAWS,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        names = map(str, range(factors)) if isinstance(factors, int) else factors
        self.factors = tuple(names)
        if not self.factors or not 0 < level < 1 or draws < 100:
            raise InputError(
                "FactorAccuracy needs at least one factor, level in (0, 1) and draws >= 100, got "
                f"{len(self.factors)}, {level}, {draws}"
            )
        self.level = level
        self.draws = draws
        self._table: FactorTable | None = None
        size = len(self.factors)
        # [2, F] and [2]: images, correct ones
        self.add_state("counts", torch.zeros(2, size, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(2, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, factors: Tensor) -> None:
        """Add a batch.

        Args:
            preds: Logits ``[B, C]``, or classes ``[B]``, integers.
            target: Classes, integers ``[B]``; −1 where unknown: does not count.
            factors: Position of each image's factor, integers ``[B]``, −1 for none; or which
                factors it has, bool or 0 and 1, ``[B, F]``.

        Raises:
            ValueError: If shapes do not fit.
        """
        if preds.ndim == 2:
            preds = preds.argmax(dim=1)
        size = len(self.factors)
        shapes_fit = factors.shape in (target.shape, (*target.shape, size))
        if preds.shape != target.shape or target.ndim != 1 or not shapes_fit:
            raise InputError(
                f"expected preds [B] or [B, C], target [B] and factors [B] or [B, {size}], got "
                f"{list(preds.shape)}, {list(target.shape)} and {list(factors.shape)}"
            )
        if factors.ndim == 1:
            factors = factors[:, None] == torch.arange(size, device=factors.device)
        known = target != -1
        rows = torch.stack([known, known & (preds == target)])  # [2, B]
        self.counts += (rows[:, :, None] & factors.bool()).sum(dim=1)
        self.total += rows.sum(dim=1)

    def compute(self) -> dict[str, Tensor]:
        """Scores over all processes.

        Returns:
            On the CPU, float64: ``accuracy``, ``error_ratio``, each with ``_low`` and ``_high``,
            and ``count``, per factor ``[F]``; ``average`` and ``worst_factor`` (its accuracy).
            Factors without images have NaN.
        """
        (count, correct), (images, right) = self.counts.cpu().numpy(), self.total.tolist()
        table = table_from_counts(
            self.factors, count, correct, images, right, self.level, self.draws
        )
        self._table = table
        values = {
            "accuracy": table.accuracy,
            "accuracy_low": table.accuracy_low,
            "accuracy_high": table.accuracy_high,
            "error_ratio": table.error_ratio,
            "error_ratio_low": table.error_ratio_low,
            "error_ratio_high": table.error_ratio_high,
            "average": table.average,
            "worst_factor": table.worst_accuracy,
        }
        tensors = {name: torch.as_tensor(v, dtype=torch.float64) for name, v in values.items()}
        return {**tensors, "count": torch.from_numpy(table.count)}

    def table(self) -> FactorTable:
        """What :meth:`compute` returns, with names, as a table."""
        self.compute()
        assert self._table is not None
        return self._table
