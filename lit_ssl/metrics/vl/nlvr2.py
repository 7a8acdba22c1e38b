"""NLVR2: accuracy, and consistency over the pairs of a statement."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_ssl.answers import NO_ANSWER, best_answer
from lit_ssl.errors import InputError
from lit_ssl.metrics.vl.gathered import RowsMetric

__all__ = ["NLVR2Accuracy", "NLVR2Scores"]


class NLVR2Scores(NamedTuple):
    """Shares in [0, 1], float64.

    Attributes:
        accuracy: of the rows with a label; NaN without any. This and ``consistency`` are NaN too
            where the logits of such a row are NaN or infinite.
        consistency: share of the statements all of whose rows are right; NaN without any, or where
            it was not asked for.
        num_rows: rows with a label.
        num_statements: statements that consistency is about.
    """

    accuracy: Tensor
    consistency: Tensor
    num_rows: int
    num_statements: int


class NLVR2Accuracy(RowsMetric):
    """Accuracy and consistency of NLVR2.

    A statement stands with several pairs of images; it counts for consistency where all its rows
    are right. All rows are kept (11 bytes each), since those of a statement may be on several
    processes. A statement with a row whose label is unknown is left out of consistency, for nobody
    knows whether all are right.

    Args:
        consistency: Whether to measure it; ``update`` then needs the statements.
        kwargs: Passed to ``torchmetrics.Metric``.

    Source: arXiv 1811.00491, section 6, and the evaluation of lil-lab/nlvr at 1892484.

    Examples:
        >>> metric = NLVR2Accuracy()
        >>> right, wrong = torch.tensor([1, 1, 0]), torch.tensor([1, 0, 0])
        >>> metric.update(right, wrong, torch.tensor([7, 7, 9]))
        >>> metric.compute().consistency.item()
        0.5
    """

    right: list[Tensor]
    known: list[Tensor]
    lost: list[Tensor]
    statements: list[Tensor]

    def __init__(self, consistency: bool = True, **kwargs: Any) -> None:
        super().__init__(
            dict.fromkeys(("right", "known", "lost"), torch.bool) | {"statements": torch.int64},
            **kwargs,
        )
        self.consistency = consistency

    def update(self, preds: Tensor, target: Tensor, statements: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            preds: logits ``[B, 2]``, or answers, 0 or 1 or bool, ``[B]``.
            target: 0 false, 1 true, −1 unknown: does not count; integers or bool ``[B]``.
            statements: integers ``[B]``, equal for rows with the same statement, such as
                ``column("statement")`` of ``NLVR2DataModule``; the same numbers on all processes.

        Raises:
            ValueError: Shapes or values do not fit, or statements are lacking.
        """
        if preds.ndim == 2 and preds.shape[1] == 2:
            preds = best_answer(preds)
        if preds.ndim != 1 or preds.is_floating_point() or preds.shape != target.shape:
            raise InputError(
                "NLVR2Accuracy needs logits [B, 2] or answers, integers [B], and target [B], got"
                f" {preds.dtype} {list(preds.shape)} and {list(target.shape)}"
            )
        if self.consistency and (statements is None or statements.shape != target.shape):
            got = None if statements is None else list(statements.shape)
            raise InputError(
                "NLVR2Accuracy needs the statement of each row, integers [B], for consistency, got"
                f" {got} for {len(target)} rows: give them, or set consistency to False"
            )
        known = target.long() >= 0
        self.add_rows(
            right=known & (preds.long() == target.long()),
            known=known,
            lost=known & (preds.long() == NO_ANSWER),
            statements=torch.zeros_like(known) if statements is None else statements,
        )

    def compute(self) -> NLVR2Scores:
        """Scores over all processes, on the CPU."""
        right, known = self.all_rows("right"), self.all_rows("known")
        lost = torch.tensor(torch.nan if self.all_rows("lost").any() else 0.0).double()
        accuracy = right.sum().double() / known.sum() + lost  # 0 / 0 is NaN
        num_rows = int(known.sum())
        if not self.consistency:
            return NLVR2Scores(accuracy, torch.tensor(torch.nan).double(), num_rows, 0)
        _, group = self.all_rows("statements").unique(return_inverse=True)
        count = int(group.max()) + 1 if len(group) else 0
        complete, all_right = (
            torch.ones(count, dtype=torch.int64).scatter_reduce_(0, group, rows.long(), "amin")
            for rows in (known, right)
        )
        consistency = all_right[complete.bool()].sum().double() / complete.sum() + lost
        return NLVR2Scores(accuracy, consistency, num_rows, int(complete.sum()))
