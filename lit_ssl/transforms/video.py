"""What happens to all frames of a clip alike: resize, crop, mirror."""

from __future__ import annotations

import numpy as np
import torch
import torchvision.transforms.v2.functional as F
from torch import Tensor

from lit_ssl.errors import InputError
from lit_ssl.seeding import Stream, uniform

__all__ = ["covering_side", "evaluation_clip", "frame_size", "training_clip"]

Size = tuple[int, int]


def frame_size(size: int | Size) -> Size:
    """Height and width of frames.

    Args:
        size: pixels, as (height, width), or as one number for squares.

    Raises:
        InputError: a side is no positive whole number.
    """
    sides = (size, size) if isinstance(size, int | float) else tuple(size)
    if len(sides) != 2 or not all(isinstance(side, int) and side >= 2 for side in sides):
        raise InputError(
            f"size must be pixels, as one number or as [height, width], each at least 2, not {size}"
        )
    return sides


def covering_side(height: int, width: int, size: Size) -> int:
    """The smallest shorter side, in pixels, with which a frame of the same aspect covers another.

    Frames are resized by the shorter side; the other one is rounded down.

    Args:
        height: pixels, >= 1.
        width: pixels, >= 1.
        size: (height, width) of the other frame.
    """
    short = min(height, width)
    # in whole numbers: 3 · (64 / 3) is more than 64
    return max(-(-short * size[0] // height), -(-short * size[1] // width))


def evaluation_clip(clip: np.ndarray, size: Size) -> Tensor:
    """Resizes frames until they just cover a size, then cuts out the centre.

    Args:
        clip: uint8 ``[T, H, W, 3]``.
        size: (height, width) of the result.

    Returns:
        uint8 ``[T, 3, height, width]``.
    """
    frames = _covering(clip, size)
    top, left = (frames.shape[2] - size[0]) // 2, (frames.shape[3] - size[1]) // 2
    return _cut(frames, top, left, size)


def training_clip(clip: np.ndarray, size: Size, seed: int, hflip: bool = False) -> Tensor:
    """Resizes frames until they just cover a size, then cuts out a part at random.

    All frames are cut at one place and mirrored together.

    Args:
        clip: uint8 ``[T, H, W, 3]``.
        size: (height, width) of the result.
        seed: the result is a function of clip and seed.
        hflip: mirror half of all clips.

    Returns:
        uint8 ``[T, 3, height, width]``.
    """
    frames = _covering(clip, size)
    down, right, mirrored = uniform(Stream.CLIP_VIEW, seed, np.arange(3))
    top = int(down * (frames.shape[2] - size[0] + 1))
    left = int(right * (frames.shape[3] - size[1] + 1))
    cut = _cut(frames, top, left, size)
    return cut.flip(3) if hflip and mirrored < 0.5 else cut


def _covering(clip: np.ndarray, size: Size) -> Tensor:
    """``[T, H, W, 3]`` → ``[T, 3, h, w]``, the smallest that covers the size."""
    frames = torch.from_numpy(clip).permute(0, 3, 1, 2)
    height, width = frames.shape[2:]
    short, side = min(height, width), covering_side(height, width, size)
    if side == short:
        return frames
    wanted = [height * side // short, width * side // short]
    return F.resize(frames.contiguous(), wanted, antialias=True)


def _cut(frames: Tensor, top: int, left: int, size: Size) -> Tensor:
    return frames[:, :, top : top + size[0], left : left + size[1]].contiguous()
