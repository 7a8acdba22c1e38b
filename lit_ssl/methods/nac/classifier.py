"""Answers of a network on inputs of any kind, and how many of them are right."""

from __future__ import annotations

import math
from typing import Any

import lightning.pytorch as pl
from torch import Tensor, nn

from lit_ssl.answers import count_right
from lit_ssl.contracts.batches import inputs_of, labelled_inputs
from lit_ssl.contracts.data import data_source
from lit_ssl.contracts.evaluation_sets import EvaluationSet, evaluation_sets, mask_classes
from lit_ssl.errors import InputError, by_name
from lit_ssl.methods.from_checkpoint import FromCheckpoint
from lit_ssl.metrics.accuracy import KnownAccuracy
from lit_ssl.models.nac.circuit import NeuralAttentiveCircuit
from lit_ssl.trainer.weights_once import WeightsOnce
from lit_ssl.transforms.erasing import RandomErasing
from lit_ssl.transforms.mixing import BatchMixing

__all__ = ["CircuitClassifier", "check_not_negative", "is_undecayed", "soft_cross_entropy"]


class CircuitClassifier(FromCheckpoint, WeightsOnce, pl.LightningModule):
    """What the training of a circuit and its adaptation have in common.

    Batches are ``(inputs, labels)``: images, points, a dictionary of token tensors, whatever the
    network's tokenizer reads. Labels of −1 do not count. ``forward(inputs)`` gives features
    ``[B, embed_dim]``, ``logits`` the scores of the classes. A data module with several sets to
    evaluate on (``evaluation_sets``) gets an accuracy for each, with the answer chosen among the
    classes that the set has.

    Args:
        net: a [`NeuralAttentiveCircuit`][lit_ssl.models.NeuralAttentiveCircuit].
        num_classes: number of classes, ≥ 2.
        label_smoothing: share of the target spread over all classes, in [0, 1).
        mixup: α of mixup; 0 switches it off. For images.
        cutmix: α of CutMix; 0 switches it off. With both on, each batch gets one of them.
        random_erasing: probability that a rectangle of a training image becomes noise, before
            mixing.

    Raises:
        InputError: for values outside their ranges, or a network with another number of classes.
    """

    def __init__(
        self,
        net: NeuralAttentiveCircuit,
        num_classes: int | None,
        label_smoothing: float,
        mixup: float,
        cutmix: float,
        random_erasing: float,
    ) -> None:
        super().__init__()
        self.num_classes = _checked(type(self).__name__, num_classes, label_smoothing)
        self.label_smoothing = label_smoothing
        self.erasing = RandomErasing(random_erasing) if random_erasing else None
        self.mixing = BatchMixing(mixup, cutmix) if mixup or cutmix else None
        self.net = net
        self.scores: dict[str, list[_SetScores]] = {}  # by split, one for each set

    @property
    def embed_dim(self) -> int:
        """Width of the features."""
        return self.net.embed_dim

    @property
    def encoder(self) -> nn.Module:
        """The network to keep."""
        return self.net

    def forward(self, inputs: Any) -> Tensor:
        """Features ``[B, embed_dim]`` of inputs.

        Args:
            inputs: images, points, or a dictionary of token tensors: what the network's tokenizer
                takes.
        """
        return self.net(inputs).features

    def logits(self, inputs: Any) -> Tensor:
        """Scores of the classes, ``[B, num_classes]``, of inputs.

        Args:
            inputs: as of ``forward``.
        """
        return self.net(inputs).logits

    def setup(self, stage: str) -> None:
        """Load the weights to start from, once; make an accuracy for each set to evaluate on."""
        super().setup(stage)
        split = {"fit": "val", "validate": "val", "test": "test"}.get(stage)
        if split is not None:
            sets = evaluation_sets(data_source(self.trainer), split)
            self.scores[split] = [_SetScores(one, self.num_classes) for one in sets]

    def give_classifier(self) -> None:
        """Give a network without classifier one of ``num_classes`` classes.

        Raises:
            InputError: if it has one of another number.
        """
        if not self.net.num_classes:
            self.net.reset_classifier(self.num_classes)
        elif self.net.num_classes != self.num_classes:
            raise InputError(
                f"the network has {self.net.num_classes} classes, and num_classes is "
                f"{self.num_classes}: leave out the network's, and it gets the right ones"
            )

    # training

    def training_inputs(self, batch: Any, batch_idx: int) -> tuple[Any, Tensor, Tensor]:
        """Inputs, soft targets ``[B, num_classes]`` and labels ``[B]`` of a training batch.

        Args:
            batch: what a loader gave.
            batch_idx: its number in the epoch; the labels of the first are looked at.

        Raises:
            InputError: for a batch without labels, or inputs that cannot be mixed.
        """
        inputs, labels = labelled_inputs(batch, self.num_classes, look=batch_idx == 0)
        targets = self._soft_targets(labels)
        if self.erasing is None and self.mixing is None:
            return inputs, targets, labels
        if not isinstance(inputs, Tensor) or inputs.ndim != 4:
            shape = list(inputs.shape) if isinstance(inputs, Tensor) else sorted(inputs)
            raise InputError(
                "mixup, cutmix and random_erasing are for images [B, C, H, W], and these inputs "
                f"are {shape}: set them to 0"
            )
        if self.erasing is not None:
            inputs = self.erasing(inputs)
        if self.mixing is not None:
            inputs, targets = self.mixing(inputs, targets)
        return inputs, targets, labels

    def log_accuracy(self, logits: Tensor, labels: Tensor) -> None:
        """Log the training accuracy of a batch, unless its labels are mixed.

        Args:
            logits: ``[B, num_classes]``.
            labels: ``[B]``, −1 where unknown.
        """
        if self.mixing is None:
            known = labels != -1
            # A plain mean: a metric object would make the host wait for the device.
            share = count_right(logits, labels) / known.sum().clamp(min=1)
            self.log("train/acc1", share, batch_size=len(labels))

    def _soft_targets(self, labels: Tensor) -> Tensor:
        """Smoothed targets, all 0 where the label is not known."""
        one_hot = nn.functional.one_hot(labels.clamp(min=0), self.num_classes).float()
        smooth = (1 - self.label_smoothing) * one_hot + self.label_smoothing / self.num_classes
        return smooth * (labels != -1)[:, None]

    # evaluation

    def on_validation_start(self) -> None:
        """Check that every loader has a name."""
        self._begin("val", self.trainer.val_dataloaders)

    def on_test_start(self) -> None:
        """Check that every loader has a name."""
        self._begin("test", self.trainer.test_dataloaders)

    def validation_step(
        self, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """Count right answers; returns features, logits and labels."""
        return self._evaluate("val", batch, batch_idx, dataloader_idx)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Count right answers; returns features, logits and labels."""
        return self._evaluate("test", batch, batch_idx, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the accuracies."""
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        """Log the accuracies."""
        self._log_scores("test")

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Probabilities ``[B, num_classes]`` of ``inputs`` or ``(inputs, labels)``."""
        return self.logits(inputs_of(batch)).float().softmax(dim=1)

    @by_name
    def _begin(self, split: str, loaders: Any) -> None:
        loaders = loaders if isinstance(loaders, list | tuple) else [loaders]
        sets = self.scores[split]
        if len(loaders) != len(sets):
            raise InputError(
                f"got {len(loaders)} loaders to evaluate on, and names of {len(sets)} sets: let "
                f"the data module give evaluation_sets({split!r}), one for each loader, in order"
            )
        for one in sets:
            one.to(self.device).reset()

    @by_name
    def _evaluate(
        self, split: str, batch: Any, batch_idx: int, dataloader_idx: int
    ) -> dict[str, Tensor]:
        inputs, labels = labelled_inputs(batch, self.num_classes)
        out = self.net(inputs)
        one = self.scores[split][dataloader_idx]
        one.update(out.logits, labels, look=batch_idx == 0)
        if one.set.classes is None:
            # How many the loss is the mean of; the host does not wait. A float, since Lightning
            # takes the mean of these numbers over processes, and would cut that of integers off.
            known: Any = (labels != -1).sum().float()
            loss = soft_cross_entropy(out.logits, self._soft_targets(labels))
            self.log(
                f"{split}/{one.prefix}loss",
                loss,
                batch_size=known,
                sync_dist=True,
                add_dataloader_idx=False,
            )
        return {"features": out.features, "logits": out.logits, "labels": labels}

    def _log_scores(self, split: str) -> None:
        for one in self.scores[split]:
            for name, accuracy in one.compute().items():
                shown = name == "acc1"
                self.log(f"{split}/{one.prefix}{name}", accuracy, prog_bar=shown, sync_dist=True)


class _SetScores(nn.Module):
    """Top-1 and, where it is not certain, top-5 accuracy on one set."""

    def __init__(self, one: EvaluationSet, num_classes: int) -> None:
        super().__init__()
        if one.classes is not None and not set(one.classes) <= set(range(num_classes)):
            raise InputError(
                f"the classes of the set {one.name!r} must lie in [0, {num_classes}), as "
                f"num_classes says, not {min(one.classes)} to {max(one.classes)}"
            )
        self.set = one
        self.prefix = f"{one.name}_" if one.name else ""
        self.acc1 = KnownAccuracy(num_classes)
        few = len(one.classes or range(num_classes)) <= 5
        self.acc5 = None if few else KnownAccuracy(num_classes, top_k=5)

    def update(self, logits: Tensor, labels: Tensor, look: bool) -> None:
        """Count the answers of a batch, the best of those that the set allows."""
        if self.set.classes is not None:
            self._check(labels, look)
        masked = mask_classes(logits.float(), self.set.classes)
        self.acc1.update(masked, labels)
        if self.acc5 is not None:
            self.acc5.update(masked, labels)

    def compute(self) -> dict[str, Tensor]:
        """Accuracies over all processes."""
        top5 = {} if self.acc5 is None else {"acc5": self.acc5.compute()}
        return {"acc1": self.acc1.compute(), **top5}

    def reset(self) -> None:
        """Forget what was counted."""
        self.acc1.reset()
        if self.acc5 is not None:
            self.acc5.reset()

    def _check(self, labels: Tensor, look: bool) -> None:
        """Refuse labels that cannot be answered, such as positions in the list of classes.

        On accelerators only in the first batch, since the host has to wait.
        """
        if not (look or labels.device.type == "cpu"):
            return
        assert self.set.classes is not None
        known = labels[labels != -1]
        strange = set(known.tolist()) - set(self.set.classes)
        if strange:
            raise InputError(
                f"got the label {min(strange)} in the set {self.set.name!r}, which is none of its "
                f"{len(self.set.classes)} classes: labels are those of the whole network, not "
                "positions among the classes of the set"
            )


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy against soft targets: a mean over those that are known, in float32.

    Args:
        logits: ``[B, K]``.
        targets: ``[B, K]``, rows with sum 1, or 0 where the label is not known.

    Returns:
        A scalar.
    """
    log_probs = logits.float().log_softmax(dim=1)
    return -(targets * log_probs).sum() / targets.sum().clamp(min=1e-6)


def check_not_negative(name: str, **values: float) -> None:
    """Make sure that rates and lengths of a method are finite and not negative.

    Args:
        name: of the method, for the message.
        **values: the numbers, by the names of their options.

    Raises:
        InputError: if one is not so.
    """
    for what, value in values.items():
        if not 0 <= value < math.inf:
            raise InputError(f"{name} needs a finite {what} >= 0, not {value}")


def _checked(name: str, num_classes: int | None, label_smoothing: float) -> int:
    if num_classes is None:
        raise InputError(
            f"{name} needs num_classes: give it (lit-ssl takes it from data modules that know it)"
        )
    if num_classes < 2:
        raise InputError(f"{name} needs at least 2 classes, not num_classes={num_classes}")
    if not 0 <= label_smoothing < 1:
        raise InputError(f"label_smoothing must lie in [0, 1), not {label_smoothing}")
    return num_classes


def is_undecayed(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is not decayed: biases, norms, scales, signatures and positions.

    Distances of signatures do not depend on their norms.

    Args:
        name: of the parameter in the module.
        parameter: the parameter.
    """
    parts = name.split(".")
    return parameter.ndim <= 1 or "signatures" in parts or parts[-1].endswith("positions")
