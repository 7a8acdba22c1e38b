"""Shards of a cache of decoded videos: written by one process each, read by any."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from lit_ssl.errors import InputError
from lit_ssl.files import read_bytes
from lit_ssl.json_text import parse_json
from lit_ssl.video.cache_files import CacheEntry, CacheSettings

__all__ = ["Shard", "decode_frames", "finished_videos", "shard_name", "shard_path"]

_SUFFIX = {"raw": ".u8", "jpeg": ".jpegs"}
_TABLE = np.dtype("<i8")


def shard_name(shard: int, settings: CacheSettings) -> str:
    """Name of the file of a shard.

    Args:
        shard: its number.
        settings: of the cache; the format decides the ending.
    """
    return f"frames-{shard:05d}{_SUFFIX[settings.format]}"


def shard_path(folder: Path, shard: int, settings: CacheSettings) -> Path:
    """Path of a shard.

    Args:
        folder: of the cache.
        shard: its number.
        settings: of the cache.
    """
    return folder / shard_name(shard, settings)


class Shard:
    """A new shard, written by one process.

    Args:
        folder: Of the cache.
        settings: Of the cache.
    """

    def __init__(self, folder: Path, settings: CacheSettings) -> None:
        self.settings = settings
        self.number = 0
        while True:
            path = shard_path(folder, self.number, settings)
            journal = path.with_suffix(".jsonl")
            if not journal.exists():
                try:
                    self._file: IO[bytes] = path.open("xb")
                    break
                except FileExistsError:  # of another process, or of an earlier run
                    pass
            self.number += 1
        self._journal = journal.open("x", encoding="utf-8", newline="")
        self._start, self._table = 0, [0]
        self.size = 0

    def add(self, frames: np.ndarray) -> None:
        """Write frames, uint8 ``[T, H, W, 3]``, of the video that is next.

        Args:
            frames: the next ones in order; a video may come in several parts.
        """
        if self.settings.format == "raw":
            self.size += self._file.write(np.ascontiguousarray(frames).data)
            return
        for pixels in frames:
            self.size += self._file.write(_encoded(pixels, self.settings.quality))
            self._table.append(self.size)

    def finish(
        self, name: str, source: int, frames: int, fps: float, shape: tuple[int, int]
    ) -> CacheEntry:
        """Say that the frames since the last call are a whole video.

        Args:
            name: of the video.
            source: bytes of its file.
            frames: how many were added.
            fps: frames a second.
            shape: height and width of the frames.

        Returns:
            Its entry, which the journal of the shard has, too.
        """
        if self.settings.format == "jpeg":
            self.size += self._file.write(np.array(self._table, dtype=_TABLE).data)
        entry = CacheEntry(name, source, frames, fps, *shape, self.number, self._start, self.size)
        self._file.flush()
        self._journal.write(json.dumps(entry) + "\n")
        self._journal.flush()
        self._start, self._table = self.size, [self.size]
        return entry

    def drop(self) -> None:
        """Take back the frames since the last whole video."""
        self._file.seek(self._start)
        self._file.truncate()
        self.size, self._table = self._start, [self._start]

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        self._journal.close()


def _encoded(pixels: np.ndarray, quality: int) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG", quality=quality, subsampling=0)
    return file.getvalue()


def decode_frames(
    read: Callable[[int, int], np.ndarray],
    entry: CacheEntry,
    frames: np.ndarray,
    settings: CacheSettings,
) -> np.ndarray:
    """Frames of a video out of its shard.

    Args:
        read: Gives the bytes of the shard from one place to before another, uint8.
        entry: The video.
        frames: Which, int64 ``[T]``, within the video.
        settings: Of the cache.

    Returns:
        uint8 ``[T, H, W, 3]``.

    Raises:
        ValueError: The bytes are no such pictures.
    """
    shape = (entry.rows, entry.columns, 3)
    if not len(frames):
        return np.empty((0, *shape), dtype=np.uint8)
    first, end = int(frames.min()), int(frames.max()) + 1
    if settings.format == "raw":
        size = math.prod(shape)
        content = read(entry.start + first * size, entry.start + end * size)
        return np.asarray(content.reshape(end - first, *shape)[frames - first])
    from PIL import Image

    table = read(entry.end - _TABLE.itemsize * (entry.frames + 1), entry.end).copy().view(_TABLE)
    if (np.diff(table) <= 0).any() or table[0] != entry.start or table[-1] >= entry.end:
        raise ValueError("the table of its frames is damaged")
    content = read(int(table[first]), int(table[end]))
    clip = np.empty((len(frames), *shape), dtype=np.uint8)
    for place, frame in enumerate(frames):
        picture = content[table[frame] - table[first] : table[frame + 1] - table[first]].tobytes()
        with Image.open(io.BytesIO(picture), formats=("JPEG",)) as image:
            pixels = np.asarray(image)
        if pixels.shape != shape:
            raise ValueError(f"frame {frame} is {pixels.shape}, not {shape}")
        clip[place] = pixels
    return clip


def finished_videos(folder: Path, settings: CacheSettings) -> dict[str, CacheEntry]:
    """Videos that are whole in the shards of a cache, by name; the last of each counts.

    Args:
        folder: of the cache.
        settings: of the cache.
    """
    found: dict[str, CacheEntry] = {}
    for journal in sorted(folder.glob("frames-*.jsonl")):
        shard = journal.with_suffix(_SUFFIX[settings.format])
        size = shard.stat().st_size if shard.is_file() else 0
        for entry in _entries(journal):
            if entry.end <= size:
                found[entry.name] = entry
    return found


def _entries(journal: Path) -> Iterator[CacheEntry]:
    for number, line in enumerate(read_bytes(journal).split(b"\n")[:-1], start=1):
        try:
            entry = CacheEntry.of_json(parse_json(line))
        except ValueError as error:
            raise InputError(
                f"line {number} of {journal} is damaged ({error}): delete this file, and its"
                " videos are decoded again"
            ) from error
        yield entry
