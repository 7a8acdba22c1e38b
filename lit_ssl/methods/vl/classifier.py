"""Answers about images and texts: what the tasks of fine-tuning have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, cast

import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric

from lit_ssl.answers import count_right
from lit_ssl.contracts.batches import inputs_of, labelled_inputs, parts_of
from lit_ssl.contracts.data import data_source
from lit_ssl.errors import InputError, by_name
from lit_ssl.methods.rates import current_lr
from lit_ssl.methods.vl.base import VLModule
from lit_ssl.models.vl.heads import VLClassifierHead
from lit_ssl.trainer.step_logs import log_loss, log_values

__all__ = ["TaskBatch", "VLClassifier"]


class TaskBatch(NamedTuple):
    """The parts of a batch.

    Attributes:
        inputs: images and text.
        targets: labels int64 ``[B]``, −1 where unknown; of VQA scores ``[B, num_classes]``.
        extra: what else the metric needs; None where the batch has nothing more.
    """

    inputs: Mapping[str, Tensor]
    targets: Tensor
    extra: Tensor | None = None


class VLClassifier(VLModule, ABC):
    """A head on the pooled vector of image and text: cross-entropy over ``num_classes`` answers.

    Batches are ``(inputs, labels)``; labels of −1 do not count. A task says how logits come about
    and what is measured.

    Args:
        backbone: see ``VLModule``.
        num_classes: number of answers, ≥ 2.
        in_dim: width of what the head reads.
        kwargs: arguments of ``VLModule``.

    Raises:
        InputError: for values outside their ranges.

    Source: the fine-tuned tasks of dandelin/ViLT and zdou0830/METER.
    """

    heads: tuple[str, ...]  # one
    training_score: ClassVar[str] = "acc1"

    def __init__(self, backbone: nn.Module, num_classes: int, in_dim: int, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)
        if num_classes < 2:
            raise InputError(
                f"{type(self).__name__} needs at least 2 answers, not num_classes={num_classes}"
            )
        self.num_classes = num_classes
        head = VLClassifierHead(in_dim, 2 * self.backbone.hidden_size, num_classes)
        self.add_module(self.heads[0], self.new_head(head))
        self.metrics = nn.ModuleDict({split: self.new_metric() for split in ("val", "test")})

    # what a task says

    def logits(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Scores of the answers, ``[B, num_classes]``.

        Args:
            inputs: images and text of B rows.
        """
        return self.head(self(inputs).pooled)

    def read(self, batch: Any, look: bool = False) -> TaskBatch:
        """Take a batch apart and check it.

        Args:
            batch: of any form.
            look: check values on accelerators, too, where the host has to wait.

        Raises:
            InputError: if it is of another form.
        """
        inputs, labels = labelled_inputs(batch, self.num_classes, look)
        return TaskBatch(inputs, labels, parts_of(batch).extra)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean over the targets that are known, in float32.

        Args:
            logits: ``[B, num_classes]``.
            targets: as ``read`` returns them.
        """
        total = F.cross_entropy(logits.float(), targets, ignore_index=-1, reduction="sum")
        return total / (targets != -1).sum().clamp(min=1)

    def num_known(self, targets: Tensor) -> Tensor:
        """How many targets the loss is a mean of, an integer.

        Args:
            targets: as ``read`` returns them.
        """
        return (targets != -1).sum()

    def share_right(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Training score of a batch, without a metric object, which would make the host wait.

        Args:
            logits: ``[B, num_classes]``.
            targets: as ``read`` returns them.
        """
        return count_right(logits, targets) / (targets != -1).sum().clamp(min=1)

    @abstractmethod
    def new_metric(self) -> Metric:
        """Return what counts the answers of a split."""

    def count_answers(self, metric: Any, logits: Tensor, batch: TaskBatch) -> None:
        """Add the answers of a batch.

        Args:
            metric: what ``new_metric`` returned.
            logits: ``[B, num_classes]``.
            batch: as ``read`` returns it.
        """
        metric.update(logits, batch.targets)

    @abstractmethod
    def results(self, metric: Any) -> dict[str, Tensor]:
        """Return the scores of a split by name, over all processes.

        Args:
            metric: what ``new_metric`` returned, with all answers of the split.
        """

    # what follows

    @property
    def head(self) -> VLClassifierHead:
        """The head of the task."""
        return cast(VLClassifierHead, getattr(self, self.heads[0]))

    def setup(self, stage: str) -> None:
        """Load the weights to start from; make sure that the data have as many answers."""
        found = getattr(data_source(self.trainer), "num_classes", None)
        if found is not None and found != self.num_classes:
            raise InputError(
                f"{type(self).__name__} gives {self.num_classes} answers, but "
                f"{type(data_source(self.trainer)).__name__} has num_classes = {found}: give it "
                "data of this task"
            )
        super().setup(stage)

    @by_name
    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """One step; returns the loss."""
        parts = self.read(batch, look=batch_idx == 0)
        logits = self._answers(parts)
        loss = self.loss(logits, parts.targets)
        size = len(logits)
        log_loss(self, loss, size)
        score = self.share_right(logits.detach(), parts.targets)
        scores = {f"train/{self.training_score}": score}
        log_values(self, {**scores, "train/lr": current_lr(self.trainer)}, size)
        return {"loss": loss}

    def on_validation_start(self) -> None:
        """Forget earlier answers."""
        self._metric("val").reset()

    def on_test_start(self) -> None:
        """Forget earlier answers."""
        self._metric("test").reset()

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Count right answers; returns logits and labels."""
        return self._evaluate("val", batch)

    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Count right answers; returns logits and labels."""
        return self._evaluate("test", batch)

    def on_validation_epoch_end(self) -> None:
        """Log the scores."""
        self._log_results("val")

    def on_test_epoch_end(self) -> None:
        """Log the scores."""
        self._log_results("test")

    @by_name
    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Probabilities ``[B, num_classes]`` of ``inputs`` or ``(inputs, …)``."""
        return self.logits(inputs_of(batch)).float().softmax(dim=1)

    @by_name
    def _evaluate(self, split: str, batch: Any) -> dict[str, Tensor]:
        parts = self.read(batch)
        logits = self._answers(parts)
        self.count_answers(self._metric(split), logits, parts)
        # A float, since Lightning takes the mean of these numbers over the processes, and would cut
        # that of integers off; a tensor, since the host then does not wait.
        known: Any = self.num_known(parts.targets).float()
        loss = self.loss(logits, parts.targets)
        self.log(f"{split}/loss", loss, batch_size=known, sync_dist=True)
        return {"logits": logits, "labels": parts.targets}

    def _answers(self, parts: TaskBatch) -> Tensor:
        logits = self.logits(parts.inputs)
        if len(logits) != len(parts.targets):
            raise InputError(
                f"got {len(logits)} inputs and {len(parts.targets)} labels in a batch: give one "
                "label for each"
            )
        return logits

    def _metric(self, split: str) -> Metric:
        return cast(Metric, self.metrics[split])

    def _log_results(self, split: str) -> None:
        for name, value in self.results(self._metric(split)).items():
            self.log(f"{split}/{name}", value.float(), prog_bar=True, sync_dist=True)
