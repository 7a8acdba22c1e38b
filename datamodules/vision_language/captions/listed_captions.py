"""SBU and Conceptual Captions: one caption an image, in lists of paths or of addresses."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lit_ssl.datamodules.reading.folders import find_file
from lit_ssl.datamodules.reading.json_stream import json_items
from lit_ssl.datamodules.reading.listing import FolderListing
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.vision_language.caption_source import CaptionSource
from lit_ssl.datamodules.vision_language.captions.found_captions import (
    Caption,
    FoundCaptions,
    MissingImages,
    check_missing_images,
    safe_path,
)
from lit_ssl.errors import InputError, quoted
from lit_ssl.files import text_lines

__all__ = ["ConceptualCaptions", "SBUCaptions"]

_LETTERS = 4  # of the name of an image, which are the name of its folder
_TABLES = {
    "train": ("Train_GCC-training.tsv", "training"),
    "val": ("Validation_GCC-1.1.0-Validation.tsv", "validation"),
}


class SBUCaptions(CaptionSource):
    """SBU captions: photographs of Flickr with what their owners wrote, one each.

    Expected in ``root``: ``annot.json``, a list of [path, caption], and the images in
    ``images_train/<four letters>/<name>``, where the letters are the first four of the name. Of a
    path in the list only what follows ``images_train/`` counts, or else the name of the file, so
    that lists of another machine can be read. There are training images only.

    Args:
        root: Folder with the files.
        missing_images: "error" stops where images are not there; "skip" leaves out their captions,
            and a warning says how many: many addresses of SBU are dead.

    Source: Ordonez et al., Im2Text, NeurIPS 2011; the layout is ViLT's, arXiv 2102.03334.
    """

    name = "SBU"

    def __init__(self, root: str, missing_images: MissingImages = "error") -> None:
        check_missing_images(missing_images)
        self.root = Path(root).expanduser()
        self.missing_images = missing_images

    def load_rows(self, split: Split) -> Rows | None:
        """Return all captions as training split; there is no other one."""
        if split != "train":
            return None
        path = find_file(self.root, ["annot.json"], self.name)
        found = FoundCaptions(self.name, path, self.root, self.missing_images)
        captions = _annotated(path, "images_train")
        return found.rows(captions, FolderListing(self.root).__contains__)


class ConceptualCaptions(CaptionSource):
    """Conceptual Captions (CC3M, CC12M): images of the web with cleaned texts, one each.

    Expected in ``root``, for the training split and, where it is there, for validation, either

    - ``train_annot.json`` (or ``annot.json``) and ``val_annot.json``, lists of [path, caption],
      with the images in ``images_train/`` and ``images_val/`` as for ``SBUCaptions``;
    - or the official ``Train_GCC-training.tsv`` and ``Validation_GCC-1.1.0-Validation.tsv``, a
      caption, a tab and an address a line, with the images in ``training/`` and ``validation/``
      under the name ``<line, from 0>_<CRC-32 of the address>``, as the usual script for fetching
      them has it; so no caption gets the image of another line.

    The first that is there is read, and a line says which.

    Args:
        root: Folder with the files.
        missing_images: "error" stops where images are not there; "skip" leaves out their captions,
            and a warning says how many: many addresses are dead.
        name: What lines about the run call it, where there are two of them.

    Source: Sharma et al., ACL 2018; Changpinyo et al., arXiv 2102.08981. The first layout is
    ViLT's, arXiv 2102.03334.
    """

    def __init__(
        self,
        root: str,
        missing_images: MissingImages = "error",
        name: str = "Conceptual Captions",
    ) -> None:
        check_missing_images(missing_images)
        self.root = Path(root).expanduser()
        self.missing_images = missing_images
        self.name = name

    def load_rows(self, split: Split) -> Rows | None:
        """Return the captions of train or val; None where there is no list of val, and of test."""
        if split not in _TABLES:
            return None
        table, folder = _TABLES[split]
        lists = [f"{split}_annot.json", *(["annot.json"] if split == "train" else []), table]
        if split == "val" and not any((self.root / name).exists() for name in lists):
            return None
        path = find_file(self.root, lists, self.name)
        rank_zero_info(f"{self.name}: the captions of {split} are read from {path}")
        if path.name == table:
            captions = _addressed(path, folder)
        else:
            captions = _annotated(path, f"images_{split}")
        found = FoundCaptions(self.name, path, self.root, self.missing_images)
        return found.rows(captions, FolderListing(self.root).__contains__)


def _annotated(path: Path, folder: str) -> Iterator[Caption]:
    """Captions of a list of [path, caption]."""
    number = -1
    for number, item in json_items(path):
        where = f"item {number}"
        if not isinstance(item, list) or len(item) != 2:
            raise InputError(f"{path}, {where}: expected [path, caption], found {quoted(item)}")
        try:
            yield where, _image_path(item[0], folder), item[1]
        except InputError as error:
            raise InputError(f"{path}, {where}: {error}") from error
    if number < 0:
        raise InputError(f"{path} lists nothing: expected [path, caption] of each image")


def _image_path(name: object, folder: str) -> str:
    """The path of an image below the root, from that which a list of any machine has."""
    parts = PurePosixPath(safe_path(name, Path("/"))).parts
    if folder in parts[:-1]:
        last = len(parts) - 1 - parts[::-1].index(folder)
        return "/".join(parts[last:])
    return f"{folder}/{parts[-1][:_LETTERS]}/{parts[-1]}"


def _addressed(path: Path, folder: str) -> Iterator[Caption]:
    """Captions of a table of captions and addresses."""
    number = 0
    for number, line in text_lines(path):
        where = f"line {number}"
        caption, tab, address = line.partition("\t")
        if not tab or not address or "\t" in address:
            raise InputError(
                f"{path}, {where}: expected a caption, a tab and an address, found {quoted(line)}"
            )
        checksum = zlib.crc32(address.encode())
        yield where, f"{folder}/{number - 1}_{checksum}", caption
    if not number:
        raise InputError(f"{path} lists nothing: expected a caption, a tab and an address a line")
