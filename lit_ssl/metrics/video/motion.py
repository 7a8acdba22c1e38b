"""How much videos move, whatever they show."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_ssl.errors import InputError
from lit_ssl.metrics.video.preparation import check_clips

__all__ = ["motion_per_video", "motion_statistic"]


def motion_statistic(video: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring frames, in grey levels.

    Beside a Fréchet distance it shows what that hardly sees: distances of I3D features favour the
    quality of single frames over motion (arXiv 2404.12391). A value far below that of real videos
    means frozen videos, one far above it flicker.

    Args:
        video: uint8 ``[B, T, 3, H, W]``, T >= 2, B >= 1.

    Returns:
        float64, 0-d, from 0 (all frames are equal) to 255.

    Raises:
        ValueError: Another shape or dtype, or there are no neighbours.
    """
    if not len(video):
        raise InputError("motion_statistic got no video")
    return motion_per_video(video).mean()


def motion_per_video(video: Tensor) -> Tensor:
    """The [`motion_statistic`][lit_ssl.metrics.motion_statistic] of each video: float64 ``[B]``.

    Args:
        video: uint8 ``[B, T, 3, H, W]``, T ≥ 2.

    Raises:
        ValueError: They are no such videos.
    """
    check_clips(video)
    if video.shape[1] < 2:
        raise InputError("motion needs videos of at least 2 frames, got 1")
    # frame by frame: 2 bytes for each pixel of a batch are more than needed
    pairs = zip(video.unbind(1), video[:, 1:].unbind(1), strict=False)
    steps = [(b.short() - a.short()).abs().double().mean(dim=(1, 2, 3)) for a, b in pairs]
    return torch.stack(steps).mean(dim=0)
