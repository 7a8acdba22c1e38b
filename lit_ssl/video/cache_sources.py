"""Where the bytes of a cache of decoded videos come from: a folder, or a store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from lit_ssl.errors import InputError, InputRuntimeError
from lit_ssl.stores.file_cache import FileCache
from lit_ssl.stores.places import MissingFileError, Place
from lit_ssl.video.cache_checksums import (
    BLOCK,
    BLOCKS,
    CHECKSUMS,
    block_sums,
    parse_blocks,
    parse_checksums,
)
from lit_ssl.video.cache_files import (
    CacheIndex,
    CacheSettings,
    parse_index,
    parse_settings,
    read_index,
    read_settings,
    size_in_words,
)
from lit_ssl.video.cache_shards import finished_videos, shard_name, shard_path

__all__ = ["CacheSource", "FolderSource", "StoreSource"]


class CacheSource(ABC):
    """The files of a cache.

    Attributes:
        name: What messages call the cache.
        folder: Of its files on this machine.
        settings: Of the cache.
        columns: Its videos.
        mend: What to do where a shard is damaged.
        way: How shards are read, in words; "": where they are.
    """

    name: str
    folder: Path
    settings: CacheSettings
    columns: CacheIndex
    mend: str
    way: str = ""

    @abstractmethod
    def size(self, shard: int) -> int:
        """Return the bytes of a shard; 0 where it is missing.

        Args:
            shard: its number.
        """

    @abstractmethod
    def read(self, shard: int, start: int, end: int) -> np.ndarray:
        """Return the bytes of a shard from ``start`` to before ``end``, uint8.

        Args:
            shard: its number.
            start: the first byte.
            end: the one after the last.

        Raises:
            InputError: They cannot be fetched, or are damaged.
        """

    def shard(self, shard: int) -> str:
        """Return what messages call a shard.

        Args:
            shard: its number.
        """
        return f"{self.name}/{shard_name(shard, self.settings)}"


class FolderSource(CacheSource):
    """A folder of this machine, whose shards each process maps into its memory.

    Args:
        folder: The folder.

    Raises:
        InputError: There is no cache in it, or it is not complete, or damaged.
    """

    mend = "delete this file and run the same `lit-ssl video-cache` again"

    def __init__(self, folder: Path) -> None:
        self.name, self.folder = str(folder), folder
        self.settings = read_settings(folder)
        if not (folder / "index.npz").is_file():
            done = len(finished_videos(folder, self.settings))
            raise InputError(
                f"the cache in {folder} is not complete, {done:,} videos are done: run the"
                " same `lit-ssl video-cache` again, it goes on"
            )
        self.columns = read_index(folder)
        self._maps: dict[int, np.ndarray] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}

    def size(self, shard: int) -> int:
        """Return the bytes of a shard; 0 where it is missing."""
        path = shard_path(self.folder, shard, self.settings)
        return path.stat().st_size if path.is_file() else 0

    def read(self, shard: int, start: int, end: int) -> np.ndarray:
        """Return bytes of a shard, uint8."""
        if shard not in self._maps:
            path = shard_path(self.folder, shard, self.settings)
            self._maps[shard] = np.memmap(path, dtype=np.uint8, mode="r")
        return self._maps[shard][start:end]


class StoreSource(CacheSource):
    """A store: its shards are fetched whole where all have room here, else in blocks.

    Args:
        place: Where the cache is.
        files: Keeps copies on this machine.

    Raises:
        InputError: There is no cache, it cannot be read, or it is damaged.
    """

    mend = "make the cache anew and copy it there"

    def __init__(self, place: Place, files: FileCache) -> None:
        self.name, self.folder = place.url, files.folder
        self.place, self.files = place, files
        try:
            content = place.read(CHECKSUMS)
        except MissingFileError as error:
            raise MissingFileError(
                f"no cache of videos: there is no {place.name_of(CHECKSUMS)}, which `lit-ssl"
                " video-cache` writes at its end: run it again where the cache was made (finished"
                " videos are kept), then copy the whole folder there"
            ) from error
        self._sums = parse_checksums(content, place.name_of(CHECKSUMS))
        self.settings = parse_settings(self._whole("cache.json"), place.name_of("cache.json"))
        self.columns = parse_index(self._whole("index.npz"), place.name_of("index.npz"))
        self._blocks = parse_blocks(self._whole(BLOCKS), place.name_of(BLOCKS), self._sums)
        size = sum(self._sums[name].size for name in self._blocks)
        self.fits = size <= files.limit
        how = f"kept in {files.folder}" if self.fits else "fetched clip by clip"
        more = f", and cache_size is {size_in_words(files.limit)}" * (not self.fits)
        self.way = f"{size_in_words(size)} in {len(self._blocks):,} shards, {how}{more}"

    def size(self, shard: int) -> int:
        """Return the bytes of a shard; 0 where it is missing."""
        name = shard_name(shard, self.settings)
        return self._sums[name].size if name in self._blocks else 0

    def read(self, shard: int, start: int, end: int) -> np.ndarray:
        """Return bytes of a shard, uint8; the blocks that they are in are checked."""
        name = shard_name(shard, self.settings)
        size, sha256, _ = self._sums[name]
        first, last = start // BLOCK, -(-end // BLOCK)
        offset, count = first * BLOCK, min(last * BLOCK, size) - first * BLOCK
        if self.fits or self.files.has(sha256):
            content = self.files.read(self.place, name, size, sha256, offset, count)
        else:
            content = self.place.read(name, offset, count)
        wanted = self._blocks[name][first:last]
        if len(content) != count or not np.array_equal(block_sums(content), wanted):
            raise InputRuntimeError(
                f"{self.place.name_of(name)} is damaged (bytes {offset:,} to {offset + count:,} are"
                f" others than {BLOCKS} says): copy it there again, and remove its copy in"
                f" {self.folder}"
            )
        return np.frombuffer(content, dtype=np.uint8)[start - offset : end - offset]

    def _whole(self, name: str) -> bytes:
        if name not in self._sums:
            raise InputError(
                f"{self.place.name_of(CHECKSUMS)} is damaged (it names no {name}): copy the whole"
                " cache again"
            )
        size, sha256, _ = self._sums[name]
        return self.files.read(self.place, name, size, sha256, 0, size)
