"""PAWS-NN accuracy during training."""

from __future__ import annotations

from typing import ClassVar

import lightning.pytorch as pl

from lit_ssl.callbacks.evaluators.base import RepresentationEvaluator, labelled_only
from lit_ssl.callbacks.evaluators.batch_norm import recalibrated_batch_norm
from lit_ssl.callbacks.evaluators.features import Split, collect_features
from lit_ssl.contracts.data import check_bank_sample, num_classes_of, support_split
from lit_ssl.contracts.modules import embedding_method, feature_function
from lit_ssl.errors import InputError, by_name
from lit_ssl.metrics import ShardedFeatures, sharded_soft_nn, topk_accuracy


class SoftNNEvaluator(RepresentationEvaluator):
    """Accuracy of soft nearest neighbours over all labelled images: how PAWS predicts (PAWS-NN).

    The supports are the images of the data module's ``support_dataloader()``, if it has one
    ([`SemiSupervisedDataModule`][lit_ssl.datamodules.SemiSupervisedDataModule]: the labelled ones),
    or else those of ``bank_dataloader()``; evaluation transform, current weights. Logs
    ``val/soft_nn_acc1`` and ``test/soft_nn_acc1`` in [0, 1], and ``soft_nn_acc5`` from 10 classes
    on. Nothing is trained and nothing chosen.

    Args:
        temperature: τ of the softmax over similarities, > 0.
        every_n_epochs: During fit, evaluate after every n-th epoch and at its end, >= 1.
        feature_method: Method of the module that maps images ``[B, C, H, W]`` to ``[B, D]``. None:
            ``embed`` of modules that have it (PAWS: all of the network, prediction head included,
            as the paper evaluates), else ``forward``.
        num_classes: Number of classes; None takes the data module's.
        recalibrate_bn: Measure with the BatchNorm statistics of up to 10,000 training images under
            the evaluation transform, in place of those of training, which the run keeps. The
            released code does not. It matters most where the last BatchNorm remembers only the last
            small crops (``wide_resnet28_2``).

    Raises:
        ValueError: If a value lies outside its range.

    Source: PAWS, arXiv 2104.13963, equation 1 and its released evaluation code.
    """

    needs_bank: ClassVar[bool] = False  # asked for below, where there are no supports
    family: ClassVar[str] = "soft_nn"
    on_progress_bar: ClassVar[tuple[str, ...]] = ("soft_nn_acc1",)

    def __init__(
        self,
        temperature: float = 0.1,
        every_n_epochs: int = 1,
        feature_method: str | None = None,
        num_classes: int | None = None,
        recalibrate_bn: bool = False,
    ) -> None:
        super().__init__(every_n_epochs, feature_method or "forward", num_classes)
        if temperature <= 0:
            raise InputError(f"SoftNNEvaluator needs temperature > 0, got {temperature}")
        self.temperature = temperature
        self.recalibrate_bn = recalibrate_bn
        self._given_method = feature_method

    @by_name
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Choose the features, and complain at the start if a contract is not met."""
        self.feature_method = self._given_method or embedding_method(pl_module)
        super().setup(trainer, pl_module, stage)
        if stage != "predict" and not self.is_off:
            support_split(trainer)
            if self.recalibrate_bn:
                check_bank_sample(trainer)

    def evaluate(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: Split
    ) -> dict[str, float]:
        """PAWS-NN accuracy on a split; see the class."""
        classes = num_classes_of(trainer, self.num_classes)
        if self.recalibrate_bn:
            function = feature_function(pl_module, self.feature_method)

            def known(
                part: Split,
            ) -> ShardedFeatures:  # not what evaluators share: its own statistics
                found = collect_features(trainer, pl_module, part, function)
                return labelled_only(found, classes, part)

            with recalibrated_batch_norm(trainer, pl_module, [function]):
                supports, queries = known(support_split(trainer)), known(split)
        else:
            supports = self.sharded(trainer, pl_module, support_split(trainer))
            queries = self.sharded(trainer, pl_module, split)
        top = 5 if classes >= 10 else 1
        ranked = sharded_soft_nn(supports, queries, classes, self.temperature, top)
        return {f"soft_nn_acc{n}": topk_accuracy(ranked, queries.labels, n) for n in {1, top}}
