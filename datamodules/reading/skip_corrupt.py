"""What happens with images that cannot be read."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from lit_ssl.datamodules.reading.decoding import CorruptImageError
from lit_ssl.datamodules.reading.images import ArrayImages, Images

__all__ = ["ImageReader"]


class ImageReader:
    """Reads the images of one split, and says which one it has read.

    Args:
        images: The images.
        skip_corrupt: True puts the next readable image of the split in the place of an unreadable
            one, and warns once per image; False raises.
    """

    def __init__(self, images: Images, skip_corrupt: bool = False) -> None:
        self.images = images
        # In shared memory: workers report here what they find.
        self._corrupt = (
            torch.zeros(len(images), dtype=torch.bool).share_memory_() if skip_corrupt else None
        )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def folder(self) -> str | None:
        """Folder of the images; None where they lie in memory."""
        return getattr(self.images, "folder", None)

    def name(self, row: int) -> str | None:
        """Return the path of an image below the folder of its split, None if it has none."""
        return self.images.name(row)

    def select(self, rows: np.ndarray) -> ImageReader:
        """Return a reader of the images at ``rows`` (int64 ``[N]``), in that order."""
        return ImageReader(self.images.select(rows), self._corrupt is not None)

    @property
    def num_corrupt(self) -> int:
        """Number of images found unreadable so far, by this process and its workers."""
        return 0 if self._corrupt is None else int(self._corrupt.sum())

    @property
    def corrupt(self) -> np.ndarray:
        """Which images this process and its workers found unreadable so far, bool ``[N]``."""
        if self._corrupt is None:
            return np.zeros(len(self), dtype=bool)
        return self._corrupt.numpy()

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
        if self._corrupt is None:
            return self.images.read(index, max_side), index
        for step in range(len(self)):
            candidate = (index + step) % len(self)
            if self._corrupt[candidate]:
                continue
            try:
                return self.images.read(candidate, max_side), candidate
            except CorruptImageError as error:
                self._corrupt[candidate] = True
                name = self.name(candidate) or f"image {candidate}"
                warnings.warn(f"Skipped: {error.__cause__ or error} ({name})", stacklevel=2)
        raise CorruptImageError(f"None of the {len(self)} images of this split can be read")

    def read_batch(self, rows: np.ndarray) -> Tensor | None:
        """Return several images at once where they lie in memory in one size, else None.

        Args:
            rows: int64 ``[B]``.

        Returns:
            uint8 ``[B, C, H, W]``.
        """
        return self.images.read_batch(rows) if isinstance(self.images, ArrayImages) else None
