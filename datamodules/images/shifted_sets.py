"""ImageNet-R and ImageNet-A as further test sets of a data set with some of their classes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lit_ssl.datamodules.reading.images import FileImages
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.reading.walking import LeftOut, find_images, holds_image, visible_folders
from lit_ssl.errors import InputError, listed
from lit_ssl.files import layout_error

__all__ = ["SHIFTED_SETS", "TINY_IMAGENET_R", "ShiftedSet", "find_shifted_set"]

# The classes that ImageNet-R (200) and Tiny-ImageNet (200) share.
TINY_IMAGENET_R = (
    "n01443537", "n01770393", "n01774750", "n01784675", "n01855672", "n01882714", "n01910747",
    "n01944390", "n01983481", "n02056570", "n02085620", "n02094433", "n02099601", "n02099712",
    "n02106662", "n02113799", "n02123045", "n02129165", "n02165456", "n02190166", "n02206856",
    "n02226429", "n02233338", "n02236044", "n02268443", "n02279972", "n02364673", "n02395406",
    "n02410509", "n02423022", "n02480495", "n02481823", "n02486410", "n02769748", "n02793495",
    "n02802426", "n02808440", "n02814860", "n02841315", "n02843684", "n02883205", "n02906734",
    "n02909870", "n02948072", "n02950826", "n03424325", "n03649909", "n04118538", "n04133789",
    "n04146614", "n04275548", "n04465501", "n07614500", "n07695742", "n07720875", "n07734744",
    "n07749582", "n07753592", "n07768694", "n07873807", "n07920052", "n12267677",
)  # fmt: skip
_NAMES = {"r": "Tiny-ImageNet-R", "a": "Tiny-ImageNet-A"}
_FOLDERS = {"r": ("tiny-imagenet-r", "imagenet-r"), "a": ("tiny-imagenet-a", "imagenet-a")}
SHIFTED_SETS = tuple(_FOLDERS)


class ShiftedSet(NamedTuple):
    """Images of some classes of a data set, from elsewhere.

    Attributes:
        rows: The images; labels are those of the data set.
        classes: The classes that an answer may be, ascending.
        found: What there is, in one line.
    """

    rows: Rows
    classes: tuple[int, ...]
    found: str


def find_shifted_set(kind: str, places: Sequence[Path], class_names: Sequence[str]) -> ShiftedSet:
    """Find Tiny-ImageNet-R or -A: a folder of that name, or all of ImageNet-R or -A.

    The classes of -R are the published 62, as far as the data set has them, also where images of
    some are missing, which a warning says. There is no published list for -A: its classes are those
    of the data set that have a folder with images.

    Args:
        kind: "r" or "a".
        places: Folders that may hold the folder ``tiny-imagenet-r`` or ``imagenet-r``
            (``…-a``), one folder of images for each wnid inside; the first that is there counts.
        class_names: The data set's wnids, in the order of the labels.

    Raises:
        InputError: No such folder is there (FileNotFoundError), it has no image of these classes,
            or a folder named for Tiny-ImageNet has other classes.
    """
    name = _NAMES[kind]
    paths = [place / folder for folder in _FOLDERS[kind] for place in places]
    folder = next((path for path in paths if path.is_dir()), None)
    if folder is None:
        expected = " or ".join(f"{folder}/<wnid>/" for folder in _FOLDERS[kind])
        where = " or ".join(map(str, places))
        raise layout_error(name, places[0], f"{expected} in {where} (or leave {kind!r} out of ood)")
    labels = {wnid: label for label, wnid in enumerate(class_names)}
    there = [wnid for wnid in visible_folders(folder) if re.fullmatch(r"n\d{8}", wnid)]
    foreign = [wnid for wnid in there if wnid not in labels]
    if foreign and folder.name == _FOLDERS[kind][0]:
        raise InputError(
            f"{name}: {folder} has {len(foreign)} classes that the training images do not have:"
            f" {listed(foreign)}. Take them out, or name the folder {_FOLDERS[kind][1]} if it is"
            " the whole set, of which the shared classes are taken"
        )
    if kind == "r":
        wanted = [wnid for wnid in TINY_IMAGENET_R if wnid in labels]
    else:
        wanted = [wnid for wnid in there if wnid in labels and holds_image(folder / wnid)]
    left_out = LeftOut(folder)
    files = {
        wnid: find_images(folder / wnid, left_out) if (folder / wnid).is_dir() else []
        for wnid in sorted(wanted, key=labels.__getitem__)
    }
    left_out.warn()
    names = [f"{wnid}/{file}" for wnid, found in files.items() for file in found]
    if not names:
        raise layout_error(name, folder, f"images of the training classes in {folder}/<wnid>/")
    if lacking := [wnid for wnid, found in files.items() if not found]:
        rank_zero_warn(
            f"{name}: {folder} has no image of {len(lacking)} of the {len(files)} classes"
            f" ({listed(lacking)}): an accuracy on the others is none on {name}"
        )
    present = [labels[wnid] for wnid, found in files.items() for _ in found]
    rows = Rows(FileImages(folder, names), {"label": np.asarray(present, dtype=np.int64)})
    classes, images = len(files) - len(lacking), f"image{'s' * (len(rows) != 1)}"
    found = f"{len(rows):,} {images} of {classes} of {len(class_names):,} classes in {folder}"
    return ShiftedSet(rows, tuple(labels[wnid] for wnid in files), found)
