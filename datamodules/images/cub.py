"""CUB-200-2011 in its official layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lit_ssl.datamodules.images.cub_files import CUBFiles
from lit_ssl.datamodules.loading.image_module import ImageDataModule
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.errors import InputError

__all__ = ["CUB200DataModule"]


class CUB200DataModule(ImageDataModule):
    """CUB-200-2011: 5,994 training and 5,794 test images of 200 species of birds.

    Expected, as the official archive unpacks: ``CUB_200_2011/`` with ``images.txt``,
    ``image_class_labels.txt``, ``train_test_split.txt``, ``classes.txt`` and ``images/``, and where
    they are asked for ``bounding_boxes.txt``, ``attributes/image_attribute_labels.txt`` and
    ``attributes.txt`` (beside the folder). Class i has the number i + 1 there. There are no
    official validation images: without ``val_size`` these are the test images.

    Args:
        root: The folder ``CUB_200_2011``, or the one that holds it.
        crop_to_box: Read the box of the bird in place of the whole image.
        attributes: Read the 312 attributes of each image, for ``attribute_array``; batches stay
            (images, labels). For groups by one of them there is ``CUBGroupsDataModule``.
        image_size: Height and width of evaluation images: the shorter side is resized to 8/7 of it
            (256 for 224), then the centre is cut out.
        num_workers: Worker processes per loader.
        val_size: Number of training images held out for validation; 0 validates on the test images.
        kwargs: Arguments of ``ImageDataModule``.
    """

    def __init__(
        self,
        *,
        root: str,
        crop_to_box: bool = False,
        attributes: bool = False,
        image_size: int = 224,
        num_workers: int = 8,
        val_size: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_workers=num_workers, val_size=val_size, **kwargs)
        self.default_size = image_size
        self.crop_to_box = crop_to_box
        self.attributes = attributes
        self._files = CUBFiles(root)

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the species, such as ``001.Black_footed_Albatross``."""
        return self._files.class_names

    @property
    def attribute_names(self) -> Sequence[str]:
        """Names of the 312 attributes, such as ``has_bill_shape::dagger``."""
        return self._files.attribute_names

    def attribute_array(self, split: Split) -> np.ndarray:
        """Return the attributes of the images of a split, as it is used.

        Args:
            split: which split.

        Returns:
            int64 ``[N, 312]``: 1 where an attribute is there, 0 where not, −1 where the annotator
            could not see the part.

        Raises:
            InputError: They were not asked for.
        """
        if not self.attributes:
            raise InputError("CUB200DataModule reads attributes only with attributes: true")
        return self.column("attributes", split)

    def load_rows(self, split: Split) -> Rows | None:
        """Return the training or test images; there is no own validation split."""
        if split == "val":
            return None
        rows = self._files.rows_of(split)
        columns = {"label": self._files.labels[rows]}
        if self.attributes:
            columns["attributes"] = self._files.attributes[rows]
        return Rows(self._files.images(rows, self.crop_to_box), columns)
