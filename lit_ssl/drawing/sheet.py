"""Sheets of images side by side, with captions and frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

from lit_ssl.drawing.lettering import line_height, put_text, text_width, wrapped
from lit_ssl.drawing.thumbnails import GROUND, fitted
from lit_ssl.errors import InputError

__all__ = ["TILE_FRAME", "Tile", "draw_sheet", "put_tile", "tile_height"]

_GAP = 10
TILE_FRAME = 4  # pixels, outside of the image
_TEXT, _TITLE = 12, 15
_BLACK = (20, 20, 20)
_LEAST = 420  # pixels of width that a title may take where the images are fewer


class Tile(NamedTuple):
    """An image of a sheet.

    Attributes:
        image: of any mode and size.
        caption: below it; each of its lines is cut in its middle to the width of the image's
            place.
        frame: colour of a frame around it, RGB in 0 … 255; None: no frame.
    """

    image: Image.Image
    caption: str = ""
    frame: tuple[int, int, int] | None = None


def draw_sheet(
    tiles: Sequence[Tile], columns: int, edge: int = 128, title: str = ""
) -> Image.Image:
    """Put images side by side, row after row.

    Each keeps its aspect, on a neutral ground of ``edge`` by ``edge`` pixels.

    Args:
        tiles: at least one.
        columns: images in a row, >= 1.
        edge: longest edge of an image in the sheet, pixels, >= 16.
        title: above them, on as many lines as it needs.

    Returns:
        RGB.

    Raises:
        InputError: if there is no tile, or a number lies outside its range.
    """
    if not tiles or columns < 1 or edge < 16:
        raise InputError(
            "a sheet needs at least one tile, columns >= 1 and edge >= 16, got "
            f"{len(tiles)} tiles, {columns} and {edge}"
        )
    columns = min(columns, len(tiles))
    step = edge + 2 * TILE_FRAME + _GAP
    wide = columns * step + _GAP
    if title:
        longest = max(text_width(line, _TITLE) for line in title.splitlines())
        wide = max(wide, min(_LEAST, longest + 2 * _GAP))
    heading = wrapped(title, wide - 2 * _GAP, _TITLE) if title else []
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    heights = [max(tile_height(tile, edge) for tile in row) + _GAP for row in rows]
    top = _GAP + len(heading) * line_height(_TITLE) + (_GAP // 2 if heading else 0)
    canvas = Image.new("RGB", (wide, top + sum(heights)), "white")
    pen = ImageDraw.Draw(canvas)
    for number, line in enumerate(heading):
        put_text(pen, (_GAP, _GAP + number * line_height(_TITLE)), line, _TITLE, _BLACK)
    for row, height in zip(rows, heights, strict=True):
        for number, tile in enumerate(row):
            put_tile(canvas, pen, tile, (_GAP + number * step, top), edge)
        top += height
    return canvas


def tile_height(tile: Tile, edge: int) -> int:
    """How many pixels a tile takes from its top to its last line.

    Args:
        tile: of a sheet.
        edge: longest edge of an image in the sheet, pixels.
    """
    return edge + 2 * TILE_FRAME + len(tile.caption.splitlines()) * line_height(_TEXT)


def put_tile(
    canvas: Image.Image,
    pen: ImageDraw.ImageDraw,
    tile: Tile,
    corner: tuple[int, int],
    edge: int,
) -> None:
    """Draw one image with its frame and caption.

    Args:
        canvas: the picture.
        pen: of the picture.
        tile: what to draw.
        corner: left and top of its place, pixels.
        edge: longest edge of the image, pixels.
    """
    left, top = corner[0] + TILE_FRAME, corner[1] + TILE_FRAME
    if tile.frame is not None:
        around = (
            left - TILE_FRAME,
            top - TILE_FRAME,
            left + edge + TILE_FRAME - 1,
            top + edge + TILE_FRAME - 1,
        )
        pen.rectangle(around, fill=tile.frame)
    pen.rectangle((left, top, left + edge - 1, top + edge - 1), fill=GROUND)
    image = fitted(tile.image, edge)
    canvas.paste(image, (left + (edge - image.width) // 2, top + (edge - image.height) // 2))
    below = top + edge + TILE_FRAME + 1
    for number, line in enumerate(tile.caption.splitlines()):
        place = left, below + number * line_height(_TEXT)
        put_text(pen, place, line, _TEXT, _BLACK, edge, keep_end=True)
