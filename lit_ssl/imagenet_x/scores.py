"""One model's predictions held against the annotations of the images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lit_ssl.errors import InputError
from lit_ssl.imagenet_x.annotations import FactorAnnotations
from lit_ssl.imagenet_x.comparison import FactorComparison, compare_factors
from lit_ssl.imagenet_x.factor_table import FactorTable, calibration_error, factor_table
from lit_ssl.imagenet_x.intervals import DRAWS, LEVEL
from lit_ssl.imagenet_x.predictions import Predictions, check_coverage

__all__ = [
    "ErrorType",
    "FactorScores",
    "MetaclassTables",
    "RealEmpty",
    "check_error_type",
    "human_predictions",
]

ErrorType = Literal["class", "metaclass", "real"]
RealEmpty = Literal["drop", "wrong"]


@dataclass(frozen=True, eq=False)
class MetaclassTables:
    """Accuracies within each group of classes, G of them; NaN where there are no images.

    Attributes:
        names: of the groups.
        count: images of each, ``[G]``.
        factor_count: those with each of F factors, ``[G, F]``.
        average: accuracy of all images of each, ``[G]``.
        accuracy: of those with each factor, ``[G, F]``.
    """

    names: tuple[str, ...]
    count: np.ndarray  # [G]
    factor_count: np.ndarray  # [G, F]
    average: np.ndarray  # [G]
    accuracy: np.ndarray  # [G, F]


class FactorScores:
    """One model's predictions held against annotations.

    Args:
        predictions: Of the model.
        annotations: Of the images.
        error_type: What is correct: the label (``class``), any class of its group (``metaclass``),
            or any of the image's ReaL labels (``real``).
        real_empty: Images without any ReaL label: ``drop`` leaves them out, as the ReaL protocol
            does; ``wrong`` counts them as errors, as ImageNet-X's official tables do.
        partial: Whether annotated images may lack a prediction; they are left out.

    Attributes:
        name: Of the model.
        numbers: The images that count, int64 ``[N]``.
        members: Their factors, bool ``[N, F]``.
        correct: bool ``[N]``.

    Raises:
        InputError: If predictions are missing.
        ValueError: If the annotations do not have what ``error_type`` needs.
    """

    def __init__(
        self,
        predictions: Predictions,
        annotations: FactorAnnotations,
        error_type: ErrorType = "class",
        real_empty: RealEmpty = "drop",
        partial: bool = False,
    ) -> None:
        check_coverage(predictions, annotations, partial)
        self.name = predictions.name
        self.predictions = predictions
        self.annotations = annotations
        self.error_type = error_type
        kept = predictions.classes[annotations.numbers] >= 0
        if error_type == "real" and real_empty == "drop":
            kept &= _real_sizes(annotations)[annotations.numbers - 1] > 0
        self.numbers = annotations.numbers[kept]
        self.members = annotations.members[kept]
        self.correct = _correct(predictions.classes, annotations, error_type)[self.numbers]

    def table(self, level: float = LEVEL, draws: int = DRAWS, seed: int = 0) -> FactorTable:
        """Accuracy and error ratio per factor; see ``factor_table``.

        Args:
            level: of the confidence intervals, in (0, 1).
            draws: of the bootstrap, at least 100.
            seed: of the bootstrap.
        """
        names = self.annotations.factors
        return factor_table(self.correct, self.members, names, level=level, draws=draws, seed=seed)

    def compare(
        self, other: FactorScores, level: float = LEVEL, draws: int = DRAWS, seed: int = 0
    ) -> FactorComparison:
        """What changes from this model to another, on the images that both have.

        Args:
            other: the other model's scores.
            level: of the confidence intervals, in (0, 1).
            draws: of the bootstrap, at least 100.
            seed: of the bootstrap.
        """
        _, mine, theirs = np.intersect1d(
            self.numbers, other.numbers, assume_unique=True, return_indices=True
        )
        return compare_factors(
            self.correct[mine],
            other.correct[theirs],
            self.members[mine],
            self.annotations.factors,
            level=level,
            draws=draws,
            seed=seed,
        )

    def all_images_accuracy(self) -> float:
        """Accuracy of the label on all images, annotated or not; NaN if some lack a prediction."""
        found = self.predictions.classes[1:]
        return math.nan if (found < 0).any() else float((found == self.annotations.labels).mean())

    def worst_classes(self, count: int = 100) -> float:
        """Accuracy over all images of the classes with the lowest accuracy.

        Args:
            count: how many classes.

        Returns:
            In [0, 1]; NaN where there is no image.
        """
        labels = self.annotations.labels[self.numbers - 1]
        # Numbers of classes come from a file: they are compared, and never the size of an array.
        _, place, total = np.unique(labels, return_inverse=True, return_counts=True)
        hits = np.bincount(place, weights=self.correct)
        worst = np.argsort(hits / total, kind="stable")[:count]
        return float(hits[worst].sum() / total[worst].sum()) if len(worst) else math.nan

    def calibration(self, bins: int = 15) -> tuple[float, np.ndarray]:
        """Expected calibration error of all images, and per factor ``[F]``; NaN if not known.

        Args:
            bins: number of bins of equal width over [0, 1].
        """
        p = self.predictions.probability[self.numbers]
        if np.isnan(p).any():
            return math.nan, np.full(self.members.shape[1], np.nan)
        columns = self.members.T
        each = [calibration_error(self.correct[m], p[m], bins) for m in columns]
        return calibration_error(self.correct, p, bins), np.array(each)

    def metaclasses(self) -> MetaclassTables:
        """Accuracies within each group of classes.

        Raises:
            ValueError: If the annotations have no groups.
        """
        check_error_type("metaclass", self.annotations)
        groups = self.annotations.class_to_metaclass[self.annotations.labels[self.numbers - 1]]
        inside = groups == np.arange(len(self.annotations.metaclasses))[:, None]  # [G, N]
        count = inside.sum(axis=1)
        factor_count = inside.astype(np.float64) @ self.members
        right = inside & self.correct
        with np.errstate(invalid="ignore"):
            average = right.sum(axis=1) / count
            accuracy = (right.astype(np.float64) @ self.members) / factor_count
        return MetaclassTables(
            self.annotations.metaclasses, count, factor_count.astype(np.int64), average, accuracy
        )


def check_error_type(error_type: str, annotations: FactorAnnotations) -> None:
    """Make sure that the annotations can tell a kind of error.

    Args:
        error_type: ``class``, ``metaclass`` or ``real``.
        annotations: of the images.

    Raises:
        ValueError: If the kind is unknown, or the annotations have nothing for it.
    """
    if error_type not in ("class", "metaclass", "real"):
        raise InputError(f"error_type must be class, metaclass or real, not {error_type!r}")
    has = {"metaclass": bool(annotations.metaclasses), "real": annotations.real is not None}
    if not has.get(error_type, True):
        raise InputError(f"{annotations.source} has nothing for error_type {error_type!r}")


def _real_sizes(annotations: FactorAnnotations) -> np.ndarray:
    check_error_type("real", annotations)
    assert annotations.real is not None
    return np.diff(annotations.real[1])


def _correct(
    classes: np.ndarray, annotations: FactorAnnotations, error_type: ErrorType
) -> np.ndarray:
    """Whether the prediction for each image number is right, bool ``[size + 1]``."""
    check_error_type(error_type, annotations)
    correct = np.zeros(len(classes), dtype=bool)
    found = classes[1:]
    if error_type == "real":
        assert annotations.real is not None
        flat, offset = annotations.real
        owner = np.repeat(np.arange(len(offset) - 1), np.diff(offset))
        correct[1 + owner[flat == found[owner]]] = True
    elif error_type == "metaclass":
        group = annotations.class_to_metaclass
        correct[1:] = (found >= 0) & (group[found] == group[annotations.labels])
    else:
        correct[1:] = found == annotations.labels
    return correct


def human_predictions(annotations: FactorAnnotations) -> Predictions:
    """The original labels as predictions: with ReaL labels, what one annotator reaches.

    How sure annotators were is not known, so that there is no calibration.

    Args:
        annotations: of the images.
    """
    classes = np.concatenate([[-1], annotations.labels])
    return Predictions("human", classes, np.full(len(classes), np.nan))
