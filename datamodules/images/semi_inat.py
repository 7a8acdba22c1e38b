"""Semi-iNat 2021 in its official layout."""

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
from lit_ssl.errors import InputError, listed
from lit_ssl.files import layout_error
from lit_ssl.numerals import whole_number

__all__ = ["SemiINat2021DataModule"]

_NAME = "Semi-iNat 2021"


class SemiINat2021DataModule(ImageDataModule):
    """Semi-iNat 2021: 810 species; 9,721 labelled and 313,248 unlabelled training images.

    Many of the unlabelled images are of species that are none of the classes, and all have the
    label −1. The classes are long-tailed. Expected: the folders ``l_train`` and ``val``, with one
    folder for each number of a class, and ``u_train``, as the official archives unpack (or inside a
    folder of the same name, as Kaggle's do). The labelled images come first. The 4,050 validation
    images are the test images too, since the official test images come without labels.

    In a ``SemiSupervisedDataModule`` without ``subset`` the supports are the labelled images.

    Args:
        root: Folder that holds them.
        image_size: Height and width of evaluation images: the shorter side is resized to 8/7 of it
            (256 for 224), then the centre is cut out.
        unlabelled: False leaves ``u_train`` out, for supervised training and fine-tuning.
        num_workers: Worker processes per loader.
        kwargs: Arguments of ``ImageDataModule``.

    Source: arXiv 2106.01364 and its data page.
    """

    def __init__(
        self,
        *,
        root: str,
        image_size: int = 224,
        unlabelled: bool = True,
        num_workers: int = 8,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_workers=num_workers, **kwargs)
        self.default_size = image_size
        self.root = Path(root).expanduser()
        self.unlabelled = unlabelled

    @cached_property
    def class_names(self) -> Sequence[str]:
        """Numbers of the species, in their order."""
        folder = self._folder("l_train")
        names = class_folders(folder)
        if not names:
            raise layout_error(
                _NAME, self.root, f"l_train/<number>/, val/<number>/ and u_train/ in {self.root}"
            )
        if wrong := [name for name in names if not _is_number(name)]:
            raise InputError(
                f"{_NAME}: the folders in {folder} should be numbers of classes, found"
                f" {listed(wrong)}"
            )
        return sorted(names, key=int)

    def load_rows(self, split: Split) -> Rows | None:
        """Return the training images, labelled ones first, or the validation images."""
        if split == "test":
            return None
        names = self.class_names
        if split == "val":
            return images_by_class(self._folder("val"), names, _NAME)
        folder = self._folder("l_train")
        by_class = [images_in(folder / name) for name in names]
        inside = folder.relative_to(self.root).as_posix()
        files = [
            f"{inside}/{name}/{file}"
            for name, found in zip(names, by_class, strict=True)
            for file in found
        ]
        labels = np.repeat(np.arange(len(names)), [len(found) for found in by_class])
        if not files:
            raise layout_error(_NAME, folder, f"image files in {folder}/<number>/")
        if self.unlabelled:
            more = self._unlabelled_files()
            files += more
            labels = np.concatenate([labels, np.full(len(more), -1)])
        return Rows(FileImages(self.root, files), {"label": labels})

    def _unlabelled_files(self) -> list[str]:
        folder = self._folder("u_train")
        found = images_in(folder) if folder.is_dir() else []
        if not found:
            raise layout_error(
                _NAME, folder, f"image files in {folder} (or unlabelled: false, without them)"
            )
        inside = folder.relative_to(self.root).as_posix()
        return [f"{inside}/{file}" for file in found]

    def _folder(self, name: str) -> Path:
        nested = self.root / name / name
        return nested if nested.is_dir() else self.root / name


def _is_number(name: str) -> bool:
    number = whole_number(name)
    return number is not None and number >= 0
