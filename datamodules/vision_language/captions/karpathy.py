"""Captions of COCO and Flickr30k, in the splits of Karpathy."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

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
from lit_ssl.errors import InputError, did_you_mean, listed, quoted, shortened

__all__ = ["CocoCaptions", "Flickr30kCaptions"]

_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}


class _KarpathyCaptions(CaptionSource):
    """A file with the images of all splits, and five captions or so of each."""

    file: ClassVar[str]

    def __init__(self, root: str, missing_images: MissingImages = "error") -> None:
        check_missing_images(missing_images)
        self.root = Path(root).expanduser()
        self.missing_images = missing_images

    @abstractmethod
    def image_folder(self) -> Path:
        """Return the folder to which the paths of images are relative."""

    @abstractmethod
    def image_path(self, image: dict[str, Any]) -> str:
        """Return the path of an image below that folder."""

    def load_rows(self, split: Split) -> Rows:
        """Return the captions of a split; train has those of "train" and "restval"."""
        path = find_file(self.root, [self.file], self.name, folders=("karpathy", "annotations"))
        folder = self.image_folder()
        found = FoundCaptions(self.name, path, folder, self.missing_images)
        return found.rows(self._captions(path, split), FolderListing(folder).__contains__)

    def _captions(self, path: Path, split: Split) -> Iterator[Caption]:
        for number, image in json_items(path, "images"):
            where = f"image {number}"
            try:
                if _split_of(image) != split:
                    continue
                name = self.image_path(image)
                texts = _texts(image)
            except InputError as error:
                raise InputError(f"{path}, {where}: {error}") from error
            for text in texts:
                yield where, name, text


class CocoCaptions(_KarpathyCaptions):
    """Captions of COCO in the splits of Karpathy, about five an image.

    Expected in ``root``: ``dataset_coco.json`` (or in its ``karpathy/`` or ``annotations/``), and
    the images in ``train2014/`` and ``val2014/`` (or in these below ``images/``). Training has
    "train" and "restval", together 113,287 images with 566,747 captions; val and test 5,000 each.

    Args:
        root: Folder with the files.
        missing_images: "error" stops where images are not there; "skip" leaves out their captions,
            and a warning says how many.

    Source: Karpathy and Fei-Fei, arXiv 1412.2306; with restval as in ViLT, arXiv 2102.03334.
    """

    name = "COCO"
    file = "dataset_coco.json"

    def image_folder(self) -> Path:
        """Return the folder of ``train2014/`` and ``val2014/``."""
        return find_file(self.root, ["val2014", "train2014"], self.name, ("images",)).parent

    def image_path(self, image: dict[str, Any]) -> str:
        """Return such as ``val2014/COCO_val2014_000000000042.jpg``.

        Args:
            image: its entry in the file of the splits.
        """
        return f"{_bare(image, 'filepath')}/{_bare(image, 'filename')}"


class Flickr30kCaptions(_KarpathyCaptions):
    """Captions of Flickr30k in the splits of Karpathy, five an image.

    Expected in ``root``: ``dataset_flickr30k.json`` (or in its ``karpathy/`` or ``annotations/``),
    and the images in ``flickr30k-images/``. Training has 29,000 images, val 1,014, test 1,000.

    Args:
        root: Folder with the files.
        missing_images: "error" stops where images are not there; "skip" leaves out their captions,
            and a warning says how many.

    Source: Karpathy and Fei-Fei, arXiv 1412.2306.
    """

    name = "Flickr30k"
    file = "dataset_flickr30k.json"

    def image_folder(self) -> Path:
        """Return ``flickr30k-images/``."""
        return find_file(self.root, ["flickr30k-images"], self.name, ("images",))

    def image_path(self, image: dict[str, Any]) -> str:
        """Return such as ``1000092795.jpg``.

        Args:
            image: its entry in the file of the splits.
        """
        return _bare(image, "filename")


def _split_of(image: object) -> str:
    if not isinstance(image, dict):
        raise InputError(f"expected an object with an image, found {quoted(image)}")
    split = image.get("split")
    if not isinstance(split, str) or split not in _SPLITS:
        hint = did_you_mean(split, _SPLITS) if isinstance(split, str) else ""
        raise InputError(
            f"expected a split ({listed(list(_SPLITS))}), found {quoted(split)}.{hint}"
        )
    return _SPLITS[split]


def _texts(image: dict[str, Any]) -> list[str]:
    sentences = image.get("sentences")
    if not isinstance(sentences, list) or not sentences:
        raise InputError(f"expected sentences, found {quoted(sentences)}")
    texts: list[Any] = [item.get("raw") if isinstance(item, dict) else None for item in sentences]
    if None in texts:
        raise InputError(f"expected a text 'raw' in each sentence, found {quoted(sentences)}")
    return texts


def _bare(image: dict[str, Any], key: str) -> str:
    """The name of a file or folder, with nothing that leads elsewhere."""
    name = safe_path(image.get(key), Path("."))
    if "/" in name:
        raise InputError(f"expected a name without folders as {key}, found {shortened(name, 80)}")
    return name
