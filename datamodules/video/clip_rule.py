"""Which frames of a video make up its clips."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lit_ssl.errors import InputError
from lit_ssl.seeding import Stream, sample_seeds
from lit_ssl.video.clips import clip_span, even_clips, random_clip, resampled_frames

__all__ = ["ClipRule"]


@dataclass(frozen=True)
class ClipRule:
    """Clips of so many frames, at equal distances.

    Args:
        length: Frames of a clip, >= 1.
        stride: Every so many frames of the video, or of its resampled frames, is in it, >= 1.
        fps: Frames per second to which videos are resampled first: frame i of them is frame
            ``floor(i · rate / fps)`` of the video. None keeps the rate of each video.

    Raises:
        InputError: One is out of range.
    """

    length: int
    stride: int = 1
    fps: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("num_frames", self.length), ("stride", self.stride)):
            if value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
            if value % 1:  # 2.5 would give clips of 3 frames
                raise InputError(f"{name} must be a whole number, got {value}")
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise InputError(f"fps must be a positive number of frames per second, got {self.fps}")

    @property
    def span(self) -> int:
        """So many frames, of those that are strided over, a clip reaches across."""
        return clip_span(self.length, self.stride)

    def __str__(self) -> str:
        rate = "" if self.fps is None else f" at {self.fps:g} per second"
        strided = "" if self.stride == 1 else f" ({self.length} at a stride of {self.stride})"
        return f"{self.span} frames{rate}{strided}"

    def lengths(self, frames: np.ndarray, rates: np.ndarray) -> np.ndarray:
        """Return how many frames videos have once they are resampled: int64 ``[N]``.

        Args:
            frames: int64 ``[N]``, their frames.
            rates: float64 ``[N]``, their frames per second. Where a video has to be resampled and
                its rate is not known, or so low that each frame would come a thousand times, as in
                a damaged header, it has none.
        """
        if self.fps is None:
            return frames
        known = np.isfinite(rates) & (rates * 1000 > self.fps)
        pairs = np.stack([np.where(known, frames, 0), np.where(known, rates, 1.0)])
        pairs, places = np.unique(pairs, axis=1, return_inverse=True)
        lengths = [len(resampled_frames(int(n), float(rate), self.fps)) for n, rate in pairs.T]
        return np.asarray(lengths, dtype=np.int64)[places.ravel()]

    def random(self, frames: int, rate: float, seed: int) -> np.ndarray:
        """Return the frames of a clip that begins anywhere: int64 ``[length]``.

        Args:
            frames: Frames of the video, which has to be long enough.
            rate: Its frames per second.
            seed: The clip is a function of it.
        """
        numbers = self._numbers(frames, rate)
        start_seed = int(sample_seeds(Stream.CLIP_START, seed)[0])
        return numbers[random_clip(len(numbers), self.length, self.stride, start_seed)]

    def even(self, frames: int, rate: float, count: int) -> np.ndarray:
        """Return the frames of evenly spaced clips, the centre for one: int64 ``[count, length]``.

        Args:
            frames: Frames of the video, which has to be long enough.
            rate: Its frames per second.
            count: Number of clips, >= 1.
        """
        numbers = self._numbers(frames, rate)
        return numbers[even_clips(len(numbers), self.length, self.stride, count)]

    def _numbers(self, frames: int, rate: float) -> np.ndarray:
        if self.fps is None:
            return np.arange(frames, dtype=np.int64)
        return resampled_frames(frames, rate, self.fps)
