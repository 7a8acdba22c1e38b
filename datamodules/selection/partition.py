"""Which images make up the splits that a run uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch

from lit_ssl.datamodules.reading.images import ArrayImages, Images
from lit_ssl.datamodules.reading.skip_corrupt import ImageReader
from lit_ssl.datamodules.selection.stratified_split import stratified_split
from lit_ssl.datamodules.selection.subset import Subset, find_listed
from lit_ssl.errors import InputError

__all__ = ["Partition", "Split", "splits_of_stage"]

Split = Literal["train", "val", "test"]

# Which images are held out must not depend on the seed of a run, else runs cannot be compared.
_SPLIT_SEED = 0


def splits_of_stage(stage: str | None) -> tuple[Split, ...]:
    """Splits that a stage reads.

    Args:
        stage: "fit", "validate", "test", "predict" or None for all.
    """
    needed: dict[str | None, tuple[Split, ...]] = {
        "fit": ("train", "val"),
        "validate": ("val",),
        "test": ("test",),
        "predict": ("test",),
    }
    return needed.get(stage, ("train", "val", "test"))


class Partition:
    """The splits of one run, loaded when they are first asked for.

    Args:
        load: Returns the images of one of the data set's own splits, None if it has no such split.
        val_size: Number of training images held out as validation split. 0: the data set's own
            validation split, or its test split where it has none.
        subset: Part of the remaining training images to use.
        skip_corrupt: Whether unreadable images are replaced by the next readable one.
        class_name: Name of a class, for messages.
        val_file: List of the training images held out as validation split, in place of `val_size`.

    Raises:
        ValueError: Both `val_size` and `val_file` are given.
    """

    def __init__(
        self,
        load: Callable[[Split], Images | None],
        val_size: int = 0,
        subset: Subset | None = None,
        skip_corrupt: bool = False,
        class_name: Callable[[int], str] = str,
        val_file: str | None = None,
    ) -> None:
        if val_file is not None and val_size:
            raise InputError(
                f"val_file holds out the images of {val_file}: set val_size to 0, not {val_size}"
            )
        self._load = load
        self._val_size = val_size
        self._val_file = val_file
        self._subset = subset
        self._skip_corrupt = skip_corrupt
        self._class_name = class_name
        self._own: dict[Split, ImageReader | None] = {}
        self._divided: tuple[ImageReader, ImageReader | None] | None = None
        self._official: Images
        self._used: np.ndarray

    def __getitem__(self, split: Split) -> ImageReader | None:
        """Return the images of a split as the run uses it, None if there are none."""
        if split == "train":
            return self._divide()[0]
        if split == "val":
            if self._val_size or self._val_file is not None:
                return self._divide()[1]
            return self._own_split("val") or self._own_split("test")
        return self._own_split("test") or self._own_split("val")

    def positions(self, subset: Subset) -> np.ndarray:
        """Return the positions in the training split, as it is used, of the images of a subset."""
        self._divide()
        chosen = subset.select(self._official, self._used, self._class_name)
        return np.searchsorted(self._used, chosen)

    @property
    def num_corrupt(self) -> int:
        """Number of unreadable images met so far, in all splits."""
        readers = [*self._own.values(), *(self._divided or ())]
        return sum(reader.num_corrupt for reader in readers if reader is not None)

    def _own_split(self, split: Split) -> ImageReader | None:
        if split not in self._own:
            images = self._load(split)
            self._own[split] = ImageReader(images, self._skip_corrupt) if images else None
        return self._own[split]

    def _divide(self) -> tuple[ImageReader, ImageReader | None]:
        if self._divided is None:
            images = self._load("train")
            if not images:
                raise InputError("The training split has no images.")
            rest, held_out = self._hold_out(images)
            if self._subset is not None:
                rest = self._subset.select(images, rest, self._class_name)
            # Selecting copies; the common case of all images should not.
            train = images if len(rest) == len(images) else images.select(rest)
            self._official, self._used = _without_pixels(images), rest
            val = (
                ImageReader(images.select(held_out), self._skip_corrupt) if len(held_out) else None
            )
            self._divided = ImageReader(train, self._skip_corrupt), val
        return self._divided

    def _hold_out(self, images: Images) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the images that are not held out for validation, and of those that are."""
        if self._val_file is None:
            return stratified_split(images.labels, self._val_size, _SPLIT_SEED)
        listed = find_listed(self._val_file, images)
        return np.setdiff1d(np.arange(len(images)), listed), listed


def _without_pixels(images: Images) -> Images:
    """Labels and names of the images; pixels in memory would be kept there twice."""
    if not isinstance(images, ArrayImages):
        return images
    return ArrayImages(
        torch.zeros(1, 1, 1, 1, dtype=torch.uint8).expand(len(images), -1, -1, -1), images.labels
    )
