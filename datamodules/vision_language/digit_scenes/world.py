"""Scenes of one or two coloured digits: what is in them, and how they are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lit_ssl.seeding import uniform

__all__ = [
    "COLOURS",
    "DIGITS",
    "HELD_OUT",
    "SEEN",
    "SPLITS",
    "Combination",
    "Dice",
    "Digit",
    "draw_combination",
    "draw_scene",
    "render_scenes",
    "resize_strokes",
]

DIGITS = (0, 3, 4, 6, 7)
COLOURS = {
    "red": (230, 40, 40),
    "green": (40, 200, 60),
    "blue": (70, 100, 255),
    "yellow": (240, 220, 40),
    "purple": (190, 60, 220),
    "cyan": (40, 220, 220),
}
SPLITS = {"train": 0, "val": 1, "test": 2}
_CELL, _SMALL = 16, 11  # pixels
_NOISE = 8.0  # standard deviation, of 255
_BLOCK = 32
_CHUNK = 500  # scenes whose noise is made at once


class Combination(NamedTuple):
    """A colour with a digit: their places in ``COLOURS`` and ``DIGITS``."""

    colour: int
    digit: int


_ALL = [Combination(c, d) for c in range(len(COLOURS)) for d in range(len(DIGITS))]
HELD_OUT = [one for one in _ALL if one.digit == one.colour % len(DIGITS)]
SEEN = [one for one in _ALL if one not in HELD_OUT]


class Digit(NamedTuple):
    """A digit of a scene.

    Attributes:
        combination: its colour and digit.
        is_small: 11 pixels a side, instead of 16.
        cell: 0 upper left, 1 upper right, 2 lower left, 3 lower right.
        offset: pixels from the upper left corner of its cell, down and to the right; 0 to 5 for
            small ones, else 0.
        image: which image of its digit, in [0, 1) of all there are.
    """

    combination: Combination
    is_small: bool
    cell: int
    offset: tuple[int, int]
    image: float


class Dice:
    """Random numbers one after the other, a pure function of integers.

    Args:
        keys: Such as (seed, stream, split, index).
    """

    def __init__(self, *keys: int) -> None:
        self._keys = keys
        self._block = 0
        self._left: list[float] = []

    def number(self) -> float:
        """Return a number in [0, 1)."""
        if not self._left:
            places = np.arange(self._block * _BLOCK, (self._block + 1) * _BLOCK)
            self._left = uniform(*self._keys, places).tolist()[::-1]
            self._block += 1
        return self._left.pop()

    def below(self, count: int) -> int:
        """Return an integer from 0 to ``count - 1``.

        Args:
            count: ≥ 1.
        """
        return int(self.number() * count)

    def one_of(self, items: Sequence[Any], weights: Sequence[float] | None = None) -> Any:
        """Return one of some items, by their weights, which sum to 1, or all alike.

        Args:
            items: at least one.
            weights: one for each item; None: all the same.
        """
        if weights is None:
            return items[self.below(len(items))]
        number = self.number()
        for item, weight in zip(items, weights, strict=True):
            number -= weight
            if number < 0:
                return item
        return items[-1]


def draw_combination(
    dice: Dice, split: str, allowed: Callable[[Combination], bool] = lambda one: True
) -> Combination:
    """Return the colour and digit of an object.

    In training one of the 24 that are seen; elsewhere one of the 6 held out in every second draw.

    Args:
        dice: Where chance comes from.
        split: "train", "val" or "test".
        allowed: Draw again until this holds.
    """
    while True:
        held_out = split != "train" and dice.number() < 0.5
        one = dice.one_of(HELD_OUT if held_out else SEEN)
        if allowed(one):
            return one


def draw_scene(
    dice: Dice,
    split: str,
    first: Combination | None = None,
    allowed: Callable[[Combination], bool] = lambda one: True,
    count: int | None = None,
) -> tuple[Digit, ...]:
    """Return the digits of a scene, in random order.

    Args:
        dice: Where chance comes from.
        split: "train", "val" or "test".
        first: Colour and digit of one of them; None draws it as the other.
        allowed: What holds of the drawn ones.
        count: 1 or 2; None draws it.
    """
    count = 1 + dice.below(2) if count is None else count
    found = [] if first is None else [first]
    while len(found) < count:
        found.append(draw_combination(dice, split, allowed))
    cells = [dice.below(4), (dice.below(3) + 1)]
    cells[1] = (cells[0] + cells[1]) % 4
    digits = []
    for combination, cell in zip(found, cells, strict=False):
        is_small = dice.number() < 0.5
        room = _CELL - _SMALL + 1 if is_small else 1
        offset = (dice.below(room), dice.below(room))
        digits.append(Digit(combination, is_small, cell, offset, dice.number()))
    if len(digits) == 2 and dice.number() < 0.5:
        digits.reverse()
    return tuple(digits)


def resize_strokes(pixels: Tensor, labels: np.ndarray) -> dict[tuple[int, bool], Tensor]:
    """Cut the margins off MNIST's digits, and shrink them to both sizes.

    Args:
        pixels: uint8 ``[N, 1, 28, 28]``.
        labels: int64 ``[N]``, digits from 0 to 9.

    Returns:
        (place in ``DIGITS``, whether small) → float32 ``[n, s, s]`` in [0, 1].
    """
    found = {}
    for place, digit in enumerate(DIGITS):
        own = pixels[torch.from_numpy(np.flatnonzero(labels == digit))][..., 2:26, 2:26].float()
        for is_small in (False, True):
            side = _SMALL if is_small else _CELL
            resized = F.interpolate(own, (side, side), mode="bilinear", antialias=True)
            found[place, is_small] = resized[:, 0].clamp(0, 255) / 255
    return found


def render_scenes(
    scenes: Sequence[tuple[Digit, ...]],
    strokes: dict[tuple[int, bool], Tensor],
    keys: tuple[int, ...],
    indices: np.ndarray,
) -> Tensor:
    """Draw scenes: the colour times the strokes on black, with noise.

    Args:
        scenes: N scenes.
        strokes: See ``resize_strokes``.
        keys: What the noise depends on, such as (seed, stream, split), besides
        indices: int64 ``[N]``: numbers of the scenes.

    Returns:
        uint8 ``[N, 3, 32, 32]``.
    """
    side = 2 * _CELL
    colours = torch.tensor(list(COLOURS.values()), dtype=torch.float32)
    images = torch.empty(len(scenes), 3, side, side, dtype=torch.uint8)
    for begin in range(0, len(scenes), _CHUNK):
        part = slice(begin, begin + _CHUNK)
        canvas = _noise(keys, indices[part], side)
        for scene, image in zip(scenes[part], canvas, strict=True):
            for digit in scene:
                same = strokes[digit.combination.digit, digit.is_small]
                stroke = same[int(digit.image * len(same))]
                row, column = divmod(digit.cell, 2)
                top, left = row * _CELL + digit.offset[0], column * _CELL + digit.offset[1]
                place = image[:, top : top + len(stroke), left : left + len(stroke)]
                place += colours[digit.combination.colour][:, None, None] * stroke
        images[part] = canvas.round_().clamp_(0, 255).to(torch.uint8)
    return images


def _noise(keys: tuple[int, ...], indices: np.ndarray, side: int) -> Tensor:
    """Gaussian noise, float32 ``[n, 3, side, side]``, by Box and Muller's method."""
    half = 3 * side * side // 2
    number = uniform(*keys, indices[:, None], np.arange(2 * half)).reshape(-1, 2, half)
    radius = _NOISE * np.sqrt(-2 * np.log1p(-number[:, 0]))
    angle = 2 * np.pi * number[:, 1]
    both = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return torch.from_numpy(both.astype(np.float32)).view(-1, 3, side, side)
