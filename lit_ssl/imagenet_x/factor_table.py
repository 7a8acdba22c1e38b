"""Accuracy and error ratio of groups of images that share a factor, with confidence intervals.

Everything follows from counts, so results depend neither on the order of the images nor on how
they were batched. Two kinds of intervals:

- accuracy: Wilson's interval, which also holds for small groups and at 0 and 1;
- error ratio and differences of models: the percentile bootstrap over images. Resampling images
  changes nothing but the counts of a small table per factor (in the factor or not, correct or not),
  so the draws are multinomial and exact, also where an image has several factors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lit_ssl.errors import InputError
from lit_ssl.imagenet_x.intervals import (
    DRAWS,
    LEVEL,
    check_bootstrap,
    draw_tables,
    nan_quantiles,
    ratio,
    wilson_interval,
)

__all__ = [
    "FactorTable",
    "calibration_error",
    "checked_factors",
    "factor_table",
    "table_from_counts",
]


@dataclass(frozen=True, eq=False)
class FactorTable:
    """One model's errors by factor.

    Attributes:
        factors: Names, F of them.
        count: Images per factor, int64 ``[F]``.
        correct: Correct ones among them, int64 ``[F]``.
        images: All images, with a factor or without.
        images_correct: Correct ones among them.
        accuracy: ``[F]``, NaN for a factor without images.
        accuracy_low: Lower end of its interval, Wilson's, ``[F]``.
        accuracy_high: Upper end of it, ``[F]``.
        error_ratio: (1 − accuracy of the factor) / (1 − accuracy of all), ``[F]``; NaN where there
            are no images or no errors.
        error_ratio_low: Lower end of its interval, by bootstrap, ``[F]``.
        error_ratio_high: Upper end of it, ``[F]``.
        level: Of the intervals.
    """

    factors: tuple[str, ...]
    count: np.ndarray
    correct: np.ndarray
    images: int
    images_correct: int
    accuracy: np.ndarray
    accuracy_low: np.ndarray
    accuracy_high: np.ndarray
    error_ratio: np.ndarray
    error_ratio_low: np.ndarray
    error_ratio_high: np.ndarray
    level: float

    @property
    def average(self) -> float:
        """Accuracy of all images; NaN without images."""
        return self.images_correct / self.images if self.images else math.nan

    @property
    def average_interval(self) -> tuple[float, float]:
        """Wilson's interval of [`average`][lit_ssl.metrics.FactorTable.average]."""
        low, high = wilson_interval(
            np.array([self.images_correct]), np.array([self.images]), self.level
        )
        return float(low[0]), float(high[0])

    @property
    def worst_factor(self) -> str | None:
        """Name of the factor with the lowest accuracy; None without images."""
        if np.isnan(self.accuracy).all():
            return None
        return self.factors[int(np.nanargmin(self.accuracy))]

    @property
    def worst_accuracy(self) -> float:
        """Its accuracy; NaN without images."""
        return math.nan if self.worst_factor is None else float(np.nanmin(self.accuracy))


def factor_table(
    correct: np.ndarray,
    members: np.ndarray,
    factors: Sequence[str] | None = None,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
) -> FactorTable:
    """Accuracy and error ratio per factor.

    Args:
        correct: Whether each image is classified correctly, bool ``[N]``.
        members: Which factors it has, bool ``[N, F]``: one ("top"), several ("multi") or none.
        factors: Names; None numbers them.
        level: Of the intervals, in (0, 1).
        draws: Of the bootstrap, >= 100.
        seed: Of the bootstrap.

    Returns:
        The table.

    Raises:
        ValueError: If shapes or values do not fit.

    Source: arXiv 2211.01866, section 3 (error ratio).
    """
    correct, members, names = checked_factors(correct, members, factors)
    return table_from_counts(
        names,
        count=members.sum(axis=0),
        correct=members[correct].sum(axis=0),
        images=len(correct),
        images_correct=int(correct.sum()),
        level=level,
        draws=draws,
        seed=seed,
    )


def table_from_counts(
    factors: Sequence[str],
    count: np.ndarray,
    correct: np.ndarray,
    images: int,
    images_correct: int,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
) -> FactorTable:
    """The table of ``factor_table`` from counts, which is all it needs.

    Args:
        factors: Names, F of them.
        count: Images per factor, integers ``[F]``.
        correct: Correct ones among them, ``[F]``.
        images: All images.
        images_correct: Correct ones among them.
        level: Of the intervals, in (0, 1).
        draws: Of the bootstrap, >= 100.
        seed: Of the bootstrap.

    Raises:
        ValueError: If ``level`` or ``draws`` lies outside its range.
    """
    check_bootstrap(level, draws)
    count, correct = np.asarray(count, dtype=np.int64), np.asarray(correct, dtype=np.int64)
    accuracy = ratio(correct, count)
    low, high = wilson_interval(correct, count, level)
    wrong = images - images_correct
    error_ratio = ratio(1 - accuracy, np.float64(1 - ratio(images_correct, images)))
    cells = np.stack(
        [correct, count - correct, images_correct - correct, wrong - (count - correct)], axis=1
    )
    quantiles = [(1 - level) / 2, (1 + level) / 2]
    ratio_low, ratio_high = _by_factor(cells, draws, seed, quantiles)
    # All draws agree where a factor has no errors, or only errors; its accuracy still is uncertain.
    one_sided = (correct == 0) | (correct == count)
    mean_error = np.float64(1 - ratio(images_correct, images))
    ratio_low = np.where(one_sided, ratio(1 - high, mean_error), ratio_low)
    ratio_high = np.where(one_sided, ratio(1 - low, mean_error), ratio_high)
    empty = np.isnan(error_ratio)
    ratio_low[empty] = ratio_high[empty] = np.nan
    return FactorTable(
        factors=tuple(factors),
        count=count,
        correct=correct,
        images=images,
        images_correct=images_correct,
        accuracy=accuracy,
        accuracy_low=low,
        accuracy_high=high,
        error_ratio=error_ratio,
        error_ratio_low=ratio_low,
        error_ratio_high=ratio_high,
        level=level,
    )


def calibration_error(correct: np.ndarray, probability: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error over bins of equal width.

    Args:
        correct: bool ``[N]``.
        probability: Of the predicted class, in [0, 1], ``[N]``.
        bins: Number of bins; a probability on an edge belongs to the lower bin.

    Returns:
        Mean of |accuracy − confidence| over bins, weighted by their images; NaN without images.
    """
    if len(correct) == 0:
        return math.nan
    where = np.searchsorted(np.linspace(0.0, 1.0, bins + 1)[1:-1], probability)
    sums = np.bincount(where, weights=probability, minlength=bins)
    hits = np.bincount(where, weights=correct, minlength=bins)
    return float(np.abs(hits - sums).sum() / len(correct))


def _by_factor(
    cells: np.ndarray, draws: int, seed: int, quantiles: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Quantiles ``[F]`` of the error ratio, from counts ``[F, 4]``: in/out × correct/wrong."""
    ratios = []
    for drawn in draw_tables(cells, draws, seed):
        inside_error = ratio(drawn[..., 1], drawn[..., 0] + drawn[..., 1])
        mean_error = ratio(drawn[..., 1] + drawn[..., 3], drawn.sum(axis=-1))
        ratios.append(ratio(inside_error, mean_error))
    low, high = nan_quantiles(np.concatenate(ratios), quantiles)
    return low, high


def checked_factors(
    correct: np.ndarray, members: np.ndarray, factors: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Check outcomes ``[N]``, factors ``[N, F]`` and their names; numbers where there are none.

    Args:
        correct: ``[N]``, whether each answer is right.
        members: ``[N, F]``, whether each image has each factor.
        factors: F names; None where they have none.

    Returns:
        Both as bool arrays, and the names.

    Raises:
        ValueError: If shapes do not fit.
    """
    correct, members = np.asarray(correct, dtype=bool), np.asarray(members, dtype=bool)
    if correct.ndim != 1 or members.ndim != 2 or len(correct) != len(members):
        raise InputError(
            f"expected correct [N] and members [N, F] of the same N, got {list(correct.shape)} and "
            f"{list(members.shape)}"
        )
    names = tuple(factors) if factors is not None else tuple(map(str, range(members.shape[1])))
    if len(names) != members.shape[1] or not names:
        raise InputError(f"{len(names)} names for {members.shape[1]} factors; needed is one each")
    return correct, members, names
