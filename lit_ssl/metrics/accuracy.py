"""Accuracy over the labels that are known."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy

from lit_ssl.answers import NO_ANSWER, best_answer

__all__ = ["KnownAccuracy"]


class KnownAccuracy(MulticlassAccuracy):
    """Share of right ones among the labels that are known; NaN, not 0, where none is.

    NaN too where the scores of one of them are NaN or infinite: argmax would make class 0 of them.

    Args:
        num_classes: number of classes, ≥ 2.
        top_k: an answer is right where the label is among so many highest scores.
    """

    lost: Tensor

    def __init__(self, num_classes: int, top_k: int = 1) -> None:
        super().__init__(num_classes, top_k, average="micro", ignore_index=-1)
        self.add_state("lost", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            preds: scores ``[B, C]``, or classes, integers ``[B]``.
            target: classes, integers ``[B]``; −1 where unknown: does not count.
        """
        super().update(preds, target)
        if preds.ndim == 2:
            self.lost = self.lost + ((best_answer(preds) == NO_ANSWER) & (target != -1)).sum()

    def compute(self) -> Tensor:
        """The accuracy in [0, 1], over all processes."""
        accuracy = super().compute()
        known = self.tp.sum() + self.fn.sum()  # type: ignore[union-attr]
        return torch.where((known > 0) & (self.lost == 0), accuracy, torch.nan)
