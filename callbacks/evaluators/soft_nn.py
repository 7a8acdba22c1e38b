"""PAWS-NN accuracy during training."""

from __future__ import annotations

from typing import ClassVar

import lightning.pytorch as pl

from lit_ssl.callbacks.evaluators.base import RepresentationEvaluator
from lit_ssl.callbacks.evaluators.features import Split
from lit_ssl.contracts.data import num_classes_of, support_split
from lit_ssl.contracts.modules import embedding_method
from lit_ssl.errors import InputError, by_name
from lit_ssl.metrics import soft_nearest_neighbor, topk_accuracy
from lit_ssl.trainer.passes import on_rank_zero


class SoftNNEvaluator(RepresentationEvaluator):
    """Accuracy of soft nearest neighbours over all labelled images: how PAWS predicts (PAWS-NN).

    The supports are the images of the data module's ``support_dataloader()``, if it has one
    (:class:`lit_ssl.datamodules.SemiSupervisedDataModule`: the labelled ones), or else those of
    ``bank_dataloader()``; evaluation transform, current weights. Logs ``val/soft_nn_acc1`` and
    ``test/soft_nn_acc1`` in [0, 1], and ``soft_nn_acc5`` from 10 classes on. Nothing is trained and
    nothing chosen.

    Args:
        temperature: τ of the softmax over similarities, > 0.
        every_n_epochs: During fit, evaluate after every n-th epoch and after the last one, >= 1.
        feature_method: Method of the module that maps images ``[B, C, H, W]`` to ``[B, D]``. None:
            ``embed`` of modules that have it (PAWS: all of the network, prediction head included,
            as the paper evaluates), else ``forward``.
        num_classes: Number of classes; None takes the data module's.

    Raises:
        ValueError: If a value lies outside its range.

    Source: PAWS, arXiv 2104.13963, equation 1 and its released evaluation code.
    """

    needs_bank: ClassVar[bool] = False  # asked for below, where there are no supports
    on_progress_bar: ClassVar[tuple[str, ...]] = ("soft_nn_acc1",)

    def __init__(
        self,
        temperature: float = 0.1,
        every_n_epochs: int = 1,
        feature_method: str | None = None,
        num_classes: int | None = None,
    ) -> None:
        super().__init__(every_n_epochs, feature_method or "forward", num_classes)
        if temperature <= 0:
            raise InputError(f"SoftNNEvaluator needs temperature > 0, got {temperature}")
        self.temperature = temperature
        self._given_method = feature_method

    @by_name
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Choose the features, and complain at the start if a contract is not met."""
        self.feature_method = self._given_method or embedding_method(pl_module)
        super().setup(trainer, pl_module, stage)
        if stage != "predict" and not self.is_off:
            support_split(trainer)

    def evaluate(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: Split
    ) -> dict[str, float]:
        """PAWS-NN accuracy on a split; see the class."""
        supports = self.labelled(trainer, pl_module, support_split(trainer))
        queries = self.labelled(trainer, pl_module, split)
        classes = num_classes_of(trainer, self.num_classes)
        top = 5 if classes >= 10 else 1

        def compute() -> dict[str, float]:
            probs = soft_nearest_neighbor(
                queries.features.to(pl_module.device),
                supports.features,
                supports.labels,
                self.temperature,
                classes,
            )
            ranked = probs.topk(top, dim=1).indices
            return {f"soft_nn_acc{n}": topk_accuracy(ranked, queries.labels, n) for n in {1, top}}

        return on_rank_zero(trainer, compute)
