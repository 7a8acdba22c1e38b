"""Two models on the same images: what changes, by factor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lit_ssl.imagenet_x.factor_table import checked_factors
from lit_ssl.imagenet_x.intervals import (
    DRAWS,
    LEVEL,
    check_bootstrap,
    draw_tables,
    holm,
    nan_quantiles,
    ratio,
)

__all__ = ["FactorComparison", "compare_factors"]


@dataclass(frozen=True, eq=False)
class FactorComparison:
    """What changes from model a to model b on the same images; see ``compare_factors``.

    Attributes:
        factors: Names, F of them.
        count: Images per factor, int64 ``[F]``.
        accuracy: Accuracy of b minus that of a, ``[F]``.
        accuracy_low: Lower end of its interval, ``[F]``.
        accuracy_high: Upper end of it, ``[F]``.
        accuracy_p: Its p value, two-sided, ``[F]``.
        accuracy_p_holm: The same, corrected for F factors.
        accuracy_p_bound: bool ``[F]``: where the corrected value is an upper bound (≤), since no
            draw lay on the far side of zero.
        error_ratio: Error ratio of b minus that of a, ``[F]``.
        error_ratio_low: Lower end of its interval, ``[F]``.
        error_ratio_high: Upper end of it, ``[F]``.
        error_ratio_p: Its p value, two-sided, ``[F]``.
        error_ratio_p_holm: The same, corrected for F factors.
        error_ratio_p_bound: As ``accuracy_p_bound``.
        average: Accuracy of b minus that of a on all images.
        average_interval: Both ends of its interval.
        average_p: Its p value, two-sided.
        average_p_bound: Whether that is an upper bound (≤).
        level: Of the intervals.
    """

    factors: tuple[str, ...]
    count: np.ndarray
    accuracy: np.ndarray
    accuracy_low: np.ndarray
    accuracy_high: np.ndarray
    accuracy_p: np.ndarray
    accuracy_p_holm: np.ndarray
    accuracy_p_bound: np.ndarray
    error_ratio: np.ndarray
    error_ratio_low: np.ndarray
    error_ratio_high: np.ndarray
    error_ratio_p: np.ndarray
    error_ratio_p_holm: np.ndarray
    error_ratio_p_bound: np.ndarray
    average: float
    average_interval: tuple[float, float]
    average_p: float
    average_p_bound: bool
    level: float


def compare_factors(
    correct_a: np.ndarray,
    correct_b: np.ndarray,
    members: np.ndarray,
    factors: Sequence[str] | None = None,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
) -> FactorComparison:
    """Paired comparison of two models on the same images.

    The bootstrap draws images, each with the outcomes of both models. A p value is twice the share
    of draws on the far side of zero, at least 2 / (draws + 1), where it is an upper bound of what
    more draws would give; ``_holm`` values hold for all factors together.

    Args:
        correct_a: Whether model a classifies each image correctly, bool ``[N]``.
        correct_b: The same for model b, in the same order.
        members: Which factors each image has, bool ``[N, F]``.
        factors: Names; None numbers them.
        level: Of the intervals, in (0, 1).
        draws: Of the bootstrap, >= 100.
        seed: Of the bootstrap.

    Returns:
        Differences, b minus a.

    Raises:
        ValueError: If shapes or values do not fit.
    """
    check_bootstrap(level, draws)
    correct_a, members, names = checked_factors(correct_a, members, factors)
    correct_b, _, _ = checked_factors(correct_b, members, names)
    outcome = 2 * correct_a.astype(np.int64) + correct_b
    inside = np.stack([members[outcome == k].sum(axis=0) for k in range(4)], axis=1)
    total = np.bincount(outcome, minlength=4)
    cells = np.concatenate([inside, total - inside], axis=1)
    accuracy, error_ratio, average = _differences(cells)
    drawn = [_differences(part) for part in draw_tables(cells, draws, seed)]
    drawn_accuracy = np.concatenate([part[0] for part in drawn])
    drawn_ratio = np.concatenate([part[1] for part in drawn])
    drawn_average = np.concatenate([part[2][:, :1] for part in drawn])
    (low, high), p, least = _summary(drawn_accuracy, level)
    (ratio_low, ratio_high), ratio_p, ratio_least = _summary(drawn_ratio, level)
    (mean_low, mean_high), mean_p, mean_least = _summary(drawn_average, level)
    return FactorComparison(
        factors=names,
        count=inside.sum(axis=1),
        accuracy=accuracy,
        accuracy_low=low,
        accuracy_high=high,
        accuracy_p=p,
        accuracy_p_holm=holm(p),
        accuracy_p_bound=_bound(p, least),
        error_ratio=error_ratio,
        error_ratio_low=ratio_low,
        error_ratio_high=ratio_high,
        error_ratio_p=ratio_p,
        error_ratio_p_holm=holm(ratio_p),
        error_ratio_p_bound=_bound(ratio_p, ratio_least),
        average=float(average[0]),
        average_interval=(float(mean_low[0]), float(mean_high[0])),
        average_p=float(mean_p[0]),
        average_p_bound=bool(mean_least[0]),
        level=level,
    )


def _differences(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Differences b − a of accuracy, error ratio and average from counts ``[..., F, 8]``.

    Cells: in the factor, then outside; within each, outcomes 2a + b.
    """
    inside, outside = cells[..., :4], cells[..., 4:]
    everything, n_inside = inside + outside, inside.sum(axis=-1)
    n = everything.sum(axis=-1)
    a, b = (ratio(inside[..., i] + inside[..., 3], n_inside) for i in (2, 1))
    mean_a, mean_b = (ratio(everything[..., i] + everything[..., 3], n) for i in (2, 1))
    ratios = ratio(1 - b, 1 - mean_b) - ratio(1 - a, 1 - mean_a)
    return b - a, ratios, mean_b - mean_a


def _bound(p: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Which of the values that Holm corrects would be smaller if the least ones were."""
    return holm(np.where(least, 0.0, p)) < holm(p)


def _summary(
    drawn: np.ndarray, level: float
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray]:
    """Interval and two-sided p value of differences ``[R, F]``, and where it is the least."""
    low, high = nan_quantiles(drawn, [(1 - level) / 2, (1 + level) / 2])
    valid = (~np.isnan(drawn)).sum(axis=0)
    nearer = np.minimum((drawn <= 0).sum(axis=0), (drawn >= 0).sum(axis=0))
    p = np.minimum(2 * (nearer + 1) / (valid + 1), 1.0)
    tested = valid > 0
    return (low, high), np.where(tested, p, np.nan), tested & (nearer == 0)
