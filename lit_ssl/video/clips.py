"""Which frames of a video form a clip: arithmetic on frame numbers, nothing is read.

A clip of ``length`` frames with a ``stride`` spans ``(length − 1) · stride + 1`` frames.
"""

from __future__ import annotations

import math

import numpy as np

from lit_ssl.errors import InputError
from lit_ssl.seeding import uniform

__all__ = ["all_clips", "clip_span", "even_clips", "random_clip", "resampled_frames"]


def clip_span(length: int, stride: int) -> int:
    """Return how many frames of its video a clip spans, from its first to its last.

    Args:
        length: Frames of the clip, >= 1.
        stride: Take every so many-th frame, >= 1.

    Raises:
        InputError: A value is below 1.
    """
    _at_least_one(length=length, stride=stride)
    return (length - 1) * stride + 1


def random_clip(frames: int, length: int, stride: int, seed: int) -> np.ndarray:
    """Return a clip whose start is uniform over all that fit, a pure function of the seed.

    Args:
        frames: Frames of the video.
        length: Frames of the clip, >= 1.
        stride: Take every so many-th frame, >= 1.
        seed: Of this draw, as ``lit_ssl.seeding.sample_seeds`` gives them.

    Returns:
        Frame numbers, int64 ``[length]``.

    Raises:
        InputError: The video is shorter than the clip, or a value is below 1.
    """
    starts = _last_start(frames, length, stride) + 1
    return int(uniform(seed)[0] * starts) + _frames(length, stride)


def even_clips(frames: int, length: int, stride: int, count: int) -> np.ndarray:
    """Return clips that are spread evenly from the first frame to the last.

    Args:
        frames: Frames of the video.
        length: Frames of a clip, >= 1.
        stride: Take every so many-th frame, >= 1.
        count: Clips, >= 1; one lies in the middle. Where fewer starts fit, some come twice.

    Returns:
        Frame numbers, int64 ``[count, length]``.

    Raises:
        InputError: The video is shorter than a clip, or a value is below 1.
    """
    _at_least_one(count=count)
    last = _last_start(frames, length, stride)
    starts = np.arange(count, dtype=np.int64) * last // (count - 1) if count > 1 else last // 2
    return np.reshape(starts, (count, 1)) + _frames(length, stride)


def all_clips(
    frames: int, length: int, step: int, fps: float | None = None, target_fps: float | None = None
) -> np.ndarray:
    """Return every clip of consecutive frames whose start is a multiple of ``step``.

    The clips of torchvision's ``VideoClips``.

    Args:
        frames: Frames of the video, >= 0.
        length: Frames of a clip, >= 1.
        step: From the start of a clip to that of the next, in frames at ``target_fps``, >= 1.
        fps: Frames per second of the video; needed with ``target_fps``.
        target_fps: Resample to so many frames per second first; None: take frames as they are.

    Returns:
        Frame numbers, int64 ``[K, length]``; K = 0 where no clip fits.

    Raises:
        InputError: A value is out of range.
    """
    _at_least_one(length=length, step=step)
    if target_fps is None:
        numbers = np.arange(frames, dtype=np.int64)
    elif fps is None:
        raise InputError("target_fps needs fps, the frames per second of the video")
    else:
        numbers = resampled_frames(frames, fps, target_fps)
    starts = np.arange(0, max(len(numbers) - length + 1, 0), step, dtype=np.int64)
    return numbers[starts[:, None] + np.arange(length)]


def resampled_frames(frames: int, fps: float, target_fps: float) -> np.ndarray:
    """Return the frames that make a video of another rate: frame i is ``floor(i · fps / target)``.

    There are ``frames · target / fps`` of them, rounded down; where fps is a multiple of the target
    rounded up, so that every n-th frame is taken to the end. Higher rates repeat frames.

    Args:
        frames: Frames of the video, >= 0.
        fps: Its frames per second, > 0.
        target_fps: Frames per second to have, > 0.

    Returns:
        Frame numbers, int64 ``[T]``.

    Raises:
        InputError: A rate is not a positive number.
    """
    for name, rate in (("fps", fps), ("target_fps", target_fps)):
        if not (math.isfinite(rate) and rate > 0):
            raise InputError(f"{name} must be a positive number of frames per second, not {rate}")
    whole = (fps / target_fps).is_integer()
    count = math.ceil(frames * target_fps / fps) if whole else int(frames * target_fps / fps)
    numbers = np.floor(np.arange(count, dtype=np.float64) * fps / target_fps)
    return numbers.astype(np.int64)


def _frames(length: int, stride: int) -> np.ndarray:
    return np.arange(length, dtype=np.int64) * stride


def _last_start(frames: int, length: int, stride: int) -> int:
    span = clip_span(length, stride)
    if frames < span:
        raise InputError(
            f"a clip of {length} frames with stride {stride} spans {span} frames, and the video has"
            f" {frames}: take fewer frames, a smaller stride, or leave short videos out"
        )
    return frames - span


def _at_least_one(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise InputError(f"{name} must be at least 1, not {value}")
