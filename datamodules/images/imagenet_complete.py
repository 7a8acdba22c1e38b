"""Signs that ImageNet was unpacked in part: archives, and classes that are much too small."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lit_ssl.datamodules.reading.walking import holds_image
from lit_ssl.errors import InputError, listed

__all__ = ["check_unpacked", "warn_of_missing_images"]

_NUM_CLASSES = 1000
_NUM_IMAGES = {"train": 1_281_167, "val": 50_000}


def check_unpacked(folder: Path) -> None:
    """Raise where the training folder has the archive of a class, but not its images.

    Args:
        folder: ``train/``.

    Raises:
        InputError: Some archives ``<wnid>.tar`` are not unpacked.
    """
    archives = sorted(folder.glob("n*.tar"))
    packed = [
        path.name
        for path in archives
        if re.fullmatch(r"n\d{8}", path.stem) and not _is_there(folder / path.stem)
    ]
    if packed:
        raise InputError(
            f"ImageNet: {len(packed):,} archives in {folder} are not unpacked: {listed(packed)}."
            f" Unpack each into a folder of its name ({folder / packed[0][:-4]}), or take it out of"
            " there to go without its class"
        )


def _is_there(folder: Path) -> bool:
    return folder.is_dir() and holds_image(folder)


def warn_of_missing_images(
    split: str, folder: Path, labels: np.ndarray, class_names: Sequence[str]
) -> None:
    """Warn of classes with less than half the usual number of images, and of another total.

    ImageNet's classes have 732 to 1,300 training images, 1,300 as a rule, and 50 for validation.

    Args:
        split: "train" or "val".
        folder: Folder of the split, for the message.
        labels: int64 ``[N]``.
        class_names: Names of the classes.
    """
    sizes = np.bincount(labels, minlength=len(class_names))
    usual = float(np.median(sizes[sizes > 0]))
    small = np.flatnonzero(2 * sizes < usual)
    if len(small):
        found = listed([f"{class_names[label]} ({sizes[label]:,})" for label in small.tolist()])
        rank_zero_warn(
            f"ImageNet: {len(small):,} of the {len(class_names):,} classes in {folder} have less"
            f" than half of the usual {usual:,.0f} images: {found}. If an archive was unpacked in"
            " part, an accuracy on these images is none on ImageNet"
        )
    elif len(class_names) == _NUM_CLASSES and len(labels) != _NUM_IMAGES[split]:
        rank_zero_warn(
            f"ImageNet: {folder} has {len(labels):,} images of 1,000 classes, not the"
            f" {_NUM_IMAGES[split]:,} of ImageNet-1k. If an archive was unpacked in part, an"
            " accuracy on these images is none on ImageNet"
        )
