"""Confidence intervals of shares, and the bootstrap of tables of counts."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from lit_ssl.errors import InputError

__all__ = [
    "DRAWS",
    "LEVEL",
    "check_bootstrap",
    "draw_tables",
    "holm",
    "nan_quantiles",
    "ratio",
    "wilson_interval",
]

DRAWS = 10_000
LEVEL = 0.95
_MAX_CELLS = 4_000_000  # of drawn tables in memory at a time


def wilson_interval(
    correct: np.ndarray, count: np.ndarray, level: float = LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's score interval of shares.

    Args:
        correct: Successes, ``[...]``.
        count: Trials, ``[...]``.
        level: In (0, 1).

    Returns:
        Lower and upper ends, float64; NaN where there are no trials.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    n = np.where(np.asarray(count) > 0, count, np.nan)
    share = correct / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's step-down correction; NaN (no test) stays NaN and does not count.

    Args:
        p_values: ``[F]``.

    Returns:
        Corrected values, in [0, 1].
    """
    corrected = np.full(len(p_values), np.nan)
    tested = np.flatnonzero(~np.isnan(p_values))
    order = tested[np.argsort(p_values[tested], kind="stable")]
    factor = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(p_values[order] * factor), 1.0)
    return corrected


def draw_tables(cells: np.ndarray, draws: int, seed: int) -> list[np.ndarray]:
    """Resample the images of tables of counts.

    Args:
        cells: One table of K counts for each of F factors, ``[F, K]``, all with the same sum.
        draws: Number of resamples.
        seed: Of the generator.

    Returns:
        Arrays ``[r, F, K]`` whose r sum up to ``draws``.
    """
    total = int(cells[0].sum()) if len(cells) else 0
    generator = np.random.default_rng(seed)
    share = cells / max(total, 1)
    if total == 0:  # no images: every draw is empty
        return [np.zeros((draws, *cells.shape), dtype=np.int64)]
    size = max(1, min(draws, _MAX_CELLS // max(cells.size, 1)))
    parts = [min(size, draws - start) for start in range(0, draws, size)]
    return [generator.multinomial(total, share, size=(part, len(cells))) for part in parts]


def nan_quantiles(values: np.ndarray, quantiles: Sequence[float]) -> tuple[np.ndarray, ...]:
    """Quantiles over the first axis of ``[R, F]``; NaN where all values are.

    Args:
        values: float ``[R, F]``; NaN are left out.
        quantiles: Q of them, in [0, 1].

    Returns:
        Q arrays, float64 ``[F]``.
    """
    out = np.full((len(quantiles), values.shape[1]), np.nan)
    broken = np.isnan(values).any(axis=0)
    out[:, ~broken] = np.quantile(values[:, ~broken], quantiles, axis=0)
    for column in np.flatnonzero(broken):  # rare: a factor with hardly any image
        kept = values[~np.isnan(values[:, column]), column]
        if len(kept):
            out[:, column] = np.quantile(kept, quantiles)
    return tuple(out)


def ratio(part: np.ndarray | int, whole: np.ndarray | int | np.floating) -> np.ndarray:
    """Quotient in float64, NaN where ``whole`` is 0.

    Args:
        part: numbers of any shape that broadcasts against ``whole``.
        whole: likewise.

    Returns:
        Of the shape of both together.
    """
    whole = np.asarray(whole, dtype=np.float64)
    return np.asarray(part, dtype=np.float64) / np.where(whole == 0, np.nan, whole)


def check_bootstrap(level: float, draws: int) -> None:
    """Make sure that intervals can be drawn.

    Args:
        level: of the intervals, in (0, 1).
        draws: of the bootstrap, at least 100.

    Raises:
        ValueError: If one is not so.
    """
    if not 0 < level < 1 or draws < 100:
        raise InputError(f"level must lie in (0, 1) and draws be >= 100, got {level} and {draws}")
