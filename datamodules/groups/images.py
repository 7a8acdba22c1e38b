"""Images with a class and an attribute."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np
import torchvision.transforms.v2.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from lit_ssl.datamodules.groups.data import GroupedData
from lit_ssl.datamodules.groups.loaders import rows_for_labels
from lit_ssl.datamodules.loading.batches import EvaluationSet, RawSet, ViewSet
from lit_ssl.datamodules.loading.image_module import ImageDataModule
from lit_ssl.datamodules.reading.images import ArrayImages, FileImages, PackedStrings
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.errors import InputError
from lit_ssl.transforms import EvalTransform

__all__ = [
    "CropThenResize",
    "GroupImageDataModule",
    "GroupedArrays",
    "GroupedFiles",
    "SquareThenCrop",
]


class GroupedFiles(FileImages):
    """RGB images in files, with attributes.

    Args:
        folder: Folder of the split.
        names: Paths below it, with `/`.
        labels: int64 `[N]`.
        attributes: int64 `[N]`, −1 where unknown.
    """

    def __init__(
        self,
        folder: str,
        names: Iterable[str] | PackedStrings,
        labels: np.ndarray,
        attributes: np.ndarray,
    ) -> None:
        super().__init__(folder, names, labels)
        self.attributes = np.asarray(attributes, dtype=np.int64)

    def select(self, indices: np.ndarray) -> GroupedFiles:
        """Return the images at `indices` (int64 `[N]`), in that order; no file is read."""
        names = self.names.select(indices)
        return GroupedFiles(self.folder, names, self.labels[indices], self.attributes[indices])


class GroupedArrays(ArrayImages):
    """Images of one size in memory, with attributes.

    Args:
        pixels: uint8 `[N, C, H, W]`.
        labels: int64 `[N]`.
        attributes: int64 `[N]`, −1 where unknown.
    """

    def __init__(self, pixels: Tensor, labels: np.ndarray, attributes: np.ndarray) -> None:
        super().__init__(pixels, labels)
        self.attributes = np.asarray(attributes, dtype=np.int64)

    def select(self, indices: np.ndarray) -> GroupedArrays:
        """Return a copy of the images at `indices` (int64 `[N]`), in that order."""
        pixels = self.read_batch(indices)
        return GroupedArrays(pixels, self.labels[indices], self.attributes[indices])


class GroupImageDataModule(GroupedData, ImageDataModule):
    """Images whose class goes along with an attribute in training, such as its background.

    A batch is `(images, labels, groups)`, see `GroupedData`.

    Args:
        group_label_fraction: Share of the training rows whose attribute is known, in (0, 1], drawn
            uniformly from those that have one; the others count as unknown (−1). A larger share
            keeps the rows of a smaller one.
        group_label_seed: Seed of that choice; it does not depend on `seed`, so that methods and
            repetitions are compared on the same rows.
        group_labels: CSV file with an attribute of every training row, predicted where it was not
            known (`lit_ssl.groups.label_files`); with probabilities in it, training batches carry
            float32 `[B, G]`.
        kwargs: Arguments of `ImageDataModule`.
    """

    def __init__(
        self,
        *,
        group_label_fraction: float = 1.0,
        group_label_seed: int = 0,
        group_labels: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if self.classes_per_batch is not None:
            raise InputError(
                f"{type(self).__name__} takes no classes_per_batch: the method weights its training"
                " rows. Leave it out."
            )
        self._init_groups(group_label_fraction, group_label_seed, group_labels)

    @abstractmethod
    def load_images(self, split: Split) -> GroupedFiles | GroupedArrays | None:
        """Return the images of one of the data set's own splits, None if it has no such split."""

    def setup(self, stage: str | None = None) -> None:
        """Find the images of a stage and, for training, say how many group labels there are.

        Args:
            stage: "fit", "validate", "test", "predict" or None for all.
        """
        super().setup(stage)
        if stage in ("fit", None):
            self.report_groups()

    def attribute_array(self, split: Split) -> np.ndarray:
        """Return the attributes in the data, int64 `[N]`, −1 where the data do not say."""
        reader = self._splits[split]
        if reader is None:
            return np.empty(0, dtype=np.int64)
        assert isinstance(reader.images, GroupedFiles | GroupedArrays)
        return reader.images.attributes

    def _rows(self, split: Split, training: bool = False) -> Dataset:
        reader = rows_for_labels(self._require(split))
        if not training or self.train_transform is None:
            return EvaluationSet(reader, self.eval_transform)
        if self.augment == "device":
            return RawSet(reader, self.canvas_size)
        return ViewSet(reader, self.train_transform)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Make the views where that was left to the device, scale to [0, 1] and normalise.

        Args:
            batch: (images, labels, groups); see `ImageDataModule`.
            dataloader_idx: Index of the loader, unused.
        """
        images, *targets = batch
        return self.finish(images, self.train_transform), *targets


class SquareThenCrop(EvalTransform):
    """Resizes to a square, whatever the shape of the image, then cuts out the centre.

    Args:
        size: Pixels per side of the result.
        resize: Pixels per side of the square, >= `size`.

    Source: the released code of arXiv 1911.08731, for Waterbirds.
    """

    def __init__(self, size: int, resize: int) -> None:
        super().__init__(size, resize=resize)

    def __call__(self, image: Tensor) -> Tensor:
        """Transform uint8 `[..., C, H, W]`."""
        square = F.resize(image, [self.resize, self.resize], antialias=True)
        return F.center_crop(square, [self.size, self.size])


class CropThenResize(EvalTransform):
    """Cuts out the largest centred square, at most `crop` pixels wide, then resizes it.

    Args:
        size: Pixels per side of the result.
        crop: Pixels per side of the part of the image to keep.

    Source: the released code of arXiv 1911.08731, for CelebA (178 of 178 x 218).
    """

    def __init__(self, size: int, crop: int) -> None:
        super().__init__(size)
        self.crop = crop

    def __call__(self, image: Tensor) -> Tensor:
        """Transform uint8 `[..., C, H, W]`."""
        side = min(self.crop, *image.shape[-2:])
        return F.resize(F.center_crop(image, [side, side]), [self.size, self.size], antialias=True)
