"""What happens with images, or other inputs, that cannot be read."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from lit_ssl.datamodules.reading.decoding import CorruptImageError
from lit_ssl.datamodules.reading.encoded import Jpeg
from lit_ssl.datamodules.reading.images import Images
from lit_ssl.errors import InputError

__all__ = ["ImageReader", "ReadableRows"]

Read = TypeVar("Read")


class ReadableRows:
    """Which rows of a split were found unreadable so far, and what is read in their place.

    Args:
        count: Rows of the split.
        inputs: What rows are, such as "images".
        error: What is raised for a row that cannot be read.
        skip: True puts the next readable row of the split in the place of an unreadable one, and
            warns once per row; False raises.
    """

    def __init__(self, count: int, inputs: str, error: type[InputError], skip: bool) -> None:
        self._count = count
        self._inputs = inputs
        self._error = error
        # In shared memory: workers report here what they find.
        self._corrupt = torch.zeros(count, dtype=torch.bool).share_memory_() if skip else None

    @property
    def skip(self) -> bool:
        """Whether unreadable rows are skipped."""
        return self._corrupt is not None

    @property
    def corrupt(self) -> np.ndarray:
        """Which rows this process and its workers found unreadable so far, bool ``[N]``."""
        if self._corrupt is None:
            return np.zeros(self._count, dtype=bool)
        return self._corrupt.numpy()

    def read(
        self, index: int, read: Callable[[int], Read], name: Callable[[int], str | None]
    ) -> tuple[Read, int]:
        """Return one input and its row, which is another than asked for where it is unreadable.

        Args:
            index: Row in the split.
            read: Reads a row.
            name: Names a row, for the warning.

        Raises:
            InputError: No row can be read: an error of the class that says of one that it cannot be
                read.
        """
        if self._corrupt is None:
            return read(index), index
        for step in range(self._count):
            candidate = (index + step) % self._count
            if self._corrupt[candidate]:
                continue
            try:
                return read(candidate), candidate
            except self._error as error:
                self._corrupt[candidate] = True
                called = name(candidate) or f"{self._inputs.removesuffix('s')} {candidate}"
                warnings.warn(f"Skipped: {_reason(error)} ({called})", stacklevel=3)
        raise self._error(f"None of the {self._count} {self._inputs} of this split can be read")


def _reason(error: BaseException) -> BaseException:
    """What an error comes from at first: its own words would advise to skip."""
    return error if error.__cause__ is None else _reason(error.__cause__)


class ImageReader:
    """Reads the images of one split, and says which one it has read.

    Args:
        images: The images.
        skip_corrupt: True puts the next readable image of the split in the place of an unreadable
            one, and warns once per image; False raises.
    """

    def __init__(self, images: Images, skip_corrupt: bool = False) -> None:
        self.images = images
        self._readable = ReadableRows(len(images), "images", CorruptImageError, skip_corrupt)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def folder(self) -> str | None:
        """Folder of the images; None where they lie in memory."""
        return getattr(self.images, "folder", None)

    def name(self, row: int) -> str | None:
        """Return the path of an image below the folder of its split, None if it has none.

        Args:
            row: of the image.
        """
        return self.images.name(row)

    def select(self, rows: np.ndarray) -> ImageReader:
        """Return a reader of the images at ``rows`` (int64 ``[N]``), in that order.

        Args:
            rows: their numbers.
        """
        return ImageReader(self.images.select(rows), self._readable.skip)

    @property
    def num_corrupt(self) -> int:
        """Number of images found unreadable so far, by this process and its workers."""
        return int(self.corrupt.sum())

    @property
    def corrupt(self) -> np.ndarray:
        """Which images this process and its workers found unreadable so far, bool ``[N]``."""
        return self._readable.corrupt

    def read(self, index: int, max_side: int | None = None) -> tuple[Tensor, int]:
        """Return one image and its row, which is another than asked for where that is unreadable.

        Args:
            index: Row of the image in the split.
            max_side: If given, larger images are shrunk so that their longer side fits.

        Returns:
            uint8 ``[C, H, W]`` and the row.

        Raises:
            CorruptImageError: The image (or, when skipping, every image) is unreadable.
        """
        read = partial(self.images.read, max_side=max_side)
        return self._readable.read(index, read, self.name)

    def read_encoded(self, index: int, max_side: int | None = None) -> tuple[Jpeg | Tensor, int]:
        """Return a JPEG file as it is where a device can decode it, else as ``read`` does.

        Args:
            index: See there.
            max_side: See there; a ``Jpeg`` is as large as it is.

        Returns:
            A ``Jpeg``, or uint8 ``[C, H, W]``; and its row.

        Raises:
            CorruptImageError: See there.
        """
        read = partial(self.images.read_encoded, max_side=max_side)
        return self._readable.read(index, read, self.name)

    def read_batch(self, rows: np.ndarray) -> Tensor | None:
        """Return several images at once where they are of one size for sure, else None.

        Args:
            rows: int64 ``[B]``.

        Returns:
            uint8 ``[B, C, H, W]``.
        """
        return self.images.read_batch(rows)
