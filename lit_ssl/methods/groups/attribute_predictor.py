"""BARACK's first step alone: predict the attribute of each training row."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from lit_ssl.contracts.batches import check_labels, grouped_batch, inputs_of
from lit_ssl.contracts.data import group_data
from lit_ssl.errors import InputError, by_name, check_numbers
from lit_ssl.groups.cells import attributes_of
from lit_ssl.methods.from_checkpoint import FromCheckpoint
from lit_ssl.methods.groups.classifier import parameter_group
from lit_ssl.methods.groups.predictions import save_predictions
from lit_ssl.methods.groups.stages import AttributeStage, check_attributes
from lit_ssl.metrics.groups import PredictorQuality
from lit_ssl.models.backbones.by_name import create_backbone
from lit_ssl.optim.adamw import sgd
from lit_ssl.trainer.fused import may_fuse
from lit_ssl.trainer.hparams import not_plain
from lit_ssl.trainer.lone_batches import minds_lone_batches
from lit_ssl.trainer.sharding import refuse_sharding
from lit_ssl.trainer.step_logs import log_loss

__all__ = ["AttributePredictor"]


class AttributePredictor(FromCheckpoint, pl.LightningModule):
    """Tells the attribute from the input, learned on the training rows that have it.

    At the end of a fit it labels all training rows and writes ``predicted_groups.csv`` and
    ``predictor_report.json`` into the run's folder; a data module takes the former as
    ``group_labels``. [`BARACK`][lit_ssl.methods.BARACK] does this and the robust training in one
    fit.

    Args:
        backbone: as in [`GroupRobustClassifier`][lit_ssl.methods.GroupRobustClassifier].
        backbone_kwargs: arguments of a backbone given by name.
        num_classes: number of classes C, >= 2; ``lit-ssl`` takes it from the data module.
        num_attributes: number of attribute values A; None takes the data module's.
        held_out: share of the labelled rows of each group that selects the epoch, in [0, 1).
        lr: learning rate.
        weight_decay: of all parameters.
        momentum: of SGD, in [0, 1).
        optimizer: replaces SGD; learning rate and weight decay stay those above.

    Raises:
        ValueError: for values outside their ranges.
        InputError: when training starts, if an attribute has no labelled row.
    """

    def __init__(
        self,
        backbone: str | nn.Module = "resnet50",
        backbone_kwargs: dict[str, Any] | None = None,
        num_classes: int | None = None,
        num_attributes: int | None = None,
        held_out: float = 0.2,
        lr: float = 1e-3,
        weight_decay: float = 1e-3,
        momentum: float = 0.9,
        optimizer: OptimizerCallable | None = None,
    ) -> None:
        super().__init__()
        if num_classes is None or num_classes < 2 or not 0 <= momentum < 1:
            raise InputError(
                "AttributePredictor needs num_classes >= 2 and momentum in [0, 1), got "
                f"{num_classes} and {momentum}"
            )
        self.save_hyperparameters(ignore=not_plain(backbone=backbone, optimizer=optimizer))
        check_numbers(self.hparams)
        self.num_classes = num_classes
        self.num_attributes = num_attributes
        self.held_out = held_out
        self.lr = lr
        self.weight_decay = weight_decay
        self.momentum = momentum
        self.optimizer_factory = optimizer
        # In a tuple: it belongs to the stage, which may have to wait for the number of attributes.
        self._network = create_backbone(backbone, backbone_kwargs or {})
        if num_attributes is not None:
            self._make_stage(num_attributes)

    def _make_stage(self, num_attributes: int) -> None:
        self.num_attributes = num_attributes
        self.hparams["num_attributes"] = num_attributes
        network, width = self._network
        self.first = AttributeStage(network, width, self.num_classes, num_attributes, self.held_out)

    @by_name
    def setup(self, stage: str) -> None:
        """Fit the module to the data, and check that each attribute has a labelled row.

        Raises:
            InputError: if one has none.
        """
        data = group_data(self.trainer)
        if self.num_attributes is None:
            self._make_stage(data.num_attributes)
        self.quality = PredictorQuality(self.num_classes, self.first.num_attributes)
        refuse_sharding(self, stage)
        if stage == "fit":
            check_attributes(data)

    def forward(self, inputs: Any) -> Tensor:
        """Scores of the attributes: a batch of inputs → ``[B, A]``.

        Args:
            inputs: images ``[B, C, H, W]``, or a dictionary of token tensors ``[B, L]``.
        """
        return self.first(inputs)

    # training

    def on_train_start(self) -> None:
        """Set the sampling, also where a fit resumes in the middle of an epoch."""
        if self.trainer.global_step == 0:
            self.first.reset()
        self.first.begin(group_data(self.trainer))
        self._look()

    def on_train_epoch_start(self) -> None:
        """Look at the network after the epoch before."""
        self._look()

    def _look(self) -> None:
        self.first.look(self.trainer, group_data(self.trainer), self.trainer.current_epoch)

    @by_name
    @minds_lone_batches("first.head")
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """One step; returns the loss."""
        labels = grouped_batch(batch)[1]
        check_labels(labels, self.num_classes, look=batch_idx == 0, unknown=False)
        loss = self.first.loss(batch)
        log_loss(self, loss, len(labels))
        return loss

    def on_train_end(self) -> None:
        """Select the network, and save what it says about the training rows."""
        data = group_data(self.trainer)
        self._look()
        self.first.finish(self.trainer, data)
        values = save_predictions(self.trainer, data, self.first)
        for logger in self.trainer.loggers:
            logger.log_metrics(values, step=self.trainer.global_step)

    def teardown(self, stage: str) -> None:
        """Leave the data module as it was."""
        if stage == "fit":
            group_data(self.trainer).set_sampling(None)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD with momentum, or ``optimizer``."""
        groups = [parameter_group("first", [self.first], self.lr, self.weight_decay)]
        if self.optimizer_factory is not None:
            return self.optimizer_factory(groups)
        return sgd(groups, may_fuse(self), lr=self.lr, momentum=self.momentum)

    # evaluation

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Count."""
        self._count(batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Count."""
        self._count(batch)

    def on_validation_epoch_end(self) -> None:
        """Log accuracy and worst recall of the attribute."""
        self._log_quality("val")

    def on_test_epoch_end(self) -> None:
        """Log accuracy and worst recall of the attribute."""
        self._log_quality("test")

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Probabilities of the attributes ``[B, A]`` of ``(inputs, …)``."""
        return self(inputs_of(batch)).softmax(dim=1)

    @by_name
    def _count(self, batch: Any) -> None:
        inputs, labels, groups = grouped_batch(batch)
        check_labels(labels, self.num_classes)
        if groups.ndim == 1:  # overlapping groups do not tell the attribute
            attributes = attributes_of(groups, self.first.num_attributes)
            self.quality.update(self(inputs), labels, attributes)

    def _log_quality(self, split: str) -> None:
        scores = self.quality.compute()
        self.quality.reset()
        for name in ("accuracy", "worst_recall"):
            value = getattr(scores, name).item()
            self.log(f"{split}/attribute_{name}", value, sync_dist=True)

    # checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the best network so far."""
        checkpoint["first_stage"] = self.first.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue with the best network so far."""
        if "first_stage" in checkpoint:
            self.first.load_state(checkpoint["first_stage"])
