"""How far a distance can be trusted: its spread, and what real videos have among themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lit_ssl.errors import InputError
from lit_ssl.seeding import Stream, keyed_permutation, uniform

__all__ = ["Distance", "DistanceInterval", "bootstrap_interval", "self_distance"]

Distance = Callable[[Tensor, Tensor], Tensor]


class DistanceInterval(NamedTuple):
    """Of a distance.

    Attributes:
        low: lower bound.
        high: upper bound.
        std: standard deviation of the replicates.
    """

    low: float
    high: float
    std: float


def bootstrap_interval(
    distance: Distance,
    real: Tensor,
    fake: Tensor,
    replicates: int = 100,
    level: float = 0.95,
    seed: int = 0,
) -> DistanceInterval:
    """Where the distance would fall with other clips, as many as these, of the same two sources.

    Clips of both sets are drawn anew with replacement. That makes a Fréchet distance larger, for
    clips come several times; so the deviations of the replicates from their mean are put around
    the distance that was measured. It reaches below 0 where the sets can hardly be told apart. The
    interval says nothing of the bias that few clips give.

    Args:
        distance: of two sets of rows, such as ``metric.distance``.
        real: ``[N, F]``.
        fake: ``[M, F]``.
        replicates: R >= 20.
        level: share of the replicates in the interval, in (0, 1).
        seed: of the draws.

    Raises:
        ValueError: A value lies outside its range.
    """
    if replicates < 20 or not 0 < level < 1:
        raise InputError(
            f"a bootstrap interval needs at least 20 replicates and a level between 0 and 1, got"
            f" {replicates} and {level}"
        )
    value = float(distance(real, fake))
    found = np.array(
        [
            float(distance(*(rows[_draw(len(rows), seed, i, k)] for k, rows in enumerate(sets))))
            for i in range(replicates)
            for sets in [(real, fake)]
        ]
    )
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2]) - found.mean() + value
    return DistanceInterval(float(low), float(high), float(found.std(ddof=1)))


def self_distance(distance: Distance, real: Tensor, seed: int = 0) -> float:
    """Distance of one random half of the real clips from the other.

    What a perfect generator would have with N / 2 clips of each set: the floor of the measurement.

    Args:
        distance: of two sets of rows.
        real: ``[N, F]``, N >= 4.
        seed: of the halves.

    Raises:
        ValueError: Fewer than four rows.
    """
    if len(real) < 4:
        raise InputError(f"two halves of at least 2 clips need 4 real clips, got {len(real)}")
    order = torch.from_numpy(keyed_permutation(len(real), Stream.VIDEO_SCORES, 0, seed))
    half = len(real) // 2
    return float(distance(real[order[:half]], real[order[half : 2 * half]]))


def _draw(count: int, *keys: int) -> Tensor:
    """``count`` rows with replacement."""
    u = uniform(Stream.VIDEO_SCORES, 1, *keys, np.arange(count, dtype=np.int64))
    return torch.from_numpy((u * count).astype(np.int64))
