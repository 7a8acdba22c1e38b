"""Accuracy by factor as torchmetrics metrics: for any factors, and for ImageNet-X."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.exceptions import TorchMetricsUserError

from lit_ssl.answers import NO_ANSWER, best_answer
from lit_ssl.errors import InputError, NonFiniteError, check_choice
from lit_ssl.imagenet_x.annotations import FactorAnnotations, FactorKind, read_annotations
from lit_ssl.imagenet_x.comparison import FactorComparison
from lit_ssl.imagenet_x.factor_table import FactorTable, table_from_counts
from lit_ssl.imagenet_x.intervals import DRAWS, LEVEL
from lit_ssl.imagenet_x.predictions import Predictions, write_predictions
from lit_ssl.imagenet_x.scores import ErrorType, FactorScores, RealEmpty, check_error_type

__all__ = ["FactorAccuracy", "ImageNetXMetric"]


class FactorAccuracy(Metric):
    """Accuracy and error ratio per factor, each with its number of images and an interval.

    The state is four counts, summed over batches and processes. Intervals: Wilson's for
    accuracies, the bootstrap over images for error ratios
    (``lit_ssl.imagenet_x.factor_table``). A distributed sampler that pads its data counts some
    images twice;
    [`ImageNetXMetric`][lit_ssl.metrics.ImageNetXMetric] does not.

    Args:
        factors: Names of the factors, or their number.
        level: Of the intervals, in (0, 1).
        draws: Of the bootstrap, >= 100.
        kwargs: Passed to ``torchmetrics.Metric``.

    Raises:
        ValueError: If there are no factors, or a value lies outside its range.

    Examples:
        >>> metric = FactorAccuracy(["pose", "color"])
        >>> metric.update(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]))
        >>> metric.compute()["accuracy"]
        tensor([1., 0.], dtype=torch.float64)

    Source: arXiv 2211.01866, section 3.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    counts: Tensor
    total: Tensor
    lost: Tensor

    def __init__(
        self,
        factors: Sequence[str] | int,
        level: float = LEVEL,
        draws: int = DRAWS,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        names = map(str, range(factors)) if isinstance(factors, int) else factors
        self.factors = tuple(names)
        if not self.factors or not 0 < level < 1 or draws < 100:
            raise InputError(
                "FactorAccuracy needs at least one factor, level in (0, 1) and draws >= 100, got "
                f"{len(self.factors)}, {level}, {draws}"
            )
        self.level = level
        self.draws = draws
        self._table: FactorTable | None = None
        size = len(self.factors)
        # [2, F] and [2]: images, correct ones
        self.add_state("counts", torch.zeros(2, size, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(2, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("lost", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, factors: Tensor) -> None:
        """Add a batch.

        Args:
            preds: Logits ``[B, C]``, or classes ``[B]``, integers.
            target: Classes, integers ``[B]``; −1 where unknown: does not count.
            factors: Position of each image's factor, integers ``[B]``, −1 for none; or which
                factors it has, bool or 0 and 1, ``[B, F]``.

        Raises:
            ValueError: If shapes do not fit.
        """
        if preds.ndim == 2:
            preds = best_answer(preds)
        size = len(self.factors)
        shapes_fit = factors.shape in (target.shape, (*target.shape, size))
        if preds.shape != target.shape or target.ndim != 1 or not shapes_fit:
            raise InputError(
                f"expected preds [B] or [B, C], target [B] and factors [B] or [B, {size}], got "
                f"{list(preds.shape)}, {list(target.shape)} and {list(factors.shape)}"
            )
        if factors.ndim == 1:
            factors = factors[:, None] == torch.arange(size, device=factors.device)
        known = target != -1
        rows = torch.stack([known, known & (preds == target)])  # [2, B]
        self.counts += (rows[:, :, None] & factors.bool()).sum(dim=1)
        self.total += rows.sum(dim=1)
        self.lost += (known & (preds == NO_ANSWER)).sum()

    def compute(self) -> dict[str, Tensor]:
        """Scores over all processes.

        Returns:
            On the CPU, float64: ``accuracy``, ``error_ratio``, each with ``_low`` and ``_high``,
            and ``count``, per factor ``[F]``; ``average`` and ``worst_factor`` (its accuracy).
            Factors without images have NaN; all have, where logits were NaN or infinite.
        """
        (count, correct), (images, right) = self.counts.cpu().numpy(), self.total.tolist()
        table = table_from_counts(
            self.factors,
            count=count,
            correct=correct,
            images=images,
            images_correct=right,
            level=self.level,
            draws=self.draws,
        )
        self._table = table
        tensors = _tensors(table)
        if self.lost > 0:
            tensors |= {n: t + torch.nan for n, t in tensors.items() if t.is_floating_point()}
        return tensors

    def table(self) -> FactorTable:
        """What [`compute`][lit_ssl.metrics.FactorAccuracy.compute] returns, with names, as a table.

        Raises:
            NonFiniteError: If logits were NaN or infinite.
        """
        self.compute()
        if self.lost > 0:
            raise NonFiniteError(f"logits of {int(self.lost)} images are NaN or infinite")
        assert self._table is not None
        return self._table


class ImageNetXMetric(Metric):
    """Collects predictions by image number and scores them by factor.

    An image that comes twice, as where a sampler pads its data, counts once, so that several
    processes give exactly the result of one, in any order and any batches.

    Args:
        annotations: ``auto``, a folder or a CSV file (``read_annotations``), or the annotations
            themselves.
        which_factor: ``top`` or ``multi``. The two differ a lot; do not mix them in a table.
        error_type: What is correct; see [`FactorScores`][lit_ssl.metrics.FactorScores].
        keep_prototypes: Count the prototypical images too.
        real_empty: Images without any ReaL label; see
            [`FactorScores`][lit_ssl.metrics.FactorScores].
        partial: Whether annotated images may lack a prediction.
        name: Of the model, for tables.
        level: Of the confidence intervals.
        draws: Of the bootstrap.
        kwargs: Passed to ``torchmetrics.Metric``.

    Examples:
        >>> metric = ImageNetXMetric()  # doctest: +SKIP
        >>> metric.update(logits, image_number)  # doctest: +SKIP
        >>> metric.compute()["error_ratio"]  # doctest: +SKIP

    Source: arXiv 2211.01866, sections 2 and 3.
    """

    full_state_update = False
    higher_is_better = None
    is_differentiable = False
    classes: Tensor
    probability: Tensor
    lost: Tensor

    def __init__(
        self,
        annotations: str | FactorAnnotations = "auto",
        which_factor: FactorKind = "top",
        error_type: ErrorType = "class",
        keep_prototypes: bool = False,
        real_empty: RealEmpty = "drop",
        partial: bool = False,
        name: str = "model",
        level: float = LEVEL,
        draws: int = DRAWS,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(annotations, str):
            annotations = read_annotations(annotations, which_factor, keep_prototypes)
        check_error_type(error_type, annotations)
        check_choice("real_empty", real_empty, ("drop", "wrong"))
        self.annotations = annotations
        self.error_type: ErrorType = error_type
        self.real_empty: RealEmpty = real_empty
        self.partial = partial
        self.name = name
        self.level = level
        self.draws = draws
        self._scores: FactorScores | None = None
        self._table: FactorTable | None = None
        # Image n at n. At 0 is what had no valid number, so that nobody has to wait for a check.
        size = annotations.size + 1
        classes = torch.full((size,), -1, dtype=torch.int32)
        self.add_state("classes", classes, dist_reduce_fx="max")
        self.add_state("lost", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("probability", torch.full((size,), -1.0), dist_reduce_fx="max")

    def update(
        self, preds: Tensor, image_number: Tensor, probability: Tensor | None = None
    ) -> None:
        """Add a batch.

        Args:
            preds: Logits ``[B, C]`` (the first of equal ones wins), or classes ``[B]``, integers.
            image_number: 1 … size, integers ``[B]``; ImageNet's is the number in the file name.
            probability: Of the predicted class, ``[B]``; from logits it is computed.

        Raises:
            ValueError: If shapes or types do not fit.
        """
        if preds.ndim == 2 and preds.is_floating_point():
            if not self.annotations.fits(preds.shape[1]):
                raise InputError(
                    f"logits have {preds.shape[1]} classes, the annotations "
                    f"{self.annotations.num_classes}: map the outputs of the model first"
                )
            if probability is None:
                probability = preds.float().softmax(dim=1).amax(dim=1)
            self.lost += (best_answer(preds) == NO_ANSWER).sum()
            preds = _first_largest(preds)
        if preds.ndim != 1 or preds.is_floating_point() or preds.shape != image_number.shape:
            raise InputError(
                "expected logits [B, C] or integer classes [B], and image numbers [B]; got "
                f"{list(preds.shape)} ({preds.dtype}) and {list(image_number.shape)}"
            )
        inside = (image_number >= 1) & (image_number <= self.annotations.size)
        rows = torch.where(inside, image_number, 0).to(self.classes.device, torch.int64)
        self.classes[rows] = preds.to(self.classes.device, self.classes.dtype)
        if probability is not None:
            self.probability[rows] = probability.detach().to(self.probability)

    def compute(self) -> dict[str, Tensor]:
        """Scores over all processes.

        Returns:
            On the CPU, float64: ``accuracy``, ``error_ratio``, each with ``_low`` and ``_high``,
            and ``count``, per factor ``[F]``; ``average``, ``worst_factor`` (its accuracy),
            ``worst_classes`` (100 of them), ``calibration_error``.

        Raises:
            InputError: If annotated images lack a prediction (unless ``partial``).
            NonFiniteError: If logits were NaN or infinite.
            ValueError: If ``update`` got image numbers that do not exist.
        """
        try:
            answers = self._predictions()
            scores = FactorScores(
                answers, self.annotations, self.error_type, self.real_empty, self.partial
            )
        except InputError:
            # torchmetrics gives the states of this process back only after a compute that returns.
            with suppress(TorchMetricsUserError):
                self.unsync()
            raise
        table = scores.table(self.level, self.draws)
        self._scores, self._table = scores, table
        worst = scores.worst_classes()
        return _tensors(table, worst_classes=worst, calibration_error=scores.calibration()[0])

    def _predictions(self) -> Predictions:
        classes = self.classes.cpu().numpy().astype(np.int64)
        probability = self.probability.cpu().numpy().astype(np.float64)
        if self.lost > 0:
            raise NonFiniteError(
                f"logits of {int(self.lost):,} images are NaN or infinite, and predict no class"
            )
        if classes[0] >= 0:
            raise InputError(
                f"update got image numbers outside of 1 … {self.annotations.size}; ImageNet's are "
                "those in the file names"
            )
        if self.annotations.files is None and classes.max() >= self.annotations.num_classes:
            raise InputError(
                f"update got class {classes.max()}, there are {self.annotations.num_classes}"
            )
        probability[probability < 0] = np.nan
        return Predictions(self.name, classes, probability)

    def predictions(self) -> Predictions:
        """All predictions of all processes, before anything is judged; call it on every process."""
        with self.sync_context():
            return self._predictions()

    def scores(self) -> FactorScores:
        """Everything else that can be asked: tables of metaclasses, comparisons, calibration."""
        self.compute()
        assert self._scores is not None
        return self._scores

    def table(self) -> FactorTable:
        """Accuracy and error ratio per factor, with their intervals."""
        self.compute()
        assert self._table is not None
        return self._table

    def to_csv(self, path: str | Path) -> Path:
        """Write all predictions, of images without annotations too, in the official format.

        Args:
            path: the file, ``.csv``.

        Returns:
            The path.
        """
        return write_predictions(path, self.predictions(), self.annotations)

    def compare(self, other: ImageNetXMetric | FactorScores) -> FactorComparison:
        """What changes from this model to another on the same images, with p values.

        Args:
            other: the other model's metric or scores.
        """
        theirs = other if isinstance(other, FactorScores) else other.scores()
        return self.scores().compare(theirs, self.level, self.draws)

    def reset(self) -> None:
        """Forget all predictions."""
        super().reset()
        self._scores = self._table = None


def _tensors(table: FactorTable, **more: float) -> dict[str, Tensor]:
    """Columns of a table as tensors on the CPU: float64, and the counts."""
    names = [
        f"{kind}{part}" for kind in ("accuracy", "error_ratio") for part in ("", "_low", "_high")
    ]
    values: dict[str, Any] = {name: getattr(table, name) for name in names}
    values |= {"average": table.average, "worst_factor": table.worst_accuracy, **more}
    tensors = {name: torch.as_tensor(v, dtype=torch.float64) for name, v in values.items()}
    return {**tensors, "count": torch.from_numpy(table.count)}


def _first_largest(logits: Tensor) -> Tensor:
    """Position of each row's largest value, the first of equal ones, which argmax leaves open."""
    largest = (logits == logits.amax(dim=1, keepdim=True)) | logits.isnan()
    positions = torch.arange(logits.shape[1], device=logits.device)
    return torch.where(largest, positions, logits.shape[1]).amin(dim=1)
