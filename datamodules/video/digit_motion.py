"""Digits that move and bounce: where they are, and how they are drawn."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lit_ssl.seeding import Stream, uniform

__all__ = ["SPEEDS", "Motion", "box_average", "draw_digits", "draw_motion", "places_of"]

# Per frame, as shares of the room that a digit has: it crosses the frame in 8 to 24 frames.
SPEEDS = (1 / 24, 1 / 8)


class Motion(NamedTuple):
    """How the digits of videos move; pixels, (down, to the right).

    Attributes:
        starts: Upper left corners in frame 0, float64 ``[N, D, 2]``.
        velocities: Pixels per frame until the first bounce, float64 ``[N, D, 2]``.
    """

    starts: np.ndarray
    velocities: np.ndarray


def draw_motion(keys: tuple[int, ...], count: int, num_digits: int, room: float) -> Motion:
    """Draw places and velocities: uniform places and directions, and speeds within ``SPEEDS``.

    Args:
        keys: What they depend on besides the number of a video, such as (seed, split).
        count: N videos; the first ones are the same for every N.
        num_digits: D digits in each.
        room: Pixels between the places at one edge and at the other.
    """
    seed, *rest = keys
    videos, digits = np.arange(count)[:, None], np.arange(num_digits)
    down, right, angle, speed = (
        uniform(seed, Stream.DIGIT_MOTION, *rest, videos, digits, draw) for draw in range(4)
    )
    slow, fast = SPEEDS
    pixels = room * (slow + (fast - slow) * speed)
    direction = np.stack([np.sin(2 * np.pi * angle), np.cos(2 * np.pi * angle)], axis=-1)
    return Motion(room * np.stack([down, right], axis=-1), pixels[..., None] * direction)


def places_of(motion: Motion, video: int, frames: np.ndarray, room: float) -> np.ndarray:
    """Return where the digits of a video are: they keep their speed and bounce off the edges.

    Args:
        motion: Of N videos.
        video: Number of the video.
        frames: Numbers of frames, int64 ``[T]``.
        room: As for ``draw_motion``.

    Returns:
        Upper left corners in pixels, float64 ``[T, D, 2]``, each from 0 to ``room``.
    """
    free = motion.starts[video] + motion.velocities[video] * frames[:, None, None]
    return room - np.abs(free % (2 * room) - room)


def draw_digits(strokes: np.ndarray, places: np.ndarray, size: int) -> np.ndarray:
    """Draw digits at any place between pixels (bilinear); where they meet, the larger value shows.

    Args:
        strokes: Digits times their colours, floats in [0, 255], ``[D, C, s, s]``.
        places: Upper left corners in pixels, ``[T, D, 2]``, from 0 to ``size - s``.
        size: Side of the frames.

    Returns:
        uint8 ``[T, size, size, C]``.
    """
    side = strokes.shape[-1]
    offsets = np.arange(size)[:, None] - np.arange(side)
    weights = offsets - places[..., None, None]  # [T, D, 2, size, s]
    np.abs(weights, out=weights)
    weights = np.maximum(1 - weights, 0).astype(np.float32)
    down, right = weights[:, :, 0, None], weights[:, :, 1, None]
    drawn = (down @ strokes.astype(np.float32) @ right.swapaxes(-1, -2)).max(axis=1)
    return np.rint(drawn).astype(np.uint8).transpose(0, 2, 3, 1)


def box_average(frames: np.ndarray, factor: int) -> np.ndarray:
    """Shrink frames by the mean of each square of pixels, rounded (halves upwards).

    Args:
        frames: uint8 ``[T, H, W, C]``; H and W are multiples of ``factor``.
        factor: Side of a square.

    Returns:
        uint8 ``[T, H / factor, W / factor, C]``.
    """
    if factor == 1:
        return frames
    time, height, width, channels = frames.shape
    squares = frames.reshape(time, height // factor, factor, width // factor, factor, channels)
    sums = squares.sum(axis=(2, 4), dtype=np.int64)
    return ((2 * sums + factor**2) // (2 * factor**2)).astype(np.uint8)
