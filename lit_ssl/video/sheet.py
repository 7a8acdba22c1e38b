"""Videos as one picture: a row for each, time to the right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lit_ssl.errors import InputError, InputTypeError
from lit_ssl.files import write_file

__all__ = ["contact_sheet", "write_png"]

_GAP = 2
_MIN_CELL = 64  # of the longer edge of a frame, where no zoom is given
_MAX_CAPTION = 200
_TEXT, _NUMBER = 13, 11
_BLACK, _GREY = (0, 0, 0), (110, 110, 110)


def contact_sheet(
    videos: Tensor | np.ndarray,
    captions: Sequence[str] = (),
    max_frames: int = 16,
    zoom: int | None = None,
) -> np.ndarray:
    """Put frames of videos on a white sheet, with their numbers above and a caption at the left.

    Args:
        videos: uint8 ``[N, T, 3, H, W]``, N and T at least 1.
        captions: One for each video, or none. What is wider than 200 pixels is cut.
        max_frames: Of longer videos so many frames are shown, at even distances, the first and the
            last among them.
        zoom: Every pixel becomes ``zoom`` × ``zoom`` of them, without smoothing; by default as many
            as give small frames a longer edge of 64.

    Returns:
        The picture, uint8 ``[height, width, 3]``.

    Raises:
        InputError: The shape, the number of captions, ``max_frames`` or ``zoom`` will not do.
            Floats are an ``InputTypeError``.
    """
    frames = _checked(videos)
    count, length, height, width = frames.shape[:4]
    if captions and len(captions) != count:
        raise InputError(f"{len(captions)} captions for {count} videos: give one for each, or none")
    for name, value in (("max_frames", max_frames), ("zoom", 1 if zoom is None else zoom)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, not {value}")
    factor = -(-_MIN_CELL // max(height, width)) if zoom is None else zoom
    chosen = np.linspace(0, length - 1, min(length, max_frames)).round().astype(np.int64)
    cells = frames[:, chosen].repeat(factor, axis=2).repeat(factor, axis=3)
    texts = [_fitting(text) for text in captions]
    margin = max((text.width for text in texts), default=0)
    margin += 2 * _GAP if margin else 0
    return _drawn(cells, texts, chosen, margin)


def write_png(path: str | Path, picture: np.ndarray, overwrite: bool = False) -> Path:
    """Write a picture as PNG, all or nothing.

    Args:
        path: File to write, ``.png``; its folder is made.
        picture: uint8 ``[height, width, 3]``.
        overwrite: Whether a file at the path may be replaced.

    Returns:
        The path.

    Raises:
        InputError: The path does not end in ``.png``, or a file is in the way.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"{path}: the file must end in .png")
    if path.is_dir() or (path.exists() and not overwrite):
        raise InputError(f"{path} is there already: give another path, or overwrite=True")
    image = Image.fromarray(picture)
    return write_file(path, lambda file: image.save(file, format="PNG"), binary=True)


class _Text(NamedTuple):
    text: str
    width: int


def _checked(videos: Tensor | np.ndarray) -> np.ndarray:
    """The videos as uint8 ``[N, T, H, W, 3]``."""
    kind = getattr(videos, "dtype", type(videos).__name__)
    if kind not in (torch.uint8, np.uint8):
        raise InputTypeError(
            f"videos to show must be uint8, 0 to 255, not {kind}: scale and round them first"
        )
    if videos.ndim != 5 or videos.shape[2] != 3 or 0 in videos.shape:
        raise InputError(f"videos to show must be [N, T, 3, H, W], not {list(videos.shape)}")
    array = videos.cpu().numpy() if isinstance(videos, Tensor) else videos
    return array.transpose(0, 1, 3, 4, 2)


def _fitting(caption: str) -> _Text:
    """One line that is not wider than a caption may be."""
    font = ImageFont.load_default(_TEXT)
    text = " ".join(str(caption).encode(errors="replace").decode().split())
    shown = text
    while text and font.getlength(shown) > _MAX_CAPTION:
        text = text[:-1]
        shown = text.rstrip() + "…"
    return _Text(shown, int(-(-font.getlength(shown) // 1)))


def _drawn(
    cells: np.ndarray, captions: Sequence[_Text], numbers: np.ndarray, margin: int
) -> np.ndarray:
    """Cells ``[N, K, h, w, 3]`` below the numbers of their frames, right of the captions."""
    count, columns, height, width = cells.shape[:4]
    # A caption is higher than a frame may be.
    row = max(height, _TEXT + 4 if captions else 0) + _GAP
    head = _NUMBER + 2 * _GAP
    canvas = Image.new(
        "RGB", (margin + columns * (width + _GAP) + _GAP, head + count * row + _GAP), "white"
    )
    pen = ImageDraw.Draw(canvas)
    small, large = ImageFont.load_default(_NUMBER), ImageFont.load_default(_TEXT)
    lefts = margin + _GAP + np.arange(columns) * (width + _GAP)
    if small.getlength(str(numbers[-1])) <= width:
        for left, number in zip(lefts, numbers, strict=True):
            pen.text((int(left) + width // 2, _GAP), str(number), _GREY, small, anchor="mt")
    for index, frames in enumerate(cells):
        top = head + index * row
        if captions:
            place = (_GAP, top + (row - _GAP) // 2)
            pen.text(place, captions[index].text, _BLACK, large, anchor="lm")
        for left, pixels in zip(lefts, frames, strict=True):
            corner = top + (row - _GAP - height) // 2
            canvas.paste(Image.fromarray(np.ascontiguousarray(pixels)), (int(left), corner))
    return np.array(canvas)
