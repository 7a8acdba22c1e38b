"""Images in memory or on disk, behind one small interface."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lit_ssl.datamodules.reading.decoding import AS_USUAL, Decoding, read_image
from lit_ssl.errors import InputError

__all__ = ["ArrayImages", "FileImages", "Images", "PackedStrings"]


class PackedStrings:
    """An immutable list of strings in two arrays.

    A Python list of a million paths is copied into each worker bit by bit, because reading an
    element changes its reference count and so its memory page; arrays stay shared.

    Args:
        strings: The strings.
    """

    def __init__(self, strings: Iterable[str]) -> None:
        encoded = [os.fsencode(string) for string in strings]
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self._ends = np.cumsum([len(item) for item in encoded], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(f"Index {index} is outside of 0 ... {len(self) - 1}.")
        start = int(self._ends[index - 1]) if index else 0
        return os.fsdecode(self._bytes[start : int(self._ends[index])].tobytes())

    def select(self, indices: np.ndarray) -> PackedStrings:
        """Return the strings at ``indices`` (int64 ``[N]``), in that order."""
        return PackedStrings(self[int(index)] for index in indices)


class Images(ABC):
    """Images with random access."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, index: int, max_side: int | None = None) -> Tensor:
        """Return one image as uint8 ``[C, H, W]``, with no side longer than ``max_side``.

        Raises:
            CorruptImageError: The image cannot be read.
        """

    @abstractmethod
    def name(self, row: int) -> str | None:
        """Return the path of an image below the folder of its split, None if it has none."""

    @abstractmethod
    def select(self, rows: np.ndarray) -> Images:
        """Return the images at ``rows`` (int64 ``[N]``), in that order."""


class ArrayImages(Images):
    """Images of one size in memory.

    Args:
        pixels: uint8 ``[N, C, H, W]``.
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

    def name(self, row: int) -> str | None:
        """Return the path of an image below the folder, with ``/``."""
        return self.names[row]

    def select(self, rows: np.ndarray) -> FileImages:
        """Return the images at ``rows`` (int64 ``[N]``), in that order; no file is read."""
        return FileImages(self.folder, self.names.select(rows), self.decoding)
