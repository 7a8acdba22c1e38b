"""Networks that are trained before the classifier, to find out about the training rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_ssl.answers import NO_ANSWER, best_answer
from lit_ssl.contracts.batches import grouped_batch
from lit_ssl.contracts.data import row_seed
from lit_ssl.errors import InputError, NonFiniteError
from lit_ssl.groups.cells import attributes_of, group_counts
from lit_ssl.groups.label_files import GroupLabels
from lit_ssl.groups.weights import balanced_weights
from lit_ssl.metrics.groups import PredictorQuality, PredictorScores
from lit_ssl.trainer.passes import predict_rows

__all__ = ["AttributeStage", "ErrorStage", "FirstStage", "check_attributes", "hold_out"]

_MIN_HELD_OUT = 5  # rows of each cell; a worst-cell accuracy on fewer is noise


class FirstStage(nn.Module, ABC):
    """A network, its loss, and what it finally says about each training row.

    Args:
        backbone: module with ``forward(inputs) -> [B, width]``.
        width: number of features.
        outputs: number K of scores.

    Attributes:
        scores: float32 ``[N, K]``, of the training rows, once ``finish`` has found them.
    """

    scores: Tensor | None
    looked_at: int

    def __init__(self, backbone: nn.Module, width: int, outputs: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(width, outputs)
        FirstStage.reset(self)

    def forward(self, inputs: Any) -> Tensor:
        """Scores ``[B, K]`` of a batch of inputs.

        Args:
            inputs: images ``[B, C, H, W]``, or a dictionary of token tensors ``[B, L]``.
        """
        return self.head(self.backbone(inputs)).float()

    @abstractmethod
    def begin(self, data: Any) -> None:
        """Check the data and set its sampling.

        Args:
            data: the data module with groups.

        Raises:
            InputError: if the data do not have what the stage needs.
        """

    @abstractmethod
    def loss(self, batch: Any) -> Tensor:
        """Loss of a training batch ``(inputs, labels, groups)``.

        Args:
            batch: labels int64 ``[B]``, groups int64 ``[B]``.

        Returns:
            A scalar.
        """

    def look(self, trainer: Any, data: Any, epoch: int) -> None:
        """Let ``select`` look at the network once after each epoch.

        It happens before the next epoch, not at the end of an epoch: checkpoints are written before
        that is over.

        Args:
            trainer: the running trainer.
            data: the data module.
            epoch: number of the current epoch, in which nothing was trained yet unless the network
                after the one before was looked at.
        """
        if epoch > self.looked_at:
            self.looked_at = epoch
            self.select(trainer, data, epoch - 1)

    def select(self, trainer: Any, data: Any, epoch: int) -> None:
        """Look at the network after an epoch; the default keeps the last one.

        Args:
            trainer: of the fit.
            data: the data module with groups.
            epoch: its number, from 0.
        """

    def finish(self, trainer: Any, data: Any) -> None:
        """Apply the network to all training rows.

        Args:
            trainer: of the fit.
            data: the data module with groups.

        Raises:
            NonFiniteError: if its scores are NaN or infinite.
        """
        scores = predict_rows(trainer, self, data.bank_dataloader(), len(data.labels("train")))
        if lost := int((best_answer(scores) == NO_ANSWER).sum()):
            raise NonFiniteError(
                f"scores of {lost:,} of {len(scores):,} training rows are NaN or infinite: the "
                "first step has diverged; lower its learning rate"
            )
        self.scores = scores

    def reset(self) -> None:
        """Forget what an earlier fit found."""
        self.scores = None
        self.looked_at = 0

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs besides the weights: plain values and tensors."""
        return {"scores": self.scores, "looked_at": self.looked_at}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what ``state`` returned.

        Args:
            state: of this stage, from a checkpoint.
        """
        self.scores, self.looked_at = state["scores"], state["looked_at"]


class ErrorStage(FirstStage):
    """JTT's first step: a plain classifier; the rows that it gets wrong are of interest."""

    def begin(self, data: Any) -> None:
        """Draw all rows alike."""
        data.set_sampling(None)

    def loss(self, batch: Any) -> Tensor:
        """Mean cross-entropy of the classes."""
        inputs, labels, _ = grouped_batch(batch)
        return F.cross_entropy(self(inputs), labels)

    def errors(self, labels: np.ndarray) -> np.ndarray:
        """Which training rows are wrong, bool ``[N]``.

        Args:
            labels: int ``[N]``, the classes of all training rows.
        """
        assert self.scores is not None
        return self.scores.argmax(dim=1).numpy() != labels


class AttributeStage(FirstStage):
    """BARACK's first step: the attribute from the input alone, learned on the labelled rows.

    The label y is no input and the network has A outputs, not one per group: with y in the game it
    would learn that a follows y, which is nearly always right and useless. Labelled rows are drawn
    so that their cells (y, a) are equally frequent. Where each cell has enough labelled rows, a
    part of them is held out, and the network of the epoch with the best worst cell on it is kept;
    else the last one.

    Args:
        backbone: module with ``forward(inputs) -> [B, width]``.
        width: number of features.
        num_classes: C.
        num_attributes: A.
        held_out: share of the labelled rows of each cell that selects the epoch, in [0, 1).

    Attributes:
        best_epoch: the selected epoch, or None for the last.

    Raises:
        InputError: if ``held_out`` does not lie in [0, 1).
    """

    def __init__(
        self,
        backbone: nn.Module,
        width: int,
        num_classes: int,
        num_attributes: int,
        held_out: float = 0.2,
    ) -> None:
        super().__init__(backbone, width, num_attributes)
        if not 0 <= held_out < 1:
            raise InputError(f"held_out must lie in [0, 1), got {held_out}")
        self.num_classes = num_classes
        self.num_attributes = num_attributes
        self.held_out = held_out
        self.held_out_rows = np.empty(0, dtype=np.int64)
        self.reset()

    def reset(self) -> None:
        """Forget what an earlier fit found."""
        super().reset()
        self.best: dict[str, Tensor] | None = None
        self.best_recall = -1.0
        self.best_epoch: int | None = None

    def begin(self, data: Any) -> None:
        """Hold rows out and draw the cells of the others alike.

        Raises:
            InputError: if no labelled row has one of the attributes.
        """
        check_attributes(data)
        groups = data.group_array("train")
        size = self.num_classes * self.num_attributes
        self.held_out_rows = hold_out(groups, size, self.held_out, row_seed(data))
        fitted = groups.copy()
        fitted[self.held_out_rows] = -1
        data.set_sampling(balanced_weights(fitted, size))

    def loss(self, batch: Any) -> Tensor:
        """Mean cross-entropy of the attribute."""
        inputs, _, groups = grouped_batch(batch)
        return F.cross_entropy(self(inputs), groups % self.num_attributes)

    def select(self, trainer: Any, data: Any, epoch: int) -> None:
        """Keep the network if its worst cell on the held-out rows is the best so far."""
        if not len(self.held_out_rows):
            return
        loader = data.bank_dataloader(self.held_out_rows)
        logits = predict_rows(trainer, self, loader, len(self.held_out_rows))
        scores = self._quality(logits, data.group_array("train")[self.held_out_rows])
        if scores.worst_recall.item() >= self.best_recall:  # of equals the one trained longer
            self.best_recall, self.best_epoch = scores.worst_recall.item(), epoch
            self.best = {name: t.detach().clone() for name, t in self.state_dict().items()}

    def finish(self, trainer: Any, data: Any) -> None:
        """Return to the selected network and apply it to all training rows."""
        self.begin(data)
        if self.best is not None:
            self.load_state_dict(self.best)
            self.best = None
        super().finish(trainer, data)

    def predictions(self, data: Any) -> GroupLabels:
        """Attributes of all training rows: the known ones, and else the predicted ones.

        Args:
            data: the data module with groups.
        """
        assert self.scores is not None
        truth = torch.from_numpy(attributes_of(data.group_array("train"), self.num_attributes))
        sure = F.one_hot(truth.clamp(min=0), self.num_attributes).float()
        known = truth >= 0
        probabilities = torch.where(known[:, None], sure, self.scores.softmax(dim=1))
        return GroupLabels(
            probabilities.argmax(dim=1).numpy(), known.numpy(), probabilities.numpy()
        )

    def quality(self, groups: np.ndarray, rows: np.ndarray) -> PredictorScores | None:
        """Quality of the predictions on some training rows; None without rows.

        Args:
            groups: true groups of the training rows, int64 ``[N]``, −1 where unknown.
            rows: int64, rows that were not used for fitting.
        """
        assert self.scores is not None
        if not (groups[rows] >= 0).any():
            return None
        return self._quality(self.scores[torch.from_numpy(rows)], groups[rows])

    def _quality(self, logits: Tensor, groups: np.ndarray) -> PredictorScores:
        metric = PredictorQuality(self.num_classes, self.num_attributes, sync_on_compute=False)
        truth = torch.from_numpy(groups)
        size = self.num_attributes
        metric.update(logits, truth // size, attributes_of(truth, size))
        return metric.compute()

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs besides the weights."""
        names = ("best", "best_recall", "best_epoch")
        return {**super().state(), **{name: getattr(self, name) for name in names}}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what ``state`` returned."""
        super().load_state(state)
        for name in ("best", "best_recall", "best_epoch"):
            setattr(self, name, state[name])


def hold_out(groups: np.ndarray, num_groups: int, share: float, seed: int) -> np.ndarray:
    """Rows to hold out: the share of each group, if each group has enough of them, else none.

    Args:
        groups: int64 ``[N]``, −1 where unknown.
        num_groups: number G of groups.
        share: of each group, in [0, 1).
        seed: of the draw.

    Returns:
        int64, ascending; empty if a group would have fewer than 5 rows.
    """
    counts = np.floor(group_counts(groups, num_groups) * share).astype(np.int64)
    if counts.min() < _MIN_HELD_OUT:
        return np.empty(0, dtype=np.int64)
    generator = np.random.default_rng(seed)
    drawn = [
        generator.choice(np.flatnonzero(groups == group), count, replace=False)
        for group, count in enumerate(counts)
    ]
    return np.sort(np.concatenate(drawn))


def check_attributes(data: Any) -> None:
    """Check that each attribute has a labelled training row.

    Args:
        data: the data module.

    Raises:
        InputError: if one has none.
    """
    known = attributes_of(data.group_array("train"), data.num_attributes)
    counts = group_counts(known, data.num_attributes)
    names = [str(data.attribute_names[a]) for a in np.flatnonzero(counts == 0)]
    if names:
        raise InputError(
            f"none of the {counts.sum():,} training rows with a known attribute has "
            f"{' or '.join(names)}, so that it cannot be learned: label some such rows, or raise "
            "--data.group_label_fraction (another --data.group_label_seed draws others)"
        )
