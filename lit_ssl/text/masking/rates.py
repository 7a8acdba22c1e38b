"""Masking rates that change while training goes on: pure functions of progress, without state."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from lit_ssl.errors import InputError
from lit_ssl.text.shares import check_rate

__all__ = ["ConstantRate", "CosineRate", "LinearRate", "RateSchedule"]

# From the share of the training that is done, 0 to 1, to the masking rate.
RateSchedule = Callable[[float], float]


@dataclass(frozen=True)
class ConstantRate:
    """The same rate all the time.

    Args:
        rate: In [0, 1].
    """

    rate: float

    def __post_init__(self) -> None:
        check_rate("rate", self.rate)

    def __call__(self, progress: float) -> float:
        """Rate after a share of the training."""
        _clamped(progress)
        return self.rate


@dataclass(frozen=True)
class LinearRate:
    """From ``start`` to ``end`` on a straight line; constant after the end.

    Args:
        start: Rate at the start, in [0, 1].
        end: Rate at the end, in [0, 1]; lower or higher.
    """

    start: float
    end: float

    def __post_init__(self) -> None:
        check_rate("start", self.start)
        check_rate("end", self.end)

    def __call__(self, progress: float) -> float:
        """Rate after a share of the training."""
        return _between(self.start, self.end, _clamped(progress))


@dataclass(frozen=True)
class CosineRate:
    """From ``start`` to ``end`` on half a cosine, flat at both; constant after the end.

    Args:
        start: Rate at the start, in [0, 1].
        end: Rate at the end, in [0, 1]; lower or higher.
    """

    start: float
    end: float

    def __post_init__(self) -> None:
        check_rate("start", self.start)
        check_rate("end", self.end)

    def __call__(self, progress: float) -> float:
        """Rate after a share of the training."""
        share = 0.5 * (1 - math.cos(math.pi * _clamped(progress)))
        return _between(self.start, self.end, share)


def _between(start: float, end: float, share: float) -> float:
    """Exactly the end at its share, and never outside of the two."""
    return start * (1 - share) + end * share


def _clamped(progress: float) -> float:
    if math.isnan(progress):
        raise InputError("progress of a masking rate is NaN: the length of the training is unknown")
    return min(1.0, max(0.0, progress))
