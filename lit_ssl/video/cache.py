"""Clips out of a cache of decoded videos."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from lit_ssl.errors import InputError
from lit_ssl.stores.byte_sizes import byte_count
from lit_ssl.stores.file_cache import FileCache
from lit_ssl.stores.places import Folder, place_at
from lit_ssl.video.cache_files import DAMAGED, CacheEntry, size_in_words
from lit_ssl.video.cache_shards import decode_frames
from lit_ssl.video.cache_sources import CacheSource, FolderSource, StoreSource
from lit_ssl.video.clip_index import ClipIndex

__all__ = ["VideoCache"]


class VideoCache:
    """Videos that ``lit-ssl video-cache`` has decoded; a row is a video.

    It may be sent to other processes. Shards of a folder are mapped into the memory of each when it
    first reads. Index and shards of a store are fetched into ``cache_dir``, which processes and
    runs share; where ``cache_size`` does not hold all shards, the parts that clips are in are
    fetched, each time. What is fetched has to have the checksum that ``lit-ssl video-cache`` wrote.

    Args:
        folder: Of the cache: a path, or the URL of a copy (``s3://``, ``http(s)://``, what fsspec
            opens).
        cache_dir: Folder for what is fetched. None: ``lit_ssl/shards`` in ``XDG_CACHE_HOME``, or
            else in ``~/.cache``.
        cache_size: Bytes that it may have in all, such as 100GB.

    Attributes:
        names: Paths of the videos, relative to the folder that they were in.
        size: Shorter side of the frames, pixels.
        settings: Size, format and reader.
        way: How the shards of a store are read, in words; "": they are in a folder.

    Raises:
        InputError: There is no cache, or it is not complete, or damaged, or cannot be fetched.
    """

    def __init__(
        self,
        folder: str | Path,
        cache_dir: str | Path | None = None,
        cache_size: str | int = "50GB",
    ) -> None:
        limit = byte_count(cache_size, "cache_size")
        place = place_at(str(folder))
        self._source: CacheSource = (
            FolderSource(Path(place.url))
            if isinstance(place, Folder)
            else StoreSource(place, FileCache(cache_dir, limit))
        )
        self.settings = self._source.settings
        self.size = self.settings.shorter
        self.way = self._source.way
        self._columns = self._source.columns
        self.names = self._columns.name
        self._check_shards()

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

        Width and height are those of the cached frames; ``root`` is the cache's folder, or that of
        what is fetched.
        """
        columns = self._columns
        return ClipIndex(
            paths=self.names,
            frames=columns.frames,
            fps=columns.fps,
            width=columns.columns,
            height=columns.rows,
            root=self._source.folder,
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
                f"{entry.name} could not be decoded when the cache {self._source.name} was made"
            )
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < entry.frames:
            raise InputError(
                f"frames {wanted.min()} to {wanted.max()} of {entry.name} are asked for, and the"
                f" cache {self._source.name} has {entry.frames} of it"
            )
        read = partial(self._source.read, entry.shard)
        try:
            return decode_frames(read, entry, wanted, self.settings)
        except InputError:
            raise
        except DAMAGED as error:
            raise InputError(
                f"{entry.name} is damaged in {self._source.shard(entry.shard)} ({error}):"
                f" {self._source.mend}"
            ) from error

    def _entry(self, row: int) -> CacheEntry:
        name, source, frames, fps, *places = (column[row] for column in self._columns)
        rows, columns, shard, start, end = map(int, places)
        return CacheEntry(
            str(name), int(source), int(frames), float(fps), rows, columns, shard, start, end
        )

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
                f"{self._source.name}/index.npz is damaged: delete it and run the same"
                " `lit-ssl video-cache` again"
            )
        for shard in np.unique(columns.shard[there]).tolist():
            found = self._source.size(shard)
            if found < (needed := int(columns.end[there & (columns.shard == shard)].max())):
                raise InputError(
                    f"{self._source.shard(shard)} has {found:,} of {needed:,} bytes: copy the"
                    " whole cache, or run the same `lit-ssl video-cache` again"
                )
