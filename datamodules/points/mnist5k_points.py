"""MNIST-5k as clouds of points: the pixels with ink."""

from __future__ import annotations

from typing import Any

import numpy as np

from lit_ssl.datamodules.images.mnist5k import MNIST5kDataModule
from lit_ssl.datamodules.points.clouds import ArrayClouds
from lit_ssl.datamodules.points.points_module import PointsModule
from lit_ssl.datamodules.reading.images import ArrayImages
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split

__all__ = ["MNIST5kPointsDataModule"]

_HALF = 14  # pixels: half the side of an image


class MNIST5kPointsDataModule(PointsModule):
    """5,000 MNIST digits as points, one for each pixel with ink; no download.

    A point is (x, y, ink): x to the right and y upwards, each from −1 to 1 over the image, and ink
    in (0, 1]; all is scaled to the unit sphere together. A digit has 46 to 303 such pixels, 151 on
    average. Splits are those of ``MNIST5kDataModule``.

    Args:
        num_points: Points per digit.
        num_workers: Worker processes per loader; clouds in memory need none.
        val_size: Number of training digits held out for validation.
        kwargs: Arguments of ``PointsModule``.
    """

    class_names = tuple("0123456789")
    inputs = "digits"

    def __init__(
        self, *, num_points: int = 128, num_workers: int = 0, val_size: int = 500, **kwargs: Any
    ) -> None:
        super().__init__(
            num_points=num_points, num_workers=num_workers, val_size=val_size, **kwargs
        )

    def prepare_data(self) -> None:
        """Check that the digits can be loaded."""
        MNIST5kDataModule().prepare_data()

    def load_rows(self, split: Split) -> Rows | None:
        """Return the 4,000 training or the 1,000 test digits; there is no own validation split."""
        digits = MNIST5kDataModule().load_rows(split)
        if digits is None:
            return None
        assert isinstance(digits.source, ArrayImages)
        return Rows(_ink(digits.source.pixels[:, 0].numpy()), digits.columns)


def _ink(images: np.ndarray) -> ArrayClouds:
    """Points (x, y, ink) of grey images ``[N, 28, 28]``."""
    image, row, column = np.nonzero(images)
    x = (column + 0.5) / _HALF - 1
    y = 1 - (row + 0.5) / _HALF
    points = np.stack([x, y, images[image, row, column] / 255], axis=1).astype(np.float32)
    counts = np.bincount(image, minlength=len(images))
    return ArrayClouds(points, np.cumsum([0, *counts], dtype=np.int64))
