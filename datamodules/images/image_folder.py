"""Any folder of images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lit_ssl.datamodules.loading.image_module import ImageDataModule
from lit_ssl.datamodules.reading.folders import class_folders, images_by_class, images_in
from lit_ssl.datamodules.reading.images import FileImages
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.files import layout_error

__all__ = ["ImageFolderDataModule"]


class ImageFolderDataModule(ImageDataModule):
    """Your own images, with or without classes.

    The training images are in ``root/train``, or in ``root`` itself if there is no such folder;
    validation and test images in ``root/val`` and ``root/test``, both optional. Each folder inside
    is a class (searched to any depth). A training folder without folders inside has images without
    labels: they get −1.

    Args:
        root: The folder.
        image_size: Height and width of evaluation images: the shorter side is resized to 8/7 of it
            (256 for 224), then the centre is cut out.
        labelled: False ignores the folders: all images get the label −1.
        val_size: Number of training images held out for validation. 0 uses ``root/val``, else
            ``root/test``, else there is no validation.
        kwargs: Arguments of ``ImageDataModule``.
    """

    def __init__(
        self,
        *,
        root: str,
        image_size: int = 224,
        labelled: bool = True,
        val_size: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(val_size=val_size, **kwargs)
        self.default_size = image_size
        self.root = Path(root)
        self.labelled = labelled

    @cached_property
    def class_names(self) -> Sequence[str]:
        """Names of the class folders, sorted; empty if the images have no labels."""
        folder = self._folder("train")
        if not folder.is_dir():
            raise layout_error("Image folder", folder, f"a folder with images at {folder}")
        return class_folders(folder) if self.labelled else []

    def load_rows(self, split: Split) -> Rows | None:
        """Return the images of a split, None if it has no folder."""
        folder = self._folder(split)
        if split != "train" and not folder.is_dir():
            return None
        if self.class_names:
            return images_by_class(folder, self.class_names, "Image folder")
        names = images_in(folder)
        if not names:
            raise layout_error("Image folder", folder, f"image files in {folder}")
        return Rows(FileImages(folder, names), {"label": np.full(len(names), -1)})

    def _folder(self, split: Split) -> Path:
        whole = not any((self.root / name).is_dir() for name in ("train", "val", "test"))
        return self.root if split == "train" and whole else self.root / split
