"""Files of a cache of decoded videos: settings, shards, their journals, and the index.

    cache.json            size, format, reader: one for all videos of the folder
    frames-00000.u8       frames of some videos, one after the other (.jpegs: their JPEG pictures)
    frames-00000.jsonl    a line for each video that is whole in this shard, written after it
    index.npz             all videos, written at the end
    shards.json           checksums, written last; see lit_ssl.video.cache_checksums
    unreadable.txt        videos that could not be decoded, and why

A shard only grows while the process that made it runs. What follows the last video of its journal
is left over from a process that was stopped, and nobody reads it.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lit_ssl.arrays import arrays_in
from lit_ssl.errors import InputError, InputFileNotFoundError, check_choice, quoted
from lit_ssl.files import describe_folder, read_bytes, write_file, write_json
from lit_ssl.json_text import parse_json

__all__ = [
    "DAMAGED",
    "CacheEntry",
    "CacheIndex",
    "CacheSettings",
    "parse_index",
    "parse_settings",
    "read_index",
    "read_settings",
    "size_in_words",
    "write_index",
    "write_settings",
]

_VERSION = 1
_FORMATS = ("raw", "jpeg")
_LONGEST = 65_535  # pixels, of a side of a JPEG
# What NumPy and json raise for broken files.
DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class CacheSettings:
    """What holds for all videos of a cache.

    Args:
        shorter: Shorter side of the frames, pixels.
        format: ``raw``, 3 bytes a pixel, or ``jpeg``.
        quality: Of JPEG, 1 to 100; 0 where the format is raw.
        reader: Name of the reader that decoded the videos.
    """

    shorter: int
    format: str
    quality: int
    reader: str

    def __post_init__(self) -> None:
        check_choice("format", self.format, _FORMATS)
        if type(self.shorter) is not int or not 1 <= self.shorter <= _LONGEST:
            raise InputError(
                f"shorter must be at least 1 pixel (and at most {_LONGEST:,}), not"
                f" {quoted(self.shorter)}"
            )
        if type(self.quality) is not int or (
            self.format == "jpeg" and not 1 <= self.quality <= 100
        ):
            raise InputError(f"quality must lie between 1 and 100, not {quoted(self.quality)}")
        if not isinstance(self.reader, str):
            raise InputError(f"reader must be the name of one, not {quoted(self.reader)}")

    def __str__(self) -> str:
        how = f"jpeg of quality {self.quality}" if self.format == "jpeg" else "raw"
        return f"{self.shorter} pixels at the shorter side, {how}, by {self.reader}"


def size_in_words(count: int) -> str:
    """A number of bytes to read: ``7.25 MB``.

    Args:
        count: of bytes.
    """
    unit, name = next(
        (u, n) for u, n in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if count >= u or n == "kB"
    )
    return f"{count / unit:,.2f} {name}"


class CacheEntry(NamedTuple):
    """A video in a cache.

    Args:
        name: Path of the video, relative to the folder of all.
        source: Size of its file in bytes.
        frames: Number of frames; 0: it could not be decoded.
        fps: Frames per second.
        rows: Height of a cached frame.
        columns: Width of a cached frame.
        shard: Number of the shard.
        start: First byte in the shard.
        end: Byte after the last.
    """

    name: str
    source: int
    frames: int
    fps: float
    rows: int
    columns: int
    shard: int
    start: int
    end: int

    @classmethod
    def of_json(cls, values: object) -> CacheEntry:
        """Return the entry that a line of a journal holds.

        Args:
            values: what JSON gave: the fields in a list, if it is an entry.

        Raises:
            ValueError: It holds none.
        """
        if not isinstance(values, list) or len(values) != len(cls._fields):
            raise ValueError(f"{quoted(values)} is no video of a cache")
        entry = cls(*values)
        numbers = [entry.source, entry.frames, *entry[4:]]
        is_whole = all(type(n) is int and 0 <= n < 2**63 for n in numbers)
        is_rate = type(entry.fps) in (int, float) and entry.fps >= 0
        if not isinstance(entry.name, str) or not is_whole or not is_rate:
            raise ValueError(f"{quoted(values)} is no video of a cache")
        if max(entry.rows, entry.columns) > _LONGEST or entry.start > entry.end:
            raise ValueError(f"{quoted(values)} has sizes that no video has")
        return entry


def write_settings(folder: Path, settings: CacheSettings) -> None:
    """Make the folder of a cache, or go on with it.

    Args:
        folder: of the cache: new, empty, or a cache with the same settings.
        settings: what it is of.

    Raises:
        InputError: It has another cache, or other files.
    """
    if (folder / "cache.json").is_file():
        if (there := read_settings(folder)) != settings:
            raise InputError(
                f"{folder} is a cache of {there}, and this would be one of {settings}:"
                " give another folder"
            )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            f"a new cache needs a new or empty folder: {describe_folder(folder)}; give another one"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "cache.json", {"version": _VERSION, **asdict(settings)})


def read_settings(folder: Path) -> CacheSettings:
    """Read what a cache is of.

    Args:
        folder: of the cache.

    Raises:
        InputError: There is no cache, or it is damaged or of another version.
    """
    path = folder / "cache.json"
    if not path.is_file():
        raise InputFileNotFoundError(
            f"no cache of videos: {describe_folder(folder)}; `lit-ssl video-cache` makes one"
        )
    return parse_settings(read_bytes(path), str(path))


def parse_settings(content: bytes, path: str) -> CacheSettings:
    """Return what the file ``cache.json`` says.

    Args:
        content: The file.
        path: What messages call it.

    Raises:
        InputError: It is damaged or of another version.
    """
    try:
        values = parse_json(content)
        version = values.pop("version")
        settings = CacheSettings(**values)
    except (*DAMAGED, AttributeError) as error:
        raise InputError(f"{path} is damaged ({error}): make the cache anew") from error
    if version != _VERSION:
        raise InputError(f"{path} is of version {version}, not {_VERSION}: make the cache anew")
    return settings


class CacheIndex(NamedTuple):
    """Columns of all videos of a cache, as in ``CacheEntry``; N of them.

    Attributes:
        name: paths of the videos, relative to the folder of all.
        source: int64 ``[N]``, bytes of the files.
        frames: int64 ``[N]``; 0: it could not be decoded.
        fps: float64 ``[N]``, frames per second.
        rows: int64 ``[N]``, height of a cached frame.
        columns: int64 ``[N]``, width of a cached frame.
        shard: int64 ``[N]``, number of the shard.
        start: int64 ``[N]``, first byte in the shard.
        end: int64 ``[N]``, the byte after the last.
    """

    name: tuple[str, ...]
    source: np.ndarray
    frames: np.ndarray
    fps: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    shard: np.ndarray
    start: np.ndarray
    end: np.ndarray


def write_index(folder: Path, entries: Sequence[CacheEntry]) -> None:
    """Write the list of all videos, at least one, in this order.

    Args:
        folder: of the cache.
        entries: the videos.
    """
    names, *columns = zip(*entries, strict=True)
    arrays: dict[str, Any] = {
        field: np.array(values, dtype=np.float64 if field == "fps" else np.int64)
        for field, values in zip(CacheIndex._fields[1:], columns, strict=True)
    }
    # Fixed-width strings would take four bytes a letter of the longest name.
    arrays["name"] = np.frombuffer(
        "\0".join(names).encode(errors="surrogateescape"), dtype=np.uint8
    )
    write_file(folder / "index.npz", lambda file: np.savez_compressed(file, **arrays), binary=True)


def read_index(folder: Path) -> CacheIndex:
    """Read the list of all videos.

    Args:
        folder: of the cache.

    Raises:
        InputError: It is damaged.
    """
    path = folder / "index.npz"
    return parse_index(read_bytes(path), str(path))


def parse_index(content: bytes, path: str) -> CacheIndex:
    """Return the list of all videos that the file ``index.npz`` holds.

    Args:
        content: The file.
        path: What messages call it.

    Raises:
        InputError: It is damaged.
    """
    try:
        arrays = arrays_in(content)
        names, *columns = (arrays[field] for field in CacheIndex._fields)
        index = CacheIndex(
            tuple(names.tobytes().decode(errors="surrogateescape").split("\0")), *columns
        )
        kinds = "".join(column.dtype.kind for column in columns)
        if kinds != "iifiiiii" or {c.shape for c in columns} != {(len(index.name),)}:
            raise ValueError("its columns do not fit together")
        if any((column < 0).any() for column in columns) or not np.isfinite(index.fps).all():
            raise ValueError("it has numbers that no video has")
        if (index.start > index.end).any() or max(index.rows.max(), index.columns.max()) > _LONGEST:
            raise ValueError("it has sizes that no video has")
    except DAMAGED as error:
        raise InputError(
            f"{path} is damaged ({error}): delete it and run the same `lit-ssl video-cache` again"
        ) from error
    return index
