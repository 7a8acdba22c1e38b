"""Visual Genome: phrases that describe regions of images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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
)
from lit_ssl.errors import InputError, quoted
from lit_ssl.files import layout_error

__all__ = ["VisualGenomeRegions"]

_FOLDERS = ("VG_100K", "VG_100K_2")
_ENDING = ".jpg"


class VisualGenomeRegions(CaptionSource):
    """Region descriptions of Visual Genome: 108,077 images with about 50 phrases each.

    Expected in ``root``: ``region_descriptions.json`` (or in its ``annotations/``), and the images
    in ``VG_100K/`` and ``VG_100K_2/`` (or in these below ``images/``). A phrase describes a region,
    but goes with the whole image, as in ViLT. A phrase that an image has several times counts once;
    the order is that of the file. There are training images only.

    Args:
        root: Folder with the files.
        missing_images: "error" stops where images are not there; "skip" leaves out their phrases,
            and a warning says how many.

    Source: Krishna et al., arXiv 1602.07332; whole images as in ViLT, arXiv 2102.03334.
    """

    name = "Visual Genome"

    def __init__(self, root: str, missing_images: MissingImages = "error") -> None:
        check_missing_images(missing_images)
        self.root = Path(root).expanduser()
        self.missing_images = missing_images

    def load_rows(self, split: Split) -> Rows | None:
        """Return the phrases of all images as training split; there is no other one."""
        if split != "train":
            return None
        file = "region_descriptions.json"
        path = find_file(self.root, [file], self.name, folders=("annotations",))
        folder = find_file(self.root, _FOLDERS, self.name, folders=("images",)).parent
        listing = FolderListing(folder)
        found = FoundCaptions(self.name, path, folder, self.missing_images)
        return found.rows(_captions(path, self._folders(listing)), listing.__contains__)

    def _folders(self, listing: FolderListing) -> dict[str, str]:
        """Image file → folder that holds it."""
        folder_of: dict[str, str] = {}
        for folder in _FOLDERS:
            files = [name for name in listing.names(folder) if name.endswith(_ENDING)]
            if not files and self.missing_images == "error":
                both = " and ".join(f"{one}/" for one in _FOLDERS)
                raise layout_error(self.name, listing.folder, f"<number>{_ENDING} in both {both}")
            folder_of.update(dict.fromkeys(files, folder))
        return folder_of


def _captions(path: Path, folder_of: Mapping[str, str]) -> Iterator[Caption]:
    number = -1
    for number, item in json_items(path):
        where = f"item {number}"
        regions = item.get("regions") if isinstance(item, dict) else None
        if not isinstance(regions, list):
            raise InputError(
                f"{path}, {where}: expected an object with a list of regions, found {quoted(item)}"
            )
        try:
            # Not a set, which would bring them into another order each time.
            phrases = dict.fromkeys(map(_phrase, regions))
        except InputError as error:
            raise InputError(f"{path}, {where}: {error}") from error
        for image, phrase in phrases:
            file = f"{image}{_ENDING}"
            yield where, f"{folder_of.get(file, _FOLDERS[0])}/{file}", phrase
    if number < 0:
        raise InputError(f"{path} lists nothing: expected the regions of each image")


def _phrase(region: Any) -> tuple[int, str]:
    """The number of the image of a region, and its phrase."""
    image = region.get("image_id") if isinstance(region, dict) else None
    if isinstance(image, bool) or not isinstance(image, int) or image < 0:
        raise InputError(f"expected a region with an image_id, found {quoted(region)}")
    phrase = region.get("phrase")
    if not isinstance(phrase, str):
        raise InputError(f"expected a region with a phrase, found {quoted(region)}")
    return image, phrase.strip()
