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
    """Reads the labelled images of one split.

    Args:
        images: The images.
        skip_corrupt: True puts the next readable image of the split (with its own label) in the
            place of an unreadable one, and warns once per image; False raises.
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
    def labels(self) -> np.ndarray:
        """Labels of the images, int64 `[N]`, −1 where unknown."""
        return self.images.labels

    @property
    def num_corrupt(self) -> int:
        """Number of images found unreadable so far, by this process and its workers."""
        return 0 if self._corrupt is None else int(self._corrupt.sum())

    @property
    def one_size(self) -> bool:
        """Whether all images are known to have one size."""
        return isinstance(self.images, ArrayImages)

    def read(self, index: int, max_side: int | None = None) -> tuple[Tensor, int]:
        """Return one image and its label.

        Args:
            index: Index of the image in the split.
            max_side: If given, larger images are shrunk so that their longer side fits.

        Returns:
            uint8 `[C, H, W]` and the label.

        Raises:
            CorruptImageError: The image (or, when skipping, every image) is unreadable.
        """
        if self._corrupt is None:
            return self.images.read(index, max_side), int(self.images.labels[index])
        for step in range(len(self)):
            candidate = (index + step) % len(self)
            if self._corrupt[candidate]:
                continue
            try:
                image = self.images.read(candidate, max_side)
            except CorruptImageError as error:
                self._corrupt[candidate] = True
                warnings.warn(
                    f"Skipped: {error.__cause__ or error} ({self._path(candidate)})", stacklevel=2
                )
                continue
            return image, int(self.images.labels[candidate])
        raise CorruptImageError(f"None of the {len(self)} images of this split can be read.")

    def read_batch(self, indices: np.ndarray) -> tuple[Tensor, Tensor] | None:
        """Return several images at once where they lie in memory in one size, else None.

        Args:
            indices: int64 `[B]`.

        Returns:
            uint8 `[B, C, H, W]` and int64 `[B]`.
        """
        if not isinstance(self.images, ArrayImages):
            return None
        return self.images.read_batch(indices), torch.from_numpy(self.images.labels[indices])

    def _path(self, index: int) -> str:
        return self.images.name(index) or f"image {index}"
