"""Any folder of images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lit_ssl.datamodules.loading.image_module import ImageDataModule
from lit_ssl.datamodules.reading.folders import class_folders, images_by_class
from lit_ssl.datamodules.reading.images import FileImages
from lit_ssl.datamodules.reading.layout import Layout, split_folders
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.reading.walking import (
    LeftOut,
    find_images,
    holds_image,
    visible_folders,
)
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.errors import check_choice, listed
from lit_ssl.files import layout_error

__all__ = ["ImageFolderDataModule"]

_NAME = "Image folder"


class ImageFolderDataModule(ImageDataModule):
    """Your own images, with or without classes, in any format that Pillow reads.

    The training images are in ``root/train``, or in ``root`` itself if there is no such folder;
    validation and test images in ``root/val`` (or ``valid``, ``validation``) and ``root/test``,
    both optional; capital letters do not matter. Each folder inside is a class (searched to any
    depth). A training folder without folders inside has images without labels: they get −1; so do
    test images without class folders. What is left out (files of other formats, hidden ones, broken
    links) is told in a warning.

    Args:
        root: The folder.
        image_size: Height and width of evaluation images: the shorter side is resized to 8/7 of it
            (256 for 224), then the centre is cut out.
        labelled: False ignores the folders: all images get the label −1.
        layout: Whether the folders in ``root`` are "splits" or "classes" of training images.
            "auto" goes by their names and what is in them: a folder ``train`` that holds images and
            no folders, beside others that hold images, is a class.
        allow_empty: Keep class folders without images, as classes without images; else they are an
            error, since they shift the labels of all that follow.
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
        layout: Layout = "auto",
        allow_empty: bool = False,
        val_size: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(val_size=val_size, **kwargs)
        check_choice("layout", layout, ("auto", "splits", "classes"))
        self.default_size = image_size
        self.root = Path(root).expanduser()
        self.labelled = labelled
        self.layout = layout
        self.allow_empty = allow_empty

    @cached_property
    def class_names(self) -> Sequence[str]:
        """Names of the class folders, sorted; empty if the images have no labels."""
        folder = self._folders["train"]
        if not folder.is_dir():
            raise layout_error(_NAME, folder, f"a folder with images at {folder}")
        if not self.labelled:
            return []
        names = class_folders(folder, self.allow_empty)
        if len(names) == 1:
            inside = visible_folders(folder / names[0])
            hint = f": set root to {folder / names[0]}?" if inside else ""
            found = f", which holds {listed([f'{name}/' for name in inside])}" if inside else ""
            rank_zero_warn(f"{folder} has one class only, {names[0]}{found}{hint}")
        return names

    def load_rows(self, split: Split) -> Rows | None:
        """Return the images of a split, None if it has no folder."""
        if split not in self._folders:
            # test images without labels cannot stand in for validation images
            return _unlabelled(self.root, []) if split == "val" and self._is_bare_test() else None
        folder = self._folders[split]
        if split == "test" and self._is_bare_test():
            rank_zero_warn(
                f"{folder} has no class folders: its images have the label -1, which is enough for"
                " predict"
            )
        elif self.class_names:
            return images_by_class(folder, self.class_names, _NAME)
        elif split != "train" and self.labelled and visible_folders(folder):
            rank_zero_warn(
                f"{folder} has folders, but {self._folders['train']} has no class folders: all"
                " images have the label -1"
            )
        left_out = LeftOut(folder)
        names = find_images(folder, left_out)
        if not names:
            raise layout_error(_NAME, folder, f"image files in {folder}{left_out.among()}")
        left_out.warn()
        return _unlabelled(folder, names)

    def _is_bare_test(self) -> bool:
        """Whether there are test images without class folders, and training images with them."""
        folder = self._folders.get("test")
        return bool(
            folder is not None
            and self.class_names
            and holds_image(folder)
            and not any(holds_image(folder / name) for name in visible_folders(folder))
        )

    @cached_property
    def _folders(self) -> dict[str, Path]:
        return split_folders(self.root, self.layout, _NAME)


def _unlabelled(folder: Path, names: Sequence[str]) -> Rows:
    labels = np.full(len(names), -1, dtype=np.int64)
    return Rows(FileImages(folder, names), {"label": labels})
