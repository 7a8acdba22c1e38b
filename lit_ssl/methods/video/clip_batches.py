"""Batches of clips as a level of a cascade takes them."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from lit_ssl.contracts.batches import check_labels, describe, parts_of
from lit_ssl.errors import InputError

__all__ = ["clip_batch", "drawn_window"]


class Level(Protocol):
    """What a level says of its videos."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""

    @property
    def num_frames(self) -> int:
        """Frames of whole videos."""

    @property
    def frames(self) -> int:
        """Frames that a training step judges."""

    @property
    def resolution(self) -> tuple[int, int]:
        """Height and width in pixels."""


def clip_batch(batch: Any, level: Level, whole: bool = False) -> tuple[Tensor, Tensor]:
    """Videos ``[B, T, 3, H, W]`` and labels ``[B]`` of a batch; 0 where a level has one class.

    Args:
        batch: ``(video, labels)``.
        level: what the videos are for.
        whole: need as many frames as whole videos have, as evaluations do.

    Raises:
        InputError: if it is of another form, size or length, or labels lie out of range.
    """
    video, labels, _ = parts_of(batch)
    if not isinstance(video, Tensor) or video.ndim != 5 or video.shape[2] != 3 or labels is None:
        raise InputError(
            "a cascade of video GANs needs batches (video [B, T, 3, H, W], labels [B]), got"
            f" {describe(batch)}: use a data module of videos"
        )
    if tuple(video.shape[3:]) != tuple(level.resolution):
        height, width = level.resolution
        raise InputError(
            f"videos have {video.shape[3]} x {video.shape[4]} pixels, but this level has"
            f" {height} x {width}: give the data module size [{height}, {width}]"
        )
    wanted = level.num_frames if whole else level.frames
    if video.shape[1] < wanted:
        option = "eval_frames" if whole else "num_frames"
        raise InputError(
            f"clips have {video.shape[1]} frames, but this level needs {wanted}: give the data"
            f" module {option}: {wanted}"
        )
    if not video.is_floating_point():
        raise InputError("videos must be floats in [-1, 1]: the data module has to scale them")
    if level.num_classes == 1:
        return video, torch.zeros_like(labels)
    check_labels(labels, level.num_classes, unknown=False)
    return video, labels


def drawn_window(video: Tensor, frames: int) -> Tensor:
    """So many consecutive frames of each video from a random one on, the same for all.

    Args:
        video: ``[B, T, 3, H, W]``, T ≥ ``frames``.
        frames: how many.
    """
    last = video.shape[1] - frames
    start = int(torch.randint(last + 1, ())) if last else 0
    return video[:, start : start + frames]
