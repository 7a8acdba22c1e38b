"""From the lists of a data set to rows of captions, with what is missing said."""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from lit_ssl.datamodules.reading.decoding import CorruptImageError
from lit_ssl.datamodules.reading.images import FileImages, PackedStrings
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.vision_language.image_captions import CaptionedImages
from lit_ssl.errors import (
    InputError,
    InputFileNotFoundError,
    check_choice,
    listed,
    quoted,
    shortened,
)
from lit_ssl.files import layout_error

__all__ = ["Caption", "FoundCaptions", "MissingImages", "check_missing_images", "safe_path"]

MissingImages = Literal["error", "skip"]
# Where it stands, the name of its image, and the text.
Caption = tuple[str, str, str]

_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, which no UTF-8 has
_ADDRESS = re.compile("[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def check_missing_images(value: str) -> None:
    """Raise ``InputError`` unless ``missing_images`` has a valid value.

    Args:
        value: ``error`` or ``skip``.
    """
    check_choice("missing_images", value, ("error", "skip"))


def safe_path(name: object, folder: Path) -> str:
    """Return the path of an image below a folder, as a list names it, with ``/``.

    Args:
        name: What stands in the list.
        folder: The folder; an absolute path has to lie below it.

    Raises:
        InputError: It is no path, or leads out of the folder.
    """
    if not isinstance(name, str) or not name.strip() or "\0" in name or "\n" in name:
        raise InputError(f"expected the path of an image, found {quoted(name)}")
    if _SURROGATE.search(name):
        raise InputError(f"expected the path of an image in UTF-8, found {quoted(name)}")
    if _ADDRESS.match(name):
        raise InputError(
            f"expected the path of an image on this machine, found the address"
            f" {shortened(name, 80)}: fetch the images first, and list their files"
        )
    path = PurePosixPath(name)
    if path.is_absolute():
        whole = os.path.abspath(folder)
        if not path.is_relative_to(whole):
            raise InputError(
                f"the image {shortened(name)} does not lie in {folder}: list paths below it, or set"
                " root to a folder that holds all images"
            )
        path = path.relative_to(whole)
    if ".." in path.parts or not path.parts:
        raise InputError(f"the image {shortened(name)} leads out of {folder}: list paths below it")
    return str(path)


class _CaptionFiles(FileImages):
    """Image files of captions, opened by what is in them, whatever their names end in."""

    def read(self, index: int, max_side: int | None = None) -> Tensor:
        """Decode one image; see ``FileImages``."""
        try:
            return super().read(index, max_side)
        except CorruptImageError as error:
            why = error.__cause__ or error
            raise CorruptImageError(
                f"Cannot read the image {self.folder}/{self.names[index]} ({type(why).__name__}:"
                f" {why}). Fetch the file again; or delete it and set missing_images: skip to leave"
                " out its captions; or set on_corrupt: skip to use the next caption and its image"
            ) from why


class FoundCaptions:
    """Captions of a split, one after the other, as a data set's files have them.

    Args:
        data_set: Name of the data set, for messages.
        source: File that has the captions, for messages.
        folder: Folder of the images.
        missing_images: "error" or "skip": what happens with captions whose image is not there.
    """

    def __init__(
        self, data_set: str, source: Path, folder: Path, missing_images: MissingImages
    ) -> None:
        self._data_set = data_set
        self._source = source
        self._folder = folder
        self._missing_images = missing_images
        self._number: dict[str, int] = {}
        self._image_of = array("q")
        self._missing: dict[str, None] = {}
        self._lost = 0
        self._empty: list[str] = []

    def rows(self, captions: Iterator[Caption], is_there: Callable[[str], bool]) -> Rows:
        """Return rows of the captions whose image is there; warn of the others.

        Captions that are empty, or white space, are left out with a warning.

        Args:
            captions: They; those of one image have the same name, a path below the folder.
            is_there: Whether an image is.

        Raises:
            InputError: No image is there, or some are not and that is an error; or a text is none.
        """
        texts = PackedStrings(self._kept(captions, is_there))
        self._say_missing(len(texts))
        if self._empty:
            rank_zero_warn(
                f"{self._data_set}: {len(self._empty):,} captions of {self._source} are empty"
                f" ({listed(self._empty, 3)}) and are left out"
            )
        image_of = np.array(self._image_of, dtype=np.int64)
        images = _CaptionFiles(self._folder, self._number)
        columns = {"label": np.full(len(image_of), -1), "image_number": image_of}
        return Rows(CaptionedImages(images, image_of, texts), columns)

    def _kept(self, captions: Iterator[Caption], is_there: Callable[[str], bool]) -> Iterator[str]:
        for where, image, text in captions:
            if not isinstance(text, str) or (not text.isascii() and _SURROGATE.search(text)):
                raise InputError(
                    f"{self._source}, {where}: expected a caption, found {quoted(text)}"
                )
            text = text.strip()
            if not text:
                self._empty.append(where)
                continue
            number = self._number.get(image)
            if number is None:
                if image in self._missing or not is_there(image):
                    self._missing[image] = None
                    self._lost += 1
                    continue
                number = self._number[image] = len(self._number)
            self._image_of.append(number)
            yield text

    def _say_missing(self, kept: int) -> None:
        if not self._missing:
            return
        missing = list(self._missing)
        if not kept:
            raise layout_error(
                self._data_set,
                self._folder,
                f"the images that {self._source} names, such as {shortened(missing[0])}",
            )
        total = kept + self._lost
        what = (
            f"{self._data_set}: {len(missing):,} of {len(missing) + len(self._number):,} images"
            f" that {self._source} names are not in {self._folder} ({listed(missing, 3)})"
        )
        if self._missing_images == "error":
            raise InputFileNotFoundError(
                f"{what}. Fetch them, or set missing_images: skip to leave out their"
                f" {self._lost:,} of {total:,} captions"
            )
        rank_zero_warn(f"{what}; their {self._lost:,} of {total:,} captions are left out")
