"""Images out of shards, in any order."""

from __future__ import annotations

import zlib
from copy import copy
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lit_ssl.datamodules.reading.decoding import AS_USUAL, Decoding
from lit_ssl.datamodules.reading.encoded import Jpeg
from lit_ssl.datamodules.reading.encoded import encoded as jpeg_or_pixels
from lit_ssl.datamodules.reading.images import Images, PackedStrings
from lit_ssl.datamodules.streaming.chunk_bytes import ChunkFile
from lit_ssl.datamodules.streaming.encoded import decoded
from lit_ssl.datamodules.streaming.manifest import Kind
from lit_ssl.errors import InputRuntimeError, quoted
from lit_ssl.stores.file_cache import FileCache
from lit_ssl.stores.places import Place

__all__ = ["ShardFiles", "StreamedImages"]


class ShardFiles(NamedTuple):
    """The files of a split, and how they are read.

    Attributes:
        place: Where they are.
        folder: Their folder there.
        files: The chunks.
        cache: Keeps chunks of a store on this machine; None: they are on it.
    """

    place: Place
    folder: str
    files: tuple[ChunkFile, ...]
    cache: FileCache | None

    def read(self, chunk: int, offset: int, size: int, whole: bool) -> bytes:
        """Return a part of a chunk.

        Args:
            chunk: Its number.
            offset: First byte.
            size: Bytes.
            whole: Fetch the whole chunk where it is not on this machine; else only the part.

        Raises:
            InputError: It cannot be read.
        """
        if not size:  # stores refuse to be asked for nothing
            return b""
        file = self.files[chunk]
        name = f"{self.folder}/{file.name}"
        if self.cache is None or not (whole or self.cache.has(file.sha256)):
            return self.place.read(name, offset, size)
        return self.cache.read(self.place, name, file.size, file.sha256, offset, size)


class StreamedImages(Images):
    """Images in shards; each is checked against its CRC-32 when it is read.

    Args:
        shards: The files.
        chunk: int64 ``[N]``: the chunk of each image.
        offset: int64 ``[N]``: where it begins there, in bytes.
        size: int64 ``[N]``: its bytes.
        crc: int64 ``[N]``: CRC-32 of them.
        names: N paths, for lists and messages; None: images have no names.
        kind: What they were before; see ``manifest``.
        whole: Fetch whole chunks to this machine.
        decoding: How files are decoded.
    """

    def __init__(
        self,
        shards: ShardFiles,
        chunk: np.ndarray,
        offset: np.ndarray,
        size: np.ndarray,
        crc: np.ndarray,
        names: PackedStrings | None,
        kind: Kind,
        whole: bool,
        decoding: Decoding = AS_USUAL,
    ) -> None:
        self.shards = shards
        self.chunk = chunk
        self.offset = offset
        self.size = size
        self.crc = crc
        self.names = names
        self.kind: Kind = kind
        self.whole = whole
        self.decoding = decoding

    def __len__(self) -> int:
        return len(self.chunk)

    @property
    def folder(self) -> str | None:
        """Folder of the shards; None for images that had none before."""
        return None if self.kind == "arrays" else self.shards.place.name_of(self.shards.folder)

    def encoded(self, index: int) -> bytes:
        """Return an image as it was encoded.

        Args:
            index: row of the image.

        Raises:
            InputError: It cannot be fetched.
            InputRuntimeError: It is damaged. That is no unreadable image, which may be skipped: the
                shard has to be mended.
        """
        chunk, size = int(self.chunk[index]), int(self.size[index])
        content = self.shards.read(chunk, int(self.offset[index]), size, self.whole)
        if len(content) == size and zlib.crc32(content) == self.crc[index]:
            return content
        file = self.shards.place.name_of(f"{self.shards.folder}/{self.shards.files[chunk].name}")
        what = "its checksum is wrong" if len(content) == size else "the shard is cut short"
        raise InputRuntimeError(
            f"{self._called(index)} in {file} is damaged ({what}): copy the shard again, or run"
            " `lit-ssl shard` again"
        )

    def read(self, index: int, max_side: int | None = None) -> Tensor:
        """Decode one image to uint8 ``[C, H, W]``, no side longer than ``max_side``."""
        content = self.encoded(index)
        return decoded(content, self.kind, self._called(index), max_side, self.decoding)

    def read_encoded(self, index: int, max_side: int | None = None) -> Jpeg | Tensor:
        """Return a JPEG file as it is where a device can decode it, else what ``read`` does."""
        if self.kind != "files":
            return self.read(index, max_side)
        return jpeg_or_pixels(self.encoded(index), self._called(index), max_side, self.decoding)

    def read_batch(self, rows: np.ndarray) -> Tensor | None:
        """Return images that were in memory before, uint8 ``[B, C, H, W]``; None for others."""
        if self.kind != "arrays":
            return None
        return torch.stack([self.read(int(row)) for row in rows])

    def name(self, row: int) -> str | None:
        """Return the path that an image had below the folder of its split, None if it had none."""
        return None if self.names is None else self.names[row]

    def select(self, rows: np.ndarray) -> StreamedImages:
        """Return the images at ``rows`` (int64 ``[N]``), in that order; nothing is read."""
        chosen = copy(self)
        chosen.chunk, chosen.offset = self.chunk[rows], self.offset[rows]
        chosen.size, chosen.crc = self.size[rows], self.crc[rows]
        chosen.names = None if self.names is None else self.names.select(rows)
        return chosen

    def read_whole(self) -> StreamedImages:
        """Return the same images, fetched by whole chunks."""
        other = copy(self)
        other.whole = True
        return other

    def _called(self, index: int) -> str:
        name = self.name(index) or f"image {index}"
        return name if name.isprintable() else quoted(name, 200)
