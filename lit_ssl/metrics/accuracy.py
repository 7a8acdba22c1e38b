"""Accuracy over the labels that are known."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy

__all__ = ["KnownAccuracy"]


class KnownAccuracy(MulticlassAccuracy):
    """Share of right ones among the labels that are known; NaN, not 0, where none is.

    Args:
        num_classes: number of classes, ≥ 2.
        top_k: an answer is right where the label is among so many highest scores.
    """

    def __init__(self, num_classes: int, top_k: int = 1) -> None:
        super().__init__(num_classes, top_k, average="micro", ignore_index=-1)

    def compute(self) -> Tensor:
        """The accuracy in [0, 1], over all processes."""
        accuracy = super().compute()
        known = self.tp.sum() + self.fn.sum()  # type: ignore[union-attr]
        return torch.where(known > 0, accuracy, torch.nan)
