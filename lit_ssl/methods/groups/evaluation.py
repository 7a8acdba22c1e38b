"""Accuracy by group of a classifier, in validation and test."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.nn import functional as F

from lit_ssl.contracts.batches import check_labels, grouped_batch, inputs_of
from lit_ssl.errors import by_name
from lit_ssl.groups.cells import group_counts
from lit_ssl.methods.from_checkpoint import FromCheckpoint
from lit_ssl.metrics.groups import GroupAccuracy, GroupScores

__all__ = ["GroupEvaluation"]


class GroupEvaluation(FromCheckpoint, pl.LightningModule):
    """The evaluation of a module with ``forward`` to features and a ``classifier`` on them.

    Logs ``acc_worst``, ``acc_avg``, ``acc_adj`` and ``acc_group_G`` of the validation and test
    rows; where these carry groups of their own that may overlap (``eval_group_names`` of the data
    module), by those. There is no ``acc_adj`` where the data do not say the groups of all training
    rows; groups of the training set that the split lacks are left out of it, with a warning.

    Attributes:
        group_scores: of the last validation (``val``) and test (``test``).
    """

    classifier: nn.Linear
    val_groups: GroupAccuracy
    test_groups: GroupAccuracy

    def __init__(self) -> None:
        super().__init__()
        self.group_scores: dict[str, GroupScores] = {}
        self._told: set[str] = set()  # splits

    def set_metrics(self, data: Any) -> None:
        """Make the metrics for the groups of a data module.

        Args:
            data: the data module with groups.
        """
        names = data.eval_group_names or data.group_names
        weights = None
        if not data.eval_group_names:
            groups = data.true_group_array("train")
            if unknown := int((groups < 0).sum()):
                rank_zero_warn(
                    f"acc_adj is not logged: the groups of {unknown:,} of {len(groups):,} training "
                    "rows are unknown, and with them how the training set is made up"
                )
            else:
                weights = group_counts(groups, len(names))
        self.val_groups = GroupAccuracy(len(names), weights)
        self.test_groups = GroupAccuracy(len(names), weights)

    def logits(self, inputs: Any) -> Tensor:
        """Scores of the classes: a batch of inputs → ``[B, num_classes]``.

        Args:
            inputs: images ``[B, C, H, W]``, or a dictionary of token tensors ``[B, L]``.
        """
        return self.classifier(self(inputs))

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Count; returns features and labels."""
        return self._evaluate(batch, "val", self.val_groups)

    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Count; returns features and labels."""
        return self._evaluate(batch, "test", self.test_groups)

    def on_validation_epoch_end(self) -> None:
        """Log accuracies by group."""
        self._log_groups("val", self.val_groups)

    def on_test_epoch_end(self) -> None:
        """Log accuracies by group."""
        self._log_groups("test", self.test_groups)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Probabilities ``[B, num_classes]`` of ``(inputs, …)``."""
        return self.logits(inputs_of(batch)).float().softmax(dim=1)

    @by_name
    def _evaluate(self, batch: Any, split: str, metric: GroupAccuracy) -> dict[str, Tensor]:
        inputs, labels, groups = grouped_batch(batch)
        check_labels(labels, self.classifier.out_features)
        features = self(inputs)
        logits = self.classifier(features).float()
        metric.update(logits, labels, groups)
        total = F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum")
        # A float, since Lightning takes the mean of these numbers over the processes, and would cut
        # that of integers off; a tensor, which stays on the device.
        known: Any = (labels != -1).sum().float()
        loss = total / known.clamp(min=1)
        self.log(f"{split}/loss", loss, batch_size=known, sync_dist=True)
        return {"features": features, "labels": labels}

    def _log_groups(self, split: str, metric: GroupAccuracy) -> None:
        scores = metric.compute()
        metric.reset()
        self.group_scores[split] = scores
        values = {"acc_worst": scores.worst, "acc_avg": scores.average}
        if not scores.adjusted.isnan():
            values["acc_adj"] = scores.adjusted
            self._tell_lacking(split, metric.weights, scores)
        for group, accuracy in enumerate(scores.per_group):
            if scores.sizes[group]:
                values[f"acc_group_{group}"] = accuracy
        # All processes hold equal values; syncing them only keeps Lightning from warning.
        for name, value in values.items():
            shown = name == "acc_worst"
            self.log(f"{split}/{name}", value.item(), prog_bar=shown, sync_dist=True)

    def _tell_lacking(self, split: str, weights: Tensor | None, scores: GroupScores) -> None:
        """Warn, once for a split, of training groups whose accuracy nobody can measure on it."""
        if weights is None or split in self._told or self.trainer.sanity_checking:
            return
        lacking = weights[scores.sizes == 0].sum() / weights.sum()
        if lacking > 0:
            self._told.add(split)
            rank_zero_warn(
                f"{split}/acc_adj is weighted over the groups that the split has: it lacks those "
                f"of {lacking:.1%} of the training rows"
            )
