"""What is done to videos before a network of a score sees them, to the letter of each protocol."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lit_ssl.arrays import read_array, read_arrays
from lit_ssl.errors import InputError, InputFileNotFoundError, InputTypeError, check_choice

__all__ = ["check_clips", "for_c3d", "for_i3d", "read_mean_clip", "to_uint8"]

# where the mean clip of C3D is cut (the released code's columns too, although 171 are stored)
_CROP = slice(8, 8 + 112)


def to_uint8(video: Tensor, protocol: str = "stylegan_v") -> Tensor:
    """Convert a generator's output to grey levels as a protocol does.

    ``stylegan_v``: ``x * 127.5 + 128``, cut to 0–255; ``tats``: ``(x + 1) / 2 * 255``. Both drop
    the fraction. Half a grey level apart, they are not to be mixed.

    Args:
        video: float, any shape, −1 black to 1 white; values beyond are cut.
        protocol: ``"stylegan_v"`` or ``"tats"``.

    Returns:
        uint8 of the same shape.

    Raises:
        ValueError: Values are NaN, or it is no float tensor.
    """
    check_choice("protocol", protocol, ("stylegan_v", "tats"))
    if not isinstance(video, Tensor) or not video.is_floating_point():
        kind = video.dtype if isinstance(video, Tensor) else type(video).__name__
        raise InputTypeError(f"to_uint8 needs a float tensor in [-1, 1], got {kind}")
    if broken := int(video.isnan().sum()):
        raise InputError(f"to_uint8 got {broken:,} values that are NaN: the generator has diverged")
    video = video.float()
    levels = video * 127.5 + 128 if protocol == "stylegan_v" else (video + 1) / 2 * 255
    return levels.clamp(0, 255).to(torch.uint8)


def check_clips(video: Tensor) -> None:
    """Refuse anything but a batch of clips, uint8 ``[B, T, 3, H, W]``.

    Args:
        video: What was given; neither T, H nor W may be 0.

    Raises:
        TypeError: It is no tensor.
        ValueError: It has another shape or type.
    """
    if not isinstance(video, Tensor):
        raise InputTypeError(
            f"needs a video, a tensor uint8 [B, T, 3, H, W], got {type(video).__name__}"
        )
    shape = list(video.shape)
    if video.ndim != 5 or shape[2] != 3 or video.dtype != torch.uint8 or 0 in shape[1:]:
        swapped = video.ndim == 5 and shape[1] == 3 and shape[2] != 3
        hint = "; move the frames to the front: video.transpose(1, 2)" if swapped else ""
        if video.is_floating_point():
            hint = "; convert it: lit_ssl.metrics.to_uint8(video)"
        raise InputError(f"needs a video, uint8 [B, T, 3, H, W], got {video.dtype} {shape}{hint}")


def for_i3d(video: Tensor, size: int | tuple[int, int] = 224) -> Tensor:
    """Resize and scale a video as DIGAN and TATS do for their I3D.

    Bilinear without antialiasing, ``align_corners`` False, then ``2 x / 255 − 1``.

    Args:
        video: uint8 ``[B, 3, T, H, W]``.
        size: (H, W) of the output, or one number for both.

    Returns:
        float32 ``[B, 3, T, h, w]`` in [−1, 1].

    Source: ``preprocess`` of songweige/TATS at 03bbce1.
    """
    return 2.0 * _resize(video.float(), size, align_corners=False) / 255.0 - 1


def for_c3d(video: Tensor, mean_clip: Tensor) -> Tensor:
    """Bring a video into the form that C3D was trained on.

    Blue, green, red; bilinear to 112 × 112 with ``align_corners`` True, as Chainer resizes; then
    minus the mean clip of its training set.

    Args:
        video: uint8 ``[B, 3, 16, H, W]``.
        mean_clip: float32 ``[3, 16, 112, 112]``, grey levels, as of ``read_mean_clip``.

    Returns:
        float32 ``[B, 3, 16, 112, 112]``.

    Raises:
        ValueError: The clip has another number of frames than the mean.

    Source: ``C3DVersion1UCF101`` of pfnet-research/tgan2 at f892bc4, for a video of [−1, 1] · 128.
    """
    if video.shape[2] != mean_clip.shape[1]:
        raise InputError(
            f"got clips of {video.shape[2]} frames, the mean clip has {mean_clip.shape[1]}"
        )
    resized = _resize(video.flip(1).float(), 112, align_corners=True)
    return resized - mean_clip.to(resized.device)


def read_mean_clip(path: str | Path) -> Tensor:
    """Read the mean clip of C3D's training set.

    Args:
        path: .npy, or .npz with an array ``mean``: ``[3, T, H, W]``, grey levels, blue first; 112 ×
            112, or larger as published (128 × 171), of which rows and columns 8 to 119 are taken.

    Returns:
        float32 ``[3, T, 112, 112]``.

    Raises:
        ValueError: There is no such file, or something else in it.
    """
    path = Path(path)
    if not path.is_file():
        raise InputFileNotFoundError(
            f"no mean clip at {path}; it is the array 'mean' of mean2.npz, which"
            " pfnet-research/tgan2 describes how to get. Nothing is downloaded"
        )
    try:
        is_archive = zipfile.is_zipfile(path)
        array = read_arrays(path)["mean"] if is_archive else read_array(path)
    except (ValueError, KeyError, OSError) as error:
        raise InputError(
            f"{path} is no .npy, and no .npz with an array 'mean' ({error})"
        ) from error
    shape, kind = list(array.shape), array.dtype.kind
    fits = array.ndim == 4 and shape[0] == 3 and (shape[2:] == [112, 112] or min(shape[2:]) >= 120)
    if not fits or kind not in "fiu" or not np.isfinite(array).all():
        raise InputError(
            f"{path}: expected a mean clip, finite numbers [3, T, 112, 112] or larger frames, got"
            f" {array.dtype} {shape}"
        )
    if shape[2:] != [112, 112]:
        array = array[:, :, _CROP, _CROP]
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _resize(video: Tensor, size: int | tuple[int, int], align_corners: bool) -> Tensor:
    """Bilinear, frame by frame; float ``[B, C, T, H, W]``."""
    target = (size, size) if isinstance(size, int) else tuple(size)
    frames = video.transpose(1, 2)
    flat = F.interpolate(
        frames.flatten(0, 1), size=target, mode="bilinear", align_corners=align_corners
    )
    return flat.unflatten(0, frames.shape[:2]).transpose(1, 2).contiguous()
