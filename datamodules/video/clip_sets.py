"""Reads clips of the videos of one split, and serves them as batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lit_ssl.datamodules.loading.batches import Key, Served, split_keys
from lit_ssl.datamodules.reading.skip_corrupt import ReadableRows
from lit_ssl.datamodules.video.clip_rule import ClipRule
from lit_ssl.datamodules.video.sources import Clips, CorruptVideoError
from lit_ssl.transforms.video import Size, evaluation_clip, training_clip

__all__ = ["ClipReader", "EvaluationClips", "TrainingClips"]


class ClipReader:
    """Reads clips of the videos of one split, and says of which one.

    Args:
        clips: The videos, all long enough for the rule.
        rule: Which frames make up a clip.
        skip_corrupt: True reads the next readable video of the split in the place of one that
            cannot be read, and warns once per video; False raises.
    """

    def __init__(self, clips: Clips, rule: ClipRule, skip_corrupt: bool = False) -> None:
        self.clips = clips
        self.rule = rule
        self.readable = ReadableRows(len(clips), "videos", CorruptVideoError, skip_corrupt)

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def folder(self) -> str | None:
        """Folder of the videos; None where they lie in memory."""
        return getattr(self.clips, "folder", None)

    @property
    def num_corrupt(self) -> int:
        """Number of videos found unreadable so far, by this process and its workers."""
        return int(self.readable.corrupt.sum())

    def name(self, row: int) -> str | None:
        """Return the path of a video below the folder of its data set, None if it has none.

        Args:
            row: of the video.
        """
        return self.clips.name(row)

    def select(self, rows: np.ndarray) -> ClipReader:
        """Return a reader of the videos at ``rows`` (int64 ``[N]``), in that order.

        Args:
            rows: their numbers.
        """
        return ClipReader(self.clips.select(rows), self.rule, self.readable.skip)

    def read_random(self, row: int, seed: int) -> tuple[np.ndarray, int]:
        """Return a clip that begins anywhere, and its row.

        Args:
            row: Row of the video in the split.
            seed: Where it begins is a function of it.

        Returns:
            uint8 ``[T, H, W, 3]`` and the row, which is another than asked for where that cannot be
            read.

        Raises:
            CorruptVideoError: The video (or, when skipping, every video) is unreadable.
        """

        def read(row: int) -> np.ndarray:
            frames, rate = self._facts(row)
            return self.clips.read_clip(row, self.rule.random(frames, rate, seed))

        return self.readable.read(row, read, self.name)

    def read_even(self, row: int, count: int) -> tuple[np.ndarray, int]:
        """Return evenly spaced clips one after the other, uint8 ``[count · T, H, W, 3]``.

        As ``read_random``; of one video in one go.

        Args:
            row: Row of the video in the split.
            count: Number of clips; one is from the centre.
        """

        def read(row: int) -> np.ndarray:
            frames, rate = self._facts(row)
            return self.clips.read_clip(row, self.rule.even(frames, rate, count).ravel())

        return self.readable.read(row, read, self.name)

    def _facts(self, row: int) -> tuple[int, float]:
        return int(self.clips.frames[row]), float(self.clips.fps[row])


class TrainingClips(Served):
    """Clips that begin anywhere, cropped at random: a function of the seed of each sample.

    Args:
        reader: Videos of the training split.
        size: Height and width.
        hflip: Mirror half of the clips.
    """

    def __init__(self, reader: ClipReader, size: Size, hflip: bool) -> None:
        super().__init__(reader)
        self.size = size
        self.hflip = hflip

    def __getitems__(self, keys: Sequence[Key]) -> tuple[Tensor, Tensor]:
        """Return (uint8 ``[B, T, 3, H, W]``, rows)."""
        videos, rows = [], []
        for row, seed in zip(*split_keys(keys), strict=True):
            clip, read = self.reader.read_random(int(row), int(seed))
            videos.append(training_clip(clip, self.size, int(seed), self.hflip))
            rows.append(read)
        return torch.stack(videos), torch.tensor(rows)


class EvaluationClips(Served):
    """Evenly spaced clips from the centre of the frames.

    A video's clips follow each other in one batch, so that B videos are ``B · count`` clips.

    Args:
        reader: Videos of one split.
        size: Height and width.
        count: Clips of each video; one is the middle.
    """

    def __init__(self, reader: ClipReader, size: Size, count: int = 1) -> None:
        super().__init__(reader)
        self.size = size
        self.count = count

    def __getitems__(self, keys: Sequence[Key]) -> tuple[Tensor, Tensor]:
        """Return (uint8 ``[B · count, T, 3, H, W]``, rows)."""
        videos, rows = [], []
        for row in split_keys(keys)[0]:
            frames, read = self.reader.read_even(int(row), self.count)
            clips = evaluation_clip(frames, self.size)
            videos.append(clips.unflatten(0, (self.count, -1)))
            rows.append(read)
        return torch.cat(videos), torch.tensor(rows).repeat_interleave(self.count)
