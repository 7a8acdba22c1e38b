"""Clips out of a cache of decoded videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lit_ssl.errors import InputError
from lit_ssl.video.cache_files import DAMAGED, CacheEntry, read_index, read_settings, size_in_words
from lit_ssl.video.cache_shards import decode_frames, finished_videos, shard_path
from lit_ssl.video.clip_index import ClipIndex

__all__ = ["VideoCache"]


class VideoCache:
    """Videos that ``lit-ssl video-cache`` has decoded; a row is a video.

    It may be sent to other processes: each maps the shards into its memory when it first reads.

    Args:
        folder: Of the cache.

    Attributes:
        names: Paths of the videos, relative to the folder that they were in.
        size: Shorter side of the frames, pixels.
        settings: Size, format and reader.

    Raises:
        InputError: There is no cache, or it is not complete, or damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.settings = read_settings(self.folder)
        self.size = self.settings.shorter
        if not (self.folder / "index.npz").is_file():
            done = len(finished_videos(self.folder, self.settings))
            raise InputError(
                f"the cache in {self.folder} is not complete, {done:,} videos are done: run the"
                " same `lit-ssl video-cache` again, it goes on"
            )
        self._columns = read_index(self.folder)
        self.names = self._columns.name
        self._maps: dict[int, np.ndarray] = {}
        self._check_shards()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}

    def __len__(self) -> int:
        return len(self.names)

    def __str__(self) -> str:
        """What it holds."""
        columns = self._columns
        unreadable = int((columns.frames == 0).sum())
        size = int((columns.end - columns.start).sum())
        failed = f", {unreadable:,} more could not be decoded" if unreadable else ""
        return (
            f"{len(self) - unreadable:,} videos with {int(columns.frames.sum()):,} frames,"
            f" {self.settings}, {size_in_words(size)}{failed}"
        )

    def index(self) -> ClipIndex:
        """Facts of all videos, in order of ``names``; frames 0: it could not be decoded.

        Width and height are those of the cached frames; ``root`` is the cache's folder.
        """
        columns = self._columns
        return ClipIndex(
            paths=self.names,
            frames=columns.frames,
            fps=columns.fps,
            width=columns.columns,
            height=columns.rows,
            root=self.folder,
        )

    def read(self, row: int, frames: np.ndarray) -> np.ndarray:
        """Read frames of a video.

        Args:
            row: Which video.
            frames: int64 ``[T]``, from 0, in any order.

        Returns:
            uint8 ``[T, H, W, 3]``.

        Raises:
            InputError: The video has no such frames, or they are damaged.
        """
        entry = self._entry(row)
        wanted = np.asarray(frames, dtype=np.int64)
        if not entry.frames:
            raise InputError(
                f"{entry.name} could not be decoded when the cache {self.folder} was made"
            )
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < entry.frames:
            raise InputError(
                f"frames {wanted.min()} to {wanted.max()} of {entry.name} are asked for, and the"
                f" cache {self.folder} has {entry.frames} of it"
            )
        try:
            return decode_frames(self._shard(entry.shard), entry, wanted, self.settings)
        except DAMAGED as error:
            raise InputError(
                f"{entry.name} is damaged in {shard_path(self.folder, entry.shard, self.settings)}"
                f" ({error}): delete this file and run the same `lit-ssl video-cache` again"
            ) from error

    def _entry(self, row: int) -> CacheEntry:
        name, source, frames, fps, *places = (column[row] for column in self._columns)
        rows, columns, shard, start, end = map(int, places)
        return CacheEntry(
            str(name), int(source), int(frames), float(fps), rows, columns, shard, start, end
        )

    def _shard(self, number: int) -> np.ndarray:
        if number not in self._maps:
            path = shard_path(self.folder, number, self.settings)
            self._maps[number] = np.memmap(path, dtype=np.uint8, mode="r")
        return self._maps[number]

    def _check_shards(self) -> None:
        """Raise where a shard is missing or cut short, or the index says what cannot be."""
        columns = self._columns
        there = columns.frames > 0
        size = columns.end - columns.start
        if self.settings.format == "raw":
            wrong = size != columns.frames * columns.rows * columns.columns * 3
        else:
            wrong = size <= 8 * (columns.frames + 1)
        if (there & (wrong | (columns.start < 0))).any() or (columns.frames < 0).any():
            raise InputError(
                f"{self.folder / 'index.npz'} is damaged: delete it and run the same"
                " `lit-ssl video-cache` again"
            )
        for shard in np.unique(columns.shard[there]).tolist():
            path = shard_path(self.folder, shard, self.settings)
            found = path.stat().st_size if path.is_file() else 0
            if found < (needed := int(columns.end[there & (columns.shard == shard)].max())):
                raise InputError(
                    f"{path} has {found:,} of {needed:,} bytes: copy the whole cache, or run the"
                    " same `lit-ssl video-cache` again"
                )
