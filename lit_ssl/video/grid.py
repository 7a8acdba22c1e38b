"""Videos side by side, as one video."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lit_ssl.errors import InputError

__all__ = ["video_grid"]

_SHOWN = 112  # pixels that the shorter side of a small video is enlarged to, at least
_GAP = 2
_GREY = 128


def video_grid(videos: Tensor, columns: int | None = None, zoom: int | None = None) -> Tensor:
    """Put videos side by side, row after row, on grey.

    Args:
        videos: uint8 ``[N, T, 3, H, W]``, N >= 1.
        columns: Videos in a row; None: as many as make the grid about square.
        zoom: Whole number by which pixels are enlarged, without smoothing; None: so much that
            small videos can be seen.

    Returns:
        uint8 ``[T, 3, H', W']``.

    Raises:
        InputError: Not of this form.
    """
    if videos.dtype != torch.uint8 or videos.dim() != 5 or not len(videos) or videos.shape[2] != 3:
        raise InputError(
            "a grid needs videos as uint8 [N, T, 3, H, W], N >= 1, got "
            f"{videos.dtype} {list(videos.shape)}"
        )
    if (columns is not None and columns < 1) or (zoom is not None and zoom < 1):
        raise InputError(f"columns and zoom must be at least 1, not {columns} and {zoom}")
    count, frames, _, height, width = videos.shape
    zoom = max(1, math.ceil(_SHOWN / min(height, width))) if zoom is None else zoom
    columns = columns or math.ceil(math.sqrt(count * height / width))
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    tall, wide = height * zoom, width * zoom
    size = rows * tall + (rows - 1) * _GAP, columns * wide + (columns - 1) * _GAP
    grid = videos.new_full((frames, 3, *size), _GREY)
    for number, video in enumerate(videos):
        top, left = number // columns * (tall + _GAP), number % columns * (wide + _GAP)
        large = video.repeat_interleave(zoom, dim=-2).repeat_interleave(zoom, dim=-1)
        grid[..., top : top + tall, left : left + wide] = large
    return grid
