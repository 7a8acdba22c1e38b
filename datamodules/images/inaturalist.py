"""iNaturalist 2018 in its official layout."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NamedTuple

import numpy as np

from lit_ssl.datamodules.loading.image_module import ImageDataModule
from lit_ssl.datamodules.reading.folders import missing_images
from lit_ssl.datamodules.reading.images import FileImages, PackedStrings
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.errors import InputError, InputFileNotFoundError, quoted
from lit_ssl.files import layout_error, read_bytes
from lit_ssl.json_text import parse_json

__all__ = ["INaturalist2018DataModule"]

_NAME = "iNaturalist 2018"
_FOLDER = "train_val2018"


class _Annotations(NamedTuple):
    """What an annotation file says: the images, their categories, and the names of these."""

    files: PackedStrings
    categories: np.ndarray
    names: dict[int, str]


class INaturalist2018DataModule(ImageDataModule):
    """iNaturalist 2018: 437,513 training and 24,426 validation images of 8,142 species; long tail.

    Expected: ``train2018.json``, ``val2018.json`` and the folder ``train_val2018``, as the official
    archives unpack. Class i is the i-th of the sorted ids in the ``categories`` of
    ``train2018.json``; their names are the obfuscated ones unless you put the released list there.
    The official test images have no labels; the validation images are the test images too.
    ``subset.file`` takes lists of ``train_val2018/<super category>/<category>/<image>.jpg``, a
    label after it is ignored.

    Args:
        root: Folder that holds all three.
        image_size: Height and width of evaluation images: the shorter side is resized to 8/7 of it
            (256 for 224), then the centre is cut out.
        num_workers: Worker processes per loader.
        val_size: Number of training images held out for validation; 0 validates on the official
            validation images.
        kwargs: Arguments of ``ImageDataModule``.
    """

    reported: ClassVar[Split] = "val"

    def __init__(
        self,
        *,
        root: str,
        image_size: int = 224,
        num_workers: int = 8,
        val_size: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_workers=num_workers, val_size=val_size, **kwargs)
        self.default_size = image_size
        self.root = Path(root).expanduser()

    @cached_property
    def class_names(self) -> Sequence[str]:
        """Names of the categories, in the order of their ids."""
        names = self._training_annotations.names
        return [names[category] for category in sorted(names)]

    def load_rows(self, split: Split) -> Rows | None:
        """Return the official training or validation images; there is no labelled test split."""
        if split == "test":
            return None
        if split == "train":
            found = self._training_annotations
        else:
            found = _read_annotations(self.root / "val2018.json")
        if not (self.root / _FOLDER).is_dir():
            raise layout_error(
                _NAME, self.root / _FOLDER, f"the images, such as {self.root / found.files[0]}"
            )
        names = [found.files[row] for row in range(len(found.files))]
        missing_images(self.root, names, self.root / f"{split}2018.json", _NAME)
        labels = self._labels(split, found.categories)
        return Rows(FileImages(self.root, found.files), {"label": labels})

    def _labels(self, split: Split, categories: np.ndarray) -> np.ndarray:
        known = np.array(sorted(self._training_annotations.names), dtype=np.int64)
        unknown = np.setdiff1d(categories, known)
        if len(unknown):
            raise InputError(
                f"{_NAME}: the annotations of the {split} split use {len(unknown)} categories that"
                f" {self.root / 'train2018.json'} does not list, for example {unknown[0]}. Use the"
                " official files of one year together"
            )
        return np.searchsorted(known, categories)

    @cached_property
    def _training_annotations(self) -> _Annotations:
        return _read_annotations(self.root / "train2018.json")


def _read_annotations(path: Path) -> _Annotations:
    if not path.is_file():
        raise layout_error(
            _NAME, path.parent, f"train2018.json, val2018.json and {_FOLDER}/ in {path.parent}"
        )
    try:
        content = parse_json(read_bytes(path))
        files = {_id(image["id"]): _path(image["file_name"]) for image in content["images"]}
        category = {_id(a["image_id"]): _id(a["category_id"]) for a in content["annotations"]}
        names = {_id(c["id"]): str(c["name"]) for c in content["categories"]}
    except InputFileNotFoundError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is no annotation file of {_NAME} ({type(error).__name__}: {error}): expected"
            " JSON with images (id, file_name), annotations (image_id, category_id) and categories"
            " (id, name). Extract the official archive again"
        ) from error
    without = [name for image, name in files.items() if image not in category]
    if without or not files:
        raise InputError(
            f"{path} lists {len(files)} images, {len(without)} of them without an annotation"
            f"{', for example ' + without[0] if without else ''}. The test images have no labels;"
            " use the official train2018.json and val2018.json"
        )
    categories = np.fromiter((category[image] for image in files), dtype=np.int64)
    return _Annotations(PackedStrings(files.values()), categories, names)


def _id(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"expected a number from 0 on, found {quoted(value)}")
    return value


def _path(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise ValueError(f"expected the path of an image, found {quoted(name)}")
    if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
        raise ValueError(f"expected a path below the folder of images, found {quoted(name)}")
    name.encode()  # JSON may hold half characters, which no name has
    return name
