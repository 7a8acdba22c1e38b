"""Rows of images, each with a head: a query and its neighbours, a prototype and its images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

from lit_ssl.drawing.lettering import line_height, put_text, wrapped
from lit_ssl.drawing.sheet import TILE_FRAME, Tile, put_tile, tile_height
from lit_ssl.errors import InputError

__all__ = ["Row", "draw_rows"]

_GAP = 10
_TEXT, _TITLE = 12, 15
_BESIDE = 130  # width of the text beside a head, pixels
_BLACK, _GREY, _LINE = (20, 20, 20), (110, 110, 110), (215, 215, 215)


class Row(NamedTuple):
    """A row.

    Attributes:
        tiles: its images, behind the head.
        head: the image that they belong to; None: there is none.
        lines: beside the head; the first is darker than the rest.
    """

    tiles: Sequence[Tile]
    head: Tile | None = None
    lines: Sequence[str] = ()


def draw_rows(
    rows: Sequence[Row], edge: int = 112, title: str = "", columns: Sequence[str] = ()
) -> Image.Image:
    """Draw rows below each other.

    Args:
        rows: at least one; all or none have a head.
        edge: longest edge of an image, pixels, >= 16.
        title: above them, on as many lines as it needs.
        columns: what stands above the heads and above each column of images; empty: nothing.

    Returns:
        RGB.

    Raises:
        InputError: if there is no row, or ``edge`` is too small.
    """
    if not rows or edge < 16:
        raise InputError(f"a picture of rows needs a row and edge >= 16, got {len(rows)}, {edge}")
    step = edge + 2 * TILE_FRAME + _GAP
    has_head = any(row.head is not None for row in rows)
    beside = _BESIDE if any(row.lines for row in rows) else 0
    start = _GAP + (step if has_head else 0) + beside
    start += _GAP if has_head or beside else 0
    width = max(start + max(len(row.tiles) for row in rows) * step + _GAP, 420)
    heading = wrapped(title, width - 2 * _GAP, _TITLE) if title else []
    top = _GAP + len(heading) * line_height(_TITLE) + (_GAP // 2 if heading else 0)
    above = line_height(_TEXT) + 2 if columns else 0
    heights = [
        max(
            *(tile_height(tile, edge) for tile in (row.head, *row.tiles) if tile is not None),
            len(row.lines) * line_height(_TEXT),
            0,
        )
        + _GAP
        for row in rows
    ]
    canvas = Image.new("RGB", (width, top + above + sum(heights)), "white")
    pen = ImageDraw.Draw(canvas)
    for number, line in enumerate(heading):
        put_text(pen, (_GAP, _GAP + number * line_height(_TITLE)), line, _TITLE, _BLACK)
    places = ([_GAP] if has_head else []) + [start + number * step for number in range(99)]
    for place, text in zip(places, columns, strict=False):
        put_text(pen, (place + TILE_FRAME, top), text, _TEXT, _GREY, edge)
    top += above
    for row, height in zip(rows, heights, strict=True):
        if row.head is not None:
            put_tile(canvas, pen, row.head, (_GAP, top), edge)
        left = _GAP + (step if has_head else 0)
        for number, line in enumerate(row.lines):
            colour = _BLACK if number == 0 else _GREY
            y = top + TILE_FRAME + number * line_height(_TEXT)
            put_text(pen, (left, y), line, _TEXT, colour, beside - 6)
        if start > _GAP:
            pen.line([(start - _GAP, top), (start - _GAP, top + height - _GAP)], fill=_LINE)
        for number, tile in enumerate(row.tiles):
            put_tile(canvas, pen, tile, (start + number * step, top), edge)
        top += height
    return canvas
