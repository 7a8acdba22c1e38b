"""Videos as rows, of which clips are read: in files, in a cache, in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lit_ssl.datamodules.reading.images import PackedStrings
from lit_ssl.errors import InputError
from lit_ssl.transforms.video import Size, covering_side
from lit_ssl.video.frames import UnreadableVideo
from lit_ssl.video.readers import VideoReader

if TYPE_CHECKING:
    from lit_ssl.video.cache import VideoCache
    from lit_ssl.video.clip_index import ClipIndex

__all__ = ["ArrayClips", "CachedClips", "Clips", "CorruptVideoError", "FileClips"]


class CorruptVideoError(InputError, RuntimeError):
    """A video cannot be read: missing, broken, or no video at all."""


class Clips(ABC):
    """Videos with random access to their frames.

    Attributes:
        frames: int64 ``[N]``: how many frames each video has; 0 where it cannot be read.
        fps: float64 ``[N]``: how many of them are shown per second; 0 where it is not known.
    """

    frames: np.ndarray
    fps: np.ndarray

    def __len__(self) -> int:
        return len(self.frames)

    @abstractmethod
    def read_clip(self, row: int, frames: np.ndarray) -> np.ndarray:
        """Return some frames of a video.

        Args:
            row: Row of the video.
            frames: int64 ``[T]``, numbers of frames from 0, in any order.

        Returns:
            uint8 ``[T, H, W, 3]``.

        Raises:
            CorruptVideoError: They cannot be read.
        """

    @abstractmethod
    def name(self, row: int) -> str | None:
        """Return the path of a video below the folder of its data set, None if it has none.

        Args:
            row: of the video.
        """

    @abstractmethod
    def select(self, rows: np.ndarray) -> Clips:
        """Return the videos at ``rows`` (int64 ``[N]``), in that order.

        Args:
            rows: their numbers.
        """


class ArrayClips(Clips):
    """Videos of one size and length in memory.

    Args:
        videos: uint8 ``[N, T, H, W, 3]``.
        fps: Frames per second.

    Raises:
        InputError: The videos have another form.
    """

    def __init__(self, videos: np.ndarray, fps: float = 25.0) -> None:
        if videos.dtype != np.uint8 or videos.ndim != 5 or videos.shape[-1] != 3:
            raise InputError(
                "videos in memory must be uint8 [N, T, H, W, 3], got"
                f" {videos.dtype} {list(videos.shape)}"
            )
        self.videos = videos
        self.frames = np.full(len(videos), videos.shape[1], dtype=np.int64)
        self.fps = np.full(len(videos), fps, dtype=np.float64)

    def read_clip(self, row: int, frames: np.ndarray) -> np.ndarray:
        """Return some frames of a video as uint8 ``[T, H, W, 3]``."""
        return self.videos[row][frames]

    def name(self, row: int) -> None:
        """Return None: videos in memory have no file names."""

    def select(self, rows: np.ndarray) -> ArrayClips:
        """Return a copy of the videos at ``rows`` (int64 ``[N]``), in that order."""
        chosen = ArrayClips(self.videos[rows])
        chosen.fps = self.fps[rows]
        return chosen


class FileClips(Clips):
    """Videos in files below one folder.

    Args:
        index: What is known of them.
        reader: Reads them.
        cover: (height, width): frames are resized, aspect kept, as far as they still cover it;
            None: they keep their size.
        base: Folder below that of the index which all are in; rows are named below it.
    """

    def __init__(
        self, index: ClipIndex, reader: VideoReader, cover: Size | None = None, base: str = ""
    ) -> None:
        self.folder = str(index.root / base)
        self.names = _names_below(base, index.paths)
        self.frames, self.fps = index.frames, index.fps
        self._sides = np.stack([index.height, index.width], axis=1)
        self.reader = reader
        self.cover = cover

    def read_clip(self, row: int, frames: np.ndarray) -> np.ndarray:
        """Decode some frames of a video to uint8 ``[T, H, W, 3]``."""
        path = Path(self.folder, self.names[row])
        height, width = map(int, self._sides[row])
        shorter = None if self.cover is None else covering_side(height, width, self.cover)
        try:
            return self.reader.read(path, frames, shorter)
        except UnreadableVideo as error:
            raise CorruptVideoError(
                f"{error}. Repair or remove the file, or set on_corrupt: skip to use the next"
                " readable video in its place"
            ) from error

    def name(self, row: int) -> str:
        """Return the path of a video below the folder, with ``/``."""
        return self.names[row]

    def select(self, rows: np.ndarray) -> FileClips:
        """Return the videos at ``rows`` (int64 ``[N]``), in that order; no file is read."""
        chosen = copy(self)
        chosen.names = self.names.select(rows)
        chosen.frames, chosen.fps = self.frames[rows], self.fps[rows]
        chosen._sides = self._sides[rows]
        return chosen


class CachedClips(Clips):
    """Videos that were decoded before (``lit-ssl video-cache``).

    Args:
        cache: The cache.
        rows: int64 ``[N]``: which of its videos, in this order.
        folder: Path or URL of the cache, for messages.
        base: Folder that all were in, below that of the data set; rows are named below it.
    """

    def __init__(self, cache: VideoCache, rows: np.ndarray, folder: str, base: str = "") -> None:
        index = cache.index()
        self.cache = cache
        self.folder = f"{folder}/{base}" if base else folder
        self.names = _names_below(base, (cache.names[row] for row in rows))
        self.frames, self.fps = index.frames[rows], index.fps[rows]
        self._rows = rows

    def read_clip(self, row: int, frames: np.ndarray) -> np.ndarray:
        """Return some frames of a video as uint8 ``[T, H, W, 3]``."""
        return self.cache.read(int(self._rows[row]), frames)

    def name(self, row: int) -> str:
        """Return the path that a video had below the folder of its data set."""
        return self.names[row]

    def select(self, rows: np.ndarray) -> CachedClips:
        """Return the videos at ``rows`` (int64 ``[N]``), in that order."""
        chosen = copy(self)
        chosen.names = self.names.select(rows)
        chosen.frames, chosen.fps = self.frames[rows], self.fps[rows]
        chosen._rows = self._rows[rows]
        return chosen


def _names_below(base: str, paths: Iterable[str]) -> PackedStrings:
    start = len(base) + 1 if base else 0
    return PackedStrings(path[start:] for path in paths)
