"""ImageNet (ILSVRC 2012) and its subsets in the official layout."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lit_ssl.datamodules.images.imagenet_complete import check_unpacked, warn_of_missing_images
from lit_ssl.datamodules.images.imagenet_labels import find_label_file, read_validation_labels
from lit_ssl.datamodules.loading.image_module import ImageDataModule
from lit_ssl.datamodules.reading.folders import class_folders, images_by_class, images_in
from lit_ssl.datamodules.reading.images import FileImages
from lit_ssl.datamodules.reading.layout import split_folder
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.reading.walking import holds_image, visible_folders
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.errors import InputError, InputFileNotFoundError
from lit_ssl.files import layout_error

__all__ = ["ImageNetDataModule"]


class ImageNetDataModule(ImageDataModule):
    """ImageNet-1k, or any subset of its classes.

    Expected: ``train/<wnid>/*.JPEG`` and either ``val/<wnid>/*.JPEG`` or all validation images flat
    in ``val/`` with a file of their labels. Class i is the i-th of the sorted wnids in ``train/``.
    The validation images are the test images too. ``subset.file`` takes the usual low-shot lists
    (``<wnid>_<number>.JPEG`` on each line).

    Other files are left out, with a warning. Archives ``train/<wnid>.tar`` without their folder and
    classes without images are an error, and classes much smaller than the others a warning, since
    nothing else shows that ImageNet was unpacked in part.

    Args:
        root: Folder that holds ``train`` and ``val``.
        val_labels: Labels of a flat ``val/``: a list of file names and wnids (such as
            LOC_val_solution.csv), or the devkit's ILSVRC2012_validation_ground_truth.txt. None
            looks for them in ``root``.
        image_size: Height and width of evaluation images: the shorter side is resized to 8/7 of it
            (256 for 224), then the centre is cut out.
        num_workers: Worker processes per loader.
        allow_empty: Keep class folders without images, as classes without images.
        val_size: Number of training images held out for validation; 0 validates on ``val``.
        kwargs: Arguments of ``ImageDataModule``.
    """

    reported: ClassVar[Split] = "val"

    def __init__(
        self,
        *,
        root: str,
        val_labels: str | None = None,
        image_size: int = 224,
        num_workers: int = 8,
        allow_empty: bool = False,
        val_size: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_workers=num_workers, val_size=val_size, **kwargs)
        self.default_size = image_size
        self.root = Path(root).expanduser()
        self.val_labels = val_labels
        self.allow_empty = allow_empty

    @cached_property
    def class_names(self) -> Sequence[str]:
        """The wnids in ``train/``, sorted."""
        folder = split_folder(self.root, "train")
        check_unpacked(folder)
        names = class_folders(folder, self.allow_empty)
        if not names:
            raise layout_error("ImageNet", folder, f"folders {folder}/<wnid>/")
        return names

    def load_rows(self, split: Split) -> Rows | None:
        """Return the images of ``train`` or ``val``; there is no labelled test split."""
        if split == "test":
            return None
        folder = split_folder(self.root, split)
        in_folders = any(holds_image(folder / name) for name in visible_folders(folder))
        if split == "train" or in_folders:
            rows = images_by_class(folder, self.class_names, "ImageNet")
            warn_of_missing_images(split, folder, rows.labels, self.class_names)
            return rows
        names = images_in(folder, deep=False) if folder.is_dir() else []
        if not names:
            expected = f"image files in {folder}/<wnid>/, or flat in {folder}"
            raise layout_error("ImageNet", folder, expected)
        return Rows(FileImages(folder, names), {"label": self._flat_labels(names)})

    def _flat_labels(self, names: Sequence[str]) -> np.ndarray:
        path = Path(self.val_labels) if self.val_labels else find_label_file(self.root)
        if path is None:
            raise InputFileNotFoundError(
                f"ImageNet: {self.root / 'val'} holds its images flat, and no file with their"
                f" labels is in {self.root}. Set val_labels to a list of file names and wnids"
                " (such as LOC_val_solution.csv) or to the devkit's"
                " ILSVRC2012_validation_ground_truth.txt, or sort the images into folders"
                " val/<wnid>/"
            )
        wnids = read_validation_labels(path, names)
        index = {wnid: label for label, wnid in enumerate(self.class_names)}
        unknown = sorted(set(wnids) - set(index))
        if unknown:
            raise InputError(
                f"ImageNet: {path} has {len(unknown)} classes that {self.root / 'train'} does not"
                f" have, for example {unknown[0]}. Keep only validation images of the training"
                " classes"
            )
        return np.asarray([index[wnid] for wnid in wnids], dtype=np.int64)
