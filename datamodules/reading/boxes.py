"""Images in files of which only a box is wanted."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torchvision.transforms.v2.functional as F
from torch import Tensor

from lit_ssl.datamodules.reading.decoding import AS_USUAL, CorruptImageError, Decoding
from lit_ssl.datamodules.reading.images import FileImages, PackedStrings

__all__ = ["BoxImages"]


class BoxImages(FileImages):
    """RGB images in files below one folder, cut out to a box each when they are read.

    Args:
        folder: Folder of the split.
        names: Paths below it, with ``/``.
        boxes: float64 ``[N, 4]``: left, top, width and height in pixels of the whole image. Parts
            of pixels count as whole ones, and what lies beyond the image is left out.
        decoding: What is below transparent pixels, and which value is white.
    """

    def __init__(
        self,
        folder: str | Path,
        names: Iterable[str] | PackedStrings,
        boxes: np.ndarray,
        decoding: Decoding = AS_USUAL,
    ) -> None:
        super().__init__(folder, names, decoding)
        self.boxes = boxes

    def read(self, index: int, max_side: int | None = None) -> Tensor:
        """Decode the box of an image to uint8 ``[3, H, W]``, no side longer than ``max_side``."""
        image = super().read(index)
        left, top, width, height = self.boxes[index].tolist()
        rows = slice(max(0, math.floor(top)), max(0, math.ceil(top + height)))
        columns = slice(max(0, math.floor(left)), max(0, math.ceil(left + width)))
        part = image[:, rows, columns]
        if 0 in part.shape:
            raise CorruptImageError(
                f"The box of {self.names[index]} ({left:g}, {top:g}, {width:g} x {height:g}) lies"
                f" outside of its {image.shape[2]} x {image.shape[1]} pixels. Mend the box, or set"
                " on_corrupt: skip"
            )
        longest = max(part.shape[1:])
        if max_side is None or longest <= max_side:
            return part.clone()  # without the rest of the image
        size = [max(1, round(side * max_side / longest)) for side in part.shape[1:]]
        return F.resize(part, size, F.InterpolationMode.BICUBIC, antialias=True)

    def select(self, rows: np.ndarray) -> BoxImages:
        """Return the images at ``rows`` (int64 ``[N]``), in that order; no file is read."""
        names = self.names.select(rows)
        return BoxImages(self.folder, names, self.boxes[rows], self.decoding)
