"""The clips of a folder of videos that a score is of: which, from where, at what size."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_ssl.errors import InputError, listed
from lit_ssl.seeding import Stream, keyed_permutation, sample_seeds
from lit_ssl.video.clip_index import ClipIndex, build_clip_index
from lit_ssl.video.clips import clip_span, random_clip
from lit_ssl.video.frames import UnreadableVideo
from lit_ssl.video.listing import find_videos
from lit_ssl.video.readers import VideoReader

__all__ = ["ClipFolder", "common_size", "indexed_videos", "read_fitted"]


@dataclass
class ClipFolder:
    """One clip of each video of a folder, in an order drawn by the seed.

    Attributes:
        index: all its videos.
        length: frames of a clip.
        stride: every so many-th frame.
        max_items: clips at most; None: of all videos.
        seed: of the order, and of random starts.
        random_start: Whether clips start anywhere, as those of real videos do, not at frame 0.
        used: clips that were read.
        unreadable: videos that could not be.
        short: videos that are shorter than a clip.
    """

    index: ClipIndex
    length: int
    stride: int
    max_items: int | None
    seed: int
    random_start: bool
    used: int = 0
    unreadable: list[str] = field(default_factory=list)
    short: list[str] = field(default_factory=list)

    def batches(self, reader: VideoReader, size: tuple[int, int], count: int) -> Iterator[Tensor]:
        """Read the clips; where a video cannot be read, another one takes its place.

        Args:
            reader: reads them.
            size: (H, W) that they are brought to.
            count: clips of a batch.

        Yields:
            uint8 ``[B, T, 3, H, W]``.
        """
        clips: list[np.ndarray] = []
        for row in keyed_permutation(len(self.index), Stream.VIDEO_SCORES, 2, self.seed):
            if self.used == self.max_items:
                break
            clip = self._read(reader, int(row), size)
            if clip is not None:
                self.used += 1
                clips.append(clip)
            if len(clips) == count:
                yield _as_tensor(clips)
                clips = []
        if clips:
            yield _as_tensor(clips)

    def _read(self, reader: VideoReader, row: int, size: tuple[int, int]) -> np.ndarray | None:
        name, frames = self.index.paths[row], int(self.index.frames[row])
        if frames == 0:
            self.unreadable.append(name)
            return None
        if frames < clip_span(self.length, self.stride):
            self.short.append(name)
            return None
        seed = int(sample_seeds(Stream.VIDEO_SCORES, 3, self.seed, row)[0])
        start = frames if self.random_start else clip_span(self.length, self.stride)
        numbers = random_clip(start, self.length, self.stride, seed)
        have = int(self.index.height[row]), int(self.index.width[row])
        try:
            return read_fitted(reader, self.index.root / name, numbers, have, size)
        except UnreadableVideo:
            self.unreadable.append(name)
            return None

    def check(self, kind: str) -> None:
        """Refuse a folder without two clips.

        Args:
            kind: what messages call the folder, ``real`` or ``generated``.

        Raises:
            InputError: It says why there are not more.
        """
        if self.used < 2:
            lacking = [f"{len(self.unreadable):,} cannot be read"] * bool(self.unreadable)
            span = clip_span(self.length, self.stride)
            lacking += [f"{len(self.short):,} have fewer than {span} frames"] * bool(self.short)
            raise InputError(
                f"the {kind} folder {self.index.root} gives {self.used} clips, 2 are needed:"
                f" {' and '.join(lacking) or 'add videos, or raise --max-items'}"
            )

    def card(self) -> dict[str, Any]:
        """What was read, for a card."""
        return {
            "folder": str(self.index.root),
            "videos": len(self.index),
            "clips": self.used,
            "unreadable": len(self.unreadable),
            "shorter_than_a_clip": len(self.short),
            "start": "random" if self.random_start else "first frame",
        }


def indexed_videos(folder: str | Path) -> ClipIndex:
    """Find the videos below a folder, as data modules and ``video-cache`` do.

    Args:
        folder: the folder; those below it count too.

    Raises:
        InputError: There is no such folder, or no video in it.
    """
    root = Path(folder)
    found = find_videos(root)
    with warnings.catch_warnings():  # counted and told with the scores
        warnings.filterwarnings("ignore", message=".*cannot be read")
        return build_clip_index(root, found)


def common_size(index: ClipIndex) -> tuple[int, int]:
    """The (H, W) that all videos of a folder have.

    Args:
        index: of the videos; those that cannot be read do not count.

    Raises:
        InputError: They have several.
    """
    readable = index.frames > 0
    pairs = zip(index.height[readable].tolist(), index.width[readable].tolist(), strict=True)
    sizes = sorted(set(pairs))
    if len(sizes) > 1:
        found = listed([f"{height}x{width}" for height, width in sizes])
        raise InputError(
            f"the generated videos in {index.root} have several sizes ({found}): say by --size at"
            " which one to compare, such as --size 64 or --size 64x128"
        )
    if not sizes:
        raise InputError(f"none of the {len(index):,} videos in {index.root} can be read")
    return sizes[0]


def read_fitted(
    reader: VideoReader,
    path: Path,
    frames: np.ndarray,
    have: tuple[int, int],
    size: tuple[int, int],
) -> np.ndarray:
    """Read frames, resized to cover a size with their shape kept, and cut in the middle.

    Args:
        reader: reads them.
        path: The file.
        frames: Numbers, int64 ``[T]``.
        have: (H, W) of the video.
        size: (H, W) to have.

    Returns:
        uint8 ``[T, H, W, 3]``.

    Raises:
        UnreadableVideo: The reader cannot.
    """
    (h, w), (height, width) = have, size
    shorter = max(height, -(-width * h // w)) if h <= w else max(width, -(-height * w // h))
    clip = reader.read(path, frames, shorter=None if have == size else shorter)
    top, left = (clip.shape[1] - height) // 2, (clip.shape[2] - width) // 2
    return clip[:, top : top + height, left : left + width]


def _as_tensor(clips: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(clips)).permute(0, 1, 4, 2, 3)
