"""How often a size is halved or doubled, and how wide networks are meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lit_ssl.errors import InputError

__all__ = ["Pyramid", "pyramid", "widths"]

_SMALLEST, _LARGEST = 4, 15


class Pyramid(NamedTuple):
    """A size as a small one that was doubled several times.

    Attributes:
        height: of the small size; its shorter side has 4 to 15 pixels.
        width: of the small size.
        doublings: how many times it is doubled.
    """

    height: int
    width: int
    doublings: int


def pyramid(resolution: int | tuple[int, int]) -> Pyramid:
    """Halve a size as long as both sides are even and none gets shorter than 4 pixels.

    Args:
        resolution: side of a square, or (height, width).

    Raises:
        ValueError: if what remains is shorter than 4 pixels or longer than 15 at its shorter side.
    """
    pair = (resolution, resolution) if isinstance(resolution, int) else tuple(resolution)
    if len(pair) != 2 or min(pair) < 1:
        raise InputError(f"resolution must be one size or (height, width), not {resolution}")
    height, width = pair
    doublings = 0
    while height % 2 == 0 and width % 2 == 0 and min(height, width) // 2 >= _SMALLEST:
        height, width, doublings = height // 2, width // 2, doublings + 1
    if not _SMALLEST <= min(height, width) <= _LARGEST:
        raise InputError(
            f"resolution {pair[0]}x{pair[1]} is not a small size doubled several times: choose "
            f"sides of which the shorter one is {_SMALLEST} to {_LARGEST} times a power of two and "
            "the longer one a multiple of that power, such as 32, 48, 64 or 32x64"
        )
    return Pyramid(height, width, doublings)


def widths(
    channels: int, multipliers: Sequence[int] | None, default: Sequence[int]
) -> tuple[int, ...]:
    """Channels of each level: ``channels`` times its multiplier.

    Args:
        channels: the unit, at least 1.
        multipliers: one per level; None: the default.
        default: as many as there are levels.

    Raises:
        ValueError: if there are more or fewer multipliers than levels, or one is below 1.
    """
    chosen = tuple(default if multipliers is None else multipliers)
    if len(chosen) != len(default):
        raise InputError(
            f"channel_multipliers must be {len(default)} numbers for this resolution, one per "
            f"size, not {list(chosen)}"
        )
    if channels < 1 or min(chosen) < 1:
        raise InputError(
            f"channels and channel_multipliers must be at least 1, got {channels} and "
            f"{list(chosen)}"
        )
    return tuple(channels * m for m in chosen)
