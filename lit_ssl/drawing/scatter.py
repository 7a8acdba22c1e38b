"""Maps of points: coloured by class with a legend, or with thumbnails in place of points."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from lit_ssl.drawing.lettering import line_height, put_text, text_width, wrapped
from lit_ssl.drawing.palette import MOST_CLASSES, class_colour, marker
from lit_ssl.drawing.thumbnails import fitted
from lit_ssl.errors import InputError

__all__ = ["THUMBNAIL", "draw_map", "rows_apart"]

THUMBNAIL = 60  # edge of thumbnails in a map, pixels
_WIDTH = 860
_FLATTEST = 0.5  # height of the map as a part of its width
_MARGIN = 16  # between the frame of the map and its outermost points
_GAP, _LEGEND, _ENTRY = 12, 190, 20
_TEXT, _SMALL, _TITLE, _NAMES = 13, 12, 16, 15
_BLACK, _GREY, _LINE = (20, 20, 20), (110, 110, 110), (205, 205, 205)
_ZOOM = 2  # points are drawn so much larger, then shrunk


class _Classes(NamedTuple):
    """Which classes have a mark: for each row its number or −1, and what the legend says."""

    numbers: np.ndarray
    legend: list[tuple[int, str]]


def draw_map(
    points: np.ndarray,
    labels: np.ndarray | None = None,
    names: Sequence[str] = (),
    title: str = "",
    axes: tuple[str, str] = ("", ""),
    thumbnails: Mapping[int, Image.Image] | None = None,
) -> Image.Image:
    """Draw points on one scale in both directions, or some of them as thumbnails.

    Each class has a colour and a shape of its own, up to 60 of them; of more classes the most
    frequent ones, and the others are grey. The name of a class stands in its middle, where there is
    room.

    Args:
        points: finite, ``[N, 2]``, N >= 1.
        labels: int64 ``[N]``, −1 where unknown; None: of none.
        names: of the classes, in the order of the labels; the rest are called by their number.
        title: above the map, on as many lines as it needs.
        axes: what stands below and beside the map.
        thumbnails: images by row, ``rows_apart``; None: points only.

    Returns:
        RGB.

    Raises:
        InputError: if there is no point, or one of them is not finite.
    """
    places, height = _places(points, THUMBNAIL // 2 if thumbnails else 0)
    classes = _classes(np.full(len(points), -1) if labels is None else labels, names)
    heading = wrapped(title, _WIDTH, _TITLE) if title else []
    top = _GAP + len(heading) * line_height(_TITLE) + (8 if heading else 0)
    left = _GAP + (line_height(_TEXT) + 4 if axes[1] else 0)
    columns = math.ceil(len(classes.legend) * _ENTRY / height) if classes.legend else 0
    width = left + _WIDTH + _GAP + columns * (_LEGEND + _GAP)
    below = line_height(_TEXT) + 6 if axes[0] else 0
    canvas = Image.new("RGB", (width, top + height + below + _GAP), "white")
    pen = ImageDraw.Draw(canvas)
    for number, words in enumerate(heading):
        put_text(pen, (left, _GAP + number * line_height(_TITLE)), words, _TITLE, _BLACK)
    canvas.paste(_cloud(places, classes.numbers, (_WIDTH, height)), (left, top))
    pen.rectangle((left, top, left + _WIDTH - 1, top + height - 1), outline=_LINE)
    shift = np.array([left, top])
    for row, image in (thumbnails or {}).items():
        _put_thumbnail(canvas, pen, image, places[row] + shift, int(classes.numbers[row]))
    if not thumbnails:
        _put_names(pen, places + shift, classes, (left, top, left + _WIDTH, top + height))
    _put_axes(canvas, pen, axes, (left, top, height))
    for number, (mark, text) in enumerate(classes.legend):
        column, line = divmod(number, max(1, height // _ENTRY))
        x = left + _WIDTH + _GAP + column * (_LEGEND + _GAP)
        y = top + line * _ENTRY
        stamp = marker(mark, 5.5)
        canvas.paste(stamp, (x, y + (_ENTRY - stamp.height) // 2), stamp)
        put_text(pen, (x + 20, y + 2), text, _SMALL, _BLACK, _LEGEND - 20)
    return canvas


def rows_apart(points: np.ndarray, seed: int = 0) -> np.ndarray:
    """Which points can be shown as thumbnails that do not cover each other.

    Points are taken in an order drawn by the seed, where there is still room.

    Args:
        points: finite, ``[N, 2]``, N >= 1.
        seed: of the order.

    Returns:
        Rows, int64 ``[M]``, ascending, M >= 1.

    Raises:
        InputError: as of ``draw_map``.
    """
    places, _ = _places(points, THUMBNAIL // 2)
    taken: list[int] = []
    for row in np.random.default_rng(seed).permutation(len(points)):
        away = np.abs(places[taken] - places[row]).max(axis=1) if taken else np.array([np.inf])
        if away.min() >= THUMBNAIL + 4:
            taken.append(int(row))
    return np.sort(np.array(taken, dtype=np.int64))


def _places(points: np.ndarray, more_margin: int) -> tuple[np.ndarray, int]:
    """Pixels of the points in the map, ``[N, 2]``, and the height of the map."""
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
        raise InputError(f"a map needs points [N, 2], N >= 1, got {list(points.shape)}")
    points = np.asarray(points, dtype=np.float64)
    if not np.isfinite(points).all():
        raise InputError("a map needs finite points: leave out rows with NaN or infinite ones")
    low, high = points.min(axis=0), points.max(axis=0)
    span = high - low
    margin = _MARGIN + more_margin
    inner = _WIDTH - 2 * margin
    ratio = span[1] / span[0] if span[0] > 0 else 1.0
    height = round(inner * min(max(ratio, _FLATTEST), 1.0))
    scale = min(inner / span[0] if span[0] > 0 else np.inf, height / span[1] if span[1] else np.inf)
    scale = scale if np.isfinite(scale) else 0.0
    centred = (points - (low + high) / 2) * scale
    size = np.array([_WIDTH, height + 2 * margin])
    return centred * [1, -1] + size / 2, height + 2 * margin


def _classes(labels: np.ndarray, names: Sequence[str]) -> _Classes:
    known, counts = np.unique(labels[labels >= 0], return_counts=True)
    if not len(known):
        return _Classes(np.full(len(labels), -1), [])
    shown = known
    if len(known) > MOST_CLASSES:
        shown = np.sort(known[np.argsort(-counts, kind="stable")[:MOST_CLASSES]])
    table = np.full(int(known.max()) + 1, -1)
    table[shown] = np.arange(len(shown))
    numbers = np.where(labels >= 0, table[np.maximum(labels, 0)], -1)
    count = dict(zip(known.tolist(), counts.tolist(), strict=True))
    legend = [
        (number, f"{_name(label, names)} ({count[label]:,})")
        for number, label in enumerate(shown.tolist())
    ]
    if len(shown) < len(known):
        rest = int(counts.sum()) - sum(count[label] for label in shown.tolist())
        legend.append((-1, f"{len(known) - len(shown):,} other classes ({rest:,})"))
    if unknown := int((labels < 0).sum()):
        legend.append((-1, f"no label ({unknown:,})"))
    return _Classes(numbers, legend)


def _name(label: int, names: Sequence[str]) -> str:
    return str(names[label]) if label < len(names) else str(label)


def _cloud(places: np.ndarray, numbers: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """The points alone."""
    cloud = Image.new("RGB", (size[0] * _ZOOM, size[1] * _ZOOM), "white")
    radius = min(max(12.0 * len(places) ** -0.2, 1.6), 6.0) * _ZOOM
    # In a mixed order: rows of data sets are often sorted by class, and the last would cover all.
    order = np.random.default_rng(0).permutation(len(places))
    for row in sorted(order, key=lambda row: numbers[row] >= 0):  # grey ones first
        stamp = marker(int(numbers[row]), radius)
        x, y = places[row] * _ZOOM - stamp.width / 2
        cloud.paste(stamp, (round(x), round(y)), stamp)
    return cloud.resize(size, Image.Resampling.BOX)


def _put_thumbnail(
    canvas: Image.Image,
    pen: ImageDraw.ImageDraw,
    image: Image.Image,
    place: np.ndarray,
    number: int,
) -> None:
    small = fitted(image, THUMBNAIL - 4)
    left, top = round(place[0] - small.width / 2), round(place[1] - small.height / 2)
    around = left - 2, top - 2, left + small.width + 1, top + small.height + 1
    pen.rectangle(around, fill=class_colour(number))
    canvas.paste(small, (left, top))


def _put_names(
    pen: ImageDraw.ImageDraw,
    places: np.ndarray,
    classes: _Classes,
    box: tuple[int, int, int, int],
) -> None:
    """Write the name of each class at the point in its middle, where it covers no other name.

    It stands a little off where it then covers no point; in clouds, where it always would, on it.
    """
    taken: list[tuple[float, float, float, float]] = []
    for number, text in classes.legend:
        own = places[classes.numbers == number]
        if number < 0 or not len(own):
            continue
        name = text.rpartition(" (")[0]
        wide, high = min(text_width(name, _NAMES), 140), line_height(_NAMES)
        x, y = own[np.abs(own - np.median(own, axis=0)).sum(axis=1).argmin()]
        free = []
        for away in range(0, 9):
            step = (away + 1) // 2 * (1 if away % 2 else -1) * high
            left = min(max(x - wide / 2, box[0] + 4), box[2] - wide - 4)
            top = min(max(y - high / 2 + step, box[1] + 2), box[3] - high - 2)
            area = left - 3, top, left + wide + 3, top + high
            if not any(_cross(area, other) for other in taken):
                free.append(area)
        if free:
            best = next((area for area in free if not _covers(area, places)), free[0])
            taken.append(best)
            place = best[0] + 3, best[1]
            put_text(pen, place, name, _NAMES, _BLACK, 140, halo=(255, 255, 255))


def _covers(area: tuple[float, ...], places: np.ndarray) -> bool:
    """Whether a point, of a few pixels, lies below a text."""
    low, high = np.array(area[:2]) - 6, np.array(area[2:]) + 6
    return bool(((places > low) & (places < high)).all(axis=1).any())


def _cross(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _put_axes(
    canvas: Image.Image,
    pen: ImageDraw.ImageDraw,
    axes: tuple[str, str],
    corner: tuple[int, int, int],
) -> None:
    left, top, height = corner
    if axes[0]:
        put_text(pen, (left, top + height + 4), axes[0], _TEXT, _GREY, _WIDTH)
    if axes[1]:
        side = Image.new("RGB", (height, line_height(_TEXT)), "white")
        put_text(ImageDraw.Draw(side), (0, 0), axes[1], _TEXT, _GREY, height)
        canvas.paste(side.rotate(90, expand=True), (left - line_height(_TEXT) - 4, top))
