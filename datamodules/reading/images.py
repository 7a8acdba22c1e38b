"""Images in memory or on disk, behind one small interface."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import Tensor

from lit_ssl.datamodules.reading.decoding import AS_USUAL, Decoding, read_image
from lit_ssl.datamodules.reading.encoded import Jpeg, read_encoded
from lit_ssl.errors import InputError

__all__ = ["ArrayImages", "FileImages", "Images", "PackedStrings"]

_CHUNK = 100_000


class PackedStrings(Sequence[str]):
    """An immutable list of strings in two arrays.

    A Python list of a million paths is copied into each worker bit by bit, because reading an
    element changes its reference count and so its memory page; arrays stay shared.

    Args:
        strings: The strings; they are taken one by one, and never all held.
    """

    def __init__(self, strings: Iterable[str]) -> None:
        content, ends = bytearray(), array("q")
        for string in strings:
            content += os.fsencode(string)
            ends.append(len(content))
        self._bytes = np.frombuffer(content, dtype=np.uint8)
        self._ends = np.array(ends, dtype=np.int64)

    @classmethod
    def joined(cls, parts: Sequence[PackedStrings]) -> PackedStrings:
        """Return the strings of several lists, one list after the other.

        Args:
            parts: the lists; there may be none.
        """
        lengths = [np.diff(part._ends, prepend=0) for part in parts]
        return cls._of(
            np.concatenate([np.empty(0, dtype=np.uint8), *(part._bytes for part in parts)]),
            np.concatenate([np.empty(0, dtype=np.int64), *lengths]),
        )

    @classmethod
    def _of(cls, content: np.ndarray, lengths: np.ndarray) -> PackedStrings:
        strings = cls(())
        strings._bytes, strings._ends = content, np.cumsum(lengths, dtype=np.int64)
        return strings

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(f"Index {index} is outside of 0 ... {len(self) - 1}.")
        start = int(self._ends[index - 1]) if index else 0
        return os.fsdecode(self._bytes[start : int(self._ends[index])].tobytes())

    def select(self, indices: np.ndarray) -> PackedStrings:
        """Return the strings at ``indices`` (int64 ``[N]``), in that order.

        Args:
            indices: their places in the list.
        """
        ends = self._ends[indices]
        lengths = np.diff(self._ends, prepend=0)[indices]
        parts = [np.empty(0, dtype=np.uint8)]
        # In pieces: the place of each byte takes eight.
        for begin in range(0, len(indices), _CHUNK):
            sizes = lengths[begin : begin + _CHUNK]
            first = ends[begin : begin + _CHUNK] - np.cumsum(sizes)
            parts.append(self._bytes[np.repeat(first, sizes) + np.arange(int(sizes.sum()))])
        return self._of(np.concatenate(parts), lengths)


class Images(ABC):
    """Images with random access."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, index: int, max_side: int | None = None) -> Tensor:
        """Return one image as uint8 ``[C, H, W]``, with no side longer than ``max_side``.

        Args:
            index: row of the image.
            max_side: in pixels; a larger image is made smaller. None: as large as it is.

        Raises:
            CorruptImageError: The image cannot be read.
        """

    def read_encoded(self, index: int, max_side: int | None = None) -> Jpeg | Tensor:
        """Return a JPEG file as it is where a device can decode it, else what ``read`` does.

        Args:
            index: row of the image.
            max_side: in pixels, for what ``read`` does; None: no limit.
        """
        return self.read(index, max_side)

    @abstractmethod
    def name(self, row: int) -> str | None:
        """Return the path of an image below the folder of its split, None if it has none.

        Args:
            row: of the image.
        """

    @abstractmethod
    def select(self, rows: np.ndarray) -> Images:
        """Return the images at ``rows`` (int64 ``[N]``), in that order.

        Args:
            rows: their numbers.
        """

    def read_batch(self, rows: np.ndarray) -> Tensor | None:
        """Return the images at ``rows`` (int64 ``[B]``) at once, as uint8 ``[B, C, H, W]``.

        None: they are to be read one by one, as images of different sizes are.

        Args:
            rows: their numbers.
        """
        return None


class ArrayImages(Images):
    """Images of one size in memory.

    Args:
        pixels: uint8 ``[N, C, H, W]``.

    Raises:
        InputError: if they have another form.
    """

    def __init__(self, pixels: Tensor) -> None:
        if pixels.dtype != torch.uint8 or pixels.ndim != 4:
            raise InputError(
                "Images in memory must be uint8 [N, C, H, W], got"
                f" {pixels.dtype} {tuple(pixels.shape)}"
            )
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, index: int, max_side: int | None = None) -> Tensor:
        """Return one image as uint8 ``[C, H, W]``; it is small, ``max_side`` has no effect."""
        return self.pixels[index]

    def read_batch(self, rows: np.ndarray) -> Tensor:
        """Return the images at ``rows`` (int64 ``[B]``) as uint8 ``[B, C, H, W]``."""
        return self.pixels[torch.from_numpy(rows)]

    def name(self, row: int) -> str | None:
        """Return None: images in memory have no file names."""
        return None

    def select(self, rows: np.ndarray) -> ArrayImages:
        """Return a copy of the images at ``rows`` (int64 ``[N]``), in that order."""
        return ArrayImages(self.read_batch(rows))


class FileImages(Images):
    """RGB images in files below one folder.

    Args:
        folder: Folder of the split.
        names: Paths below it, with ``/``.
        decoding: What is below transparent pixels, and which value is white.
    """

    def __init__(
        self,
        folder: str | Path,
        names: Iterable[str] | PackedStrings,
        decoding: Decoding = AS_USUAL,
    ) -> None:
        self.decoding = decoding
        self.folder = str(folder)
        self.names = names if isinstance(names, PackedStrings) else PackedStrings(names)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int, max_side: int | None = None) -> Tensor:
        """Decode one image to uint8 ``[3, H, W]``, no side of it longer than ``max_side``."""
        return read_image(os.path.join(self.folder, self.names[index]), max_side, self.decoding)

    def read_encoded(self, index: int, max_side: int | None = None) -> Jpeg | Tensor:
        """Return a JPEG file as it is where a device can decode it, else what ``read`` does."""
        if type(self).read is not FileImages.read:  # what it reads is not the file alone
            return self.read(index, max_side)
        return read_encoded(os.path.join(self.folder, self.names[index]), max_side, self.decoding)

    def name(self, row: int) -> str | None:
        """Return the path of an image below the folder, with ``/``."""
        return self.names[row]

    def select(self, rows: np.ndarray) -> FileImages:
        """Return the images at ``rows`` (int64 ``[N]``), in that order; no file is read."""
        return FileImages(self.folder, self.names.select(rows), self.decoding)
