"""Digits whose colour goes along with their class."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch

from lit_ssl.datamodules.groups.images import GroupImageDataModule
from lit_ssl.datamodules.images.mnist5k import MNIST5kDataModule
from lit_ssl.datamodules.reading.images import ArrayImages
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.selection.stratified_split import stratified_split
from lit_ssl.errors import InputError
from lit_ssl.seeding import Stream, uniform

__all__ = ["ColouredMNISTDataModule"]

_SPLIT_SEED = 0
_STREAM = {"train": 0, "val": 1, "test": 2}


class ColouredMNISTDataModule(GroupImageDataModule):
    """MNIST-5k in red or green: is the digit at least 5? In training, the colour nearly tells.

    The image is ``digit · (0.5 + δ)`` in the first channel and ``digit · (0.5 − δ)`` in the second,
    with δ = ±contrast plus Gaussian noise, one per image. The sign is the attribute: it agrees with
    the class with the given probability in training, while validation and test images come in both
    colours, so that their groups are balanced: 3,200 training, 1,600 validation and 2,000 test
    images. Pixels are scaled to [0, 1] and not normalised.

    Args:
        correlation: Probability in training that green (red) is a digit below (from) 5, in [0, 1].
        contrast: Size of δ, in (0, 0.5].
        jitter: Standard deviation of its noise, >= 0. About 0.2 makes the colour hard to tell.
        colour_seed: Seed of colours and noise; it does not depend on ``seed``.
        val_size: Number of the 4,000 digits held out for validation.
        channels: 2; or 3, the third empty, for networks that want colour images.
        num_workers: Worker processes per loader; in-memory images need none.
        kwargs: Arguments of ``GroupImageDataModule``.

    Raises:
        InputError: An option lies out of its range.
    """

    class_names = ("0-4", "5-9")
    attribute_names = ("green", "red")
    default_mean = (0.0,)
    default_std = (1.0,)
    default_size, default_margin = 28, 1  # as they are

    def __init__(
        self,
        *,
        correlation: float = 0.97,
        contrast: float = 0.25,
        jitter: float = 0.08,
        colour_seed: int = 0,
        val_size: int = 800,
        channels: Literal[2, 3] = 2,
        num_workers: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_workers=num_workers, **kwargs)
        if not 0 <= correlation <= 1 or not 0 < contrast <= 0.5 or jitter < 0:
            raise InputError(
                "ColouredMNISTDataModule needs correlation in [0, 1], contrast in (0, 0.5] and"
                f" jitter >= 0, got {correlation}, {contrast} and {jitter}"
            )
        if channels not in (2, 3) or val_size < 1:
            raise InputError(
                f"channels must be 2 or 3 and val_size at least 1, got {channels} and {val_size}"
            )
        self.correlation = correlation
        self.contrast = contrast
        self.jitter = jitter
        self.colour_seed = colour_seed
        self.in_channels = channels
        self._held_out = val_size

    def prepare_data(self) -> None:
        """Check that the digits can be loaded."""
        MNIST5kDataModule().prepare_data()

    def load_rows(self, split: Split) -> Rows | None:
        """Return the coloured digits of a split."""
        digits = MNIST5kDataModule().load_rows("test" if split == "test" else "train")
        assert digits is not None
        if split != "test":
            # Held out before colouring: each validation digit comes in both colours.
            train, held_out = stratified_split(digits.labels, self._held_out, _SPLIT_SEED)
            digits = digits.select(train if split == "train" else held_out)
        assert isinstance(digits.source, ArrayImages)
        pixels, labels = digits.source.pixels, (digits.labels >= 5).astype(np.int64)
        if split == "train":
            agrees = self._uniform(Stream.COLOUR_AGREES, split, len(labels)) < self.correlation
            return self._coloured(split, pixels, labels, np.where(agrees, labels, 1 - labels))
        both = pixels.repeat(2, 1, 1, 1)
        return self._coloured(split, both, np.tile(labels, 2), np.repeat([0, 1], len(labels)))

    def _coloured(
        self, split: Split, pixels: torch.Tensor, labels: np.ndarray, colours: np.ndarray
    ) -> Rows:
        # Box and Muller's method; 1 − u is in (0, 1].
        radius = np.sqrt(-2 * np.log(1 - self._uniform(Stream.COLOUR_RADIUS, split, len(labels))))
        normal = radius * np.cos(2 * np.pi * self._uniform(Stream.COLOUR_ANGLE, split, len(labels)))
        delta = (2 * colours - 1) * self.contrast + self.jitter * normal
        shares = torch.from_numpy(np.stack([0.5 + delta, 0.5 - delta], axis=1)).view(-1, 2, 1, 1)
        coloured = torch.zeros(len(labels), self.in_channels, 28, 28, dtype=torch.uint8)
        coloured[:, :2] = (pixels * shares).round().clamp(0, 255).to(torch.uint8)
        return Rows(ArrayImages(coloured), {"label": labels, "attribute": colours})

    def _uniform(self, stream: Stream, split: Split, count: int) -> np.ndarray:
        """Numbers in [0, 1), a pure function of ``colour_seed``, the stream and the split."""
        return uniform(self.colour_seed, stream, _STREAM[split], np.arange(count))
