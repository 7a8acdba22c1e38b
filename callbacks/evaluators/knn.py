"""k-NN accuracy during training."""

from __future__ import annotations

from typing import ClassVar

import lightning.pytorch as pl

from lit_ssl.callbacks.evaluators.base import RepresentationEvaluator
from lit_ssl.callbacks.evaluators.features import Split
from lit_ssl.contracts.data import num_classes_of
from lit_ssl.errors import InputError
from lit_ssl.metrics import sharded_knn, topk_accuracy


class KNNEvaluator(RepresentationEvaluator):
    """Weighted k-NN accuracy of frozen features, with the training images as bank.

    The bank holds the training images under the evaluation transform and the current weights. Logs
    ``val/knn_acc1`` and ``test/knn_acc1`` in [0, 1], and ``knn_acc5`` from 10 classes on. Cost: one
    forward pass over the bank and the evaluated split. Each process holds the features of its own
    images and compares them with all queries.

    Args:
        k: Neighbours that vote, >= 1; capped at the size of the bank.
        temperature: Sharpness of the vote, > 0.
        every_n_epochs: During fit, evaluate after every n-th epoch and at its end, >= 1.
        feature_method: Method of the module that maps images ``[B, C, H, W]`` to ``[B, D]``.
        num_classes: Number of classes; None takes the data module's.

    Raises:
        ValueError: If a value lies outside its range.

    Source: arXiv 1805.01978, section 3.4; k = 20 and T = 0.07 as in DINO, arXiv 2104.14294.
    """

    family: ClassVar[str] = "knn"
    on_progress_bar: ClassVar[tuple[str, ...]] = ("knn_acc1",)

    def __init__(
        self,
        k: int = 20,
        temperature: float = 0.07,
        every_n_epochs: int = 1,
        feature_method: str = "forward",
        num_classes: int | None = None,
    ) -> None:
        super().__init__(every_n_epochs, feature_method, num_classes)
        if k < 1 or temperature <= 0:
            raise InputError(
                f"KNNEvaluator needs k >= 1 and temperature > 0, got k={k}, "
                f"temperature={temperature}"
            )
        self.k = k
        self.temperature = temperature

    def evaluate(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: Split
    ) -> dict[str, float]:
        """k-NN accuracy on a split; see the class."""
        bank = self.sharded(trainer, pl_module, "bank")
        queries = self.sharded(trainer, pl_module, split)
        classes = num_classes_of(trainer, self.num_classes)
        top = 5 if classes >= 10 else 1
        ranked = sharded_knn(bank, queries, classes, self.k, self.temperature, top)
        return {f"knn_acc{n}": topk_accuracy(ranked, queries.labels, n) for n in {1, top}}
