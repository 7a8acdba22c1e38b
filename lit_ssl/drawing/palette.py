"""Colours and shapes by which classes are told apart, also by readers who see few colours."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from lit_ssl.drawing.lettering import Colour

__all__ = [
    "MOST_CLASSES",
    "OTHER",
    "RIGHT",
    "WRONG",
    "class_colour",
    "heat_colours",
    "marker",
]

# Okabe and Ito's palette (2008), which colour-blind readers tell apart, with grey in place of the
# text's black, and two dark colours more, so that ten classes need one shape.
_COLOURS: tuple[Colour, ...] = (
    (0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0),
    (240, 228, 66), (70, 70, 70), (136, 34, 85), (51, 34, 136),
)  # fmt: skip
_SHAPES = ("circle", "square", "triangle", "diamond", "plus", "triangle down")
MOST_CLASSES = len(_COLOURS) * len(_SHAPES)  # that have a mark of their own
OTHER: Colour = (200, 200, 200)
RIGHT, WRONG = _COLOURS[2], _COLOURS[5]

# Lighter from each to the next, so that greys keep the order.
_HEAT = ((8, 6, 40), (92, 22, 110), (190, 52, 98), (247, 140, 60), (255, 246, 190))
_STAMP = 4  # times larger drawn than shown


def class_colour(number: int) -> Colour:
    """The colour of a class.

    Args:
        number: of the class, in the order of the legend, from 0; −1: of what has no mark.
    """
    return OTHER if number < 0 else _COLOURS[number % len(_COLOURS)]


@cache
def marker(number: int, radius: float) -> Image.Image:
    """The mark of a class: classes of one colour have different shapes.

    Args:
        number: as of ``class_colour``, < ``MOST_CLASSES``.
        radius: half of its size, pixels.

    Returns:
        RGBA, nearly opaque, with a darker rim.
    """
    side = 2 * math.ceil(radius) + 3
    large = Image.new("RGBA", (side * _STAMP, side * _STAMP), (0, 0, 0, 0))
    pen = ImageDraw.Draw(large)
    colour = class_colour(number)
    rim = tuple(round(0.62 * part) for part in colour)
    shape = "circle" if number < 0 else _SHAPES[number // len(_COLOURS)]
    for size, paint, alpha in ((radius, rim, 255), (radius * 0.8 - 0.2, colour, 255)):
        corners = [
            ((side / 2 + x * size) * _STAMP, (side / 2 + y * size) * _STAMP)
            for x, y in _outline(shape)
        ]
        pen.polygon(corners, fill=(*paint, alpha))
    stamp = large.resize((side, side), Image.Resampling.BOX)
    stamp.putalpha(stamp.getchannel("A").point(lambda value: round(value * 0.88)))
    return stamp


def heat_colours(values: np.ndarray) -> np.ndarray:
    """Colours from dark (0) to light (1).

    Args:
        values: in [0, 1], ``[…]``.

    Returns:
        float ``[…, 3]`` in [0, 255].
    """
    table = np.array(_HEAT, dtype=np.float64)
    places = np.linspace(0, 1, len(table))
    return np.stack([np.interp(values, places, table[:, c]) for c in range(3)], axis=-1)


def _outline(shape: str) -> list[tuple[float, float]]:
    """Corners of a shape of about the same area as the circle of radius one."""
    if shape == "square":
        return [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)]
    if shape == "diamond":
        return [(0, -1.2), (1.2, 0), (0, 1.2), (-1.2, 0)]
    if shape == "triangle":
        return [(0, -1.2), (1.15, 0.85), (-1.15, 0.85)]
    if shape == "triangle down":
        return [(0, 1.2), (1.15, -0.85), (-1.15, -0.85)]
    if shape == "plus":
        a, b = 0.45, 1.2
        return [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a),
                (-b, a), (-b, -a), (-a, -a)]  # fmt: skip
    angles = np.linspace(0, 2 * math.pi, 24, endpoint=False)
    return [(math.cos(angle), math.sin(angle)) for angle in angles]
