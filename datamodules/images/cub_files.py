"""The files of CUB-200-2011: images, species, split, boxes and attributes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from lit_ssl.datamodules.reading.boxes import BoxImages
from lit_ssl.datamodules.reading.folders import find_file, missing_images
from lit_ssl.datamodules.reading.images import FileImages
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.errors import InputError, InputFileNotFoundError, did_you_mean, listed
from lit_ssl.files import read_text
from lit_ssl.numerals import whole_number
from lit_ssl.opening import open_text, reading
from lit_ssl.tables import Table, pick_columns

__all__ = ["CUBFiles"]

_NAME = "CUB-200-2011"
_FOLDER = "CUB_200_2011"
_MOST_PIXELS = 2**31
_NOT_VISIBLE = 1  # number of that certainty


class CUBFiles:
    """What the tables of the official archive say of each image.

    Lines begin with the number of an image, by which the tables are joined; images keep the order
    of ``images.txt``.

    Args:
        root: The folder ``CUB_200_2011``, or the one that holds it.
    """

    def __init__(self, root: str) -> None:
        self.root = Path(root).expanduser()

    @cached_property
    def folder(self) -> Path:
        """The folder of the tables."""
        return find_file(self.root, ["images.txt"], _NAME, [_FOLDER]).parent

    @cached_property
    def class_names(self) -> list[str]:
        """Names of the species, such as ``001.Black_footed_Albatross``, by their numbers."""
        return self._named(self.folder / "classes.txt")

    @cached_property
    def labels(self) -> np.ndarray:
        """Species of all images: int64 ``[N]``, from 0."""
        table, order = self._of_images("image_class_labels.txt", ["class"])
        numbers = {str(label + 1): label for label in range(len(self.class_names))}
        return table.codes("class", numbers, f"a number of {self.folder / 'classes.txt'}")[order]

    def rows_of(self, split: Split) -> np.ndarray:
        """Return the rows of ``train`` or ``test`` among all images: int64, ascending.

        Args:
            split: ``train``; any other name is taken for ``test``.
        """
        table, order = self._of_images("train_test_split.txt", ["is_training"])
        is_training = table.codes("is_training", {"0": 0, "1": 1})[order]
        return np.flatnonzero(is_training == int(split == "train"))

    def images(self, rows: np.ndarray, crop_to_box: bool) -> FileImages:
        """Return some images, all or the box of the bird, and check that their files are there.

        Args:
            rows: their numbers among all images, int64 ``[N]``.
            crop_to_box: whether each image is only what the box of its bird shows.
        """
        folder = self.folder / "images"
        names = [self._names[row] for row in rows]
        missing_images(folder, names, self.folder / "images.txt", _NAME)
        if crop_to_box:
            return BoxImages(folder, names, self._boxes[rows])
        return FileImages(folder, names)

    # Attributes

    @cached_property
    def attribute_names(self) -> list[str]:
        """Names of the attributes, such as ``has_bill_shape::dagger``, by their numbers.

        Raises:
            InputFileNotFoundError: attributes.txt is nowhere.
        """
        inside, places = self.folder / "attributes", (self.folder, self.folder.parent)
        paths = [place / "attributes.txt" for place in (inside, *places)]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            raise InputFileNotFoundError(
                f"{_NAME}: the names of the attributes are missing: expected attributes.txt in"
                f" {inside}, or beside {self.folder}, where the official archive has it"
            )
        return self._named(path)

    def attribute_number(self, name: str) -> int:
        """Return the place of an attribute in ``attribute_names``.

        Args:
            name: such as ``has_bill_shape::dagger``.

        Raises:
            InputError: There is no such attribute.
        """
        if name not in self.attribute_names:
            raise InputError(
                f"{_NAME} has no attribute {name!r}."
                f"{did_you_mean(name, self.attribute_names, list_up_to=0)} attributes.txt lists"
                f" all {len(self.attribute_names)}"
            )
        return self.attribute_names.index(name)

    @cached_property
    def attributes(self) -> np.ndarray:
        """Attributes of all images: int8 ``[N, A]``, 1 there, 0 not there, −1 not visible.

        A line is image, attribute, whether it is there, certainty and time. Some lines of the
        official file have a column more before the time, so that only the first four count.

        Raises:
            InputFileNotFoundError: The file is not there.
            InputError: It has other lines, unknown images or attributes, or some pairs twice or
                never.
        """
        path = self.folder / "attributes" / "image_attribute_labels.txt"
        if not path.is_file():
            raise InputFileNotFoundError(
                f"{_NAME}: {path} is missing: unpack the whole archive, or go without attributes"
            )
        try:
            with reading(path), open_text(path) as file:
                table = np.loadtxt(file, np.int64, usecols=(0, 1, 2, 3), ndmin=2)
        except InputError:
            raise
        except (ValueError, OverflowError) as error:
            raise InputError(
                f"{_NAME}: {path} does not have lines of image, attribute, 0 or 1, certainty and"
                f" time ({error}). Get it again"
            ) from error
        image, attribute, there, certainty = table.T
        ids = np.array([int(number) for number in self._ids], dtype=np.int64)
        count = len(self.attribute_names)
        # Numbers of images come from a file: they are looked up, and never the size of an array.
        order = np.argsort(ids)
        place = order[np.searchsorted(ids, image, sorter=order).clip(max=len(ids) - 1)]
        known = (ids[place] == image) & (attribute >= 1) & (attribute <= count)
        wrong = ~known | ~np.isin(there, (0, 1)) | (certainty < _NOT_VISIBLE)
        if wrong.any():
            line = int(np.argmax(wrong))
            raise InputError(
                f"{_NAME}: {path} has {int(wrong.sum()):,} lines with an unknown image, attribute"
                f" or value, first {' '.join(map(str, table[line]))}. Use the files of one archive"
            )
        cells = place * count + attribute - 1
        times = np.bincount(cells, minlength=len(ids) * count)
        if (times != 1).any():
            raise InputError(
                f"{_NAME}: {path} has {int((times == 0).sum()):,} of the {times.size:,} pairs of"
                f" image and attribute not at all, and {int((times > 1).sum()):,} twice: the file"
                " is incomplete; get it again"
            )
        found = np.empty(times.size, dtype=np.int8)
        found[cells] = np.where(certainty == _NOT_VISIBLE, -1, there)
        return found.reshape(len(ids), count)

    # Tables

    @cached_property
    def _images(self) -> Table:
        return self._table(self.folder / "images.txt", ["name"])

    @property
    def _ids(self) -> list[str]:
        return self._images.columns["id"]

    @property
    def _names(self) -> list[str]:
        return self._images.columns["name"]

    @cached_property
    def _boxes(self) -> np.ndarray:
        """Left, top, width and height: float64 ``[N, 4]``."""
        table, order = self._of_images("bounding_boxes.txt", ["x", "y", "width", "height"])
        boxes = np.stack([table.numbers(name) for name in ("x", "y", "width", "height")], axis=1)
        lost = np.flatnonzero(~(np.abs(boxes) < _MOST_PIXELS).all(axis=1))
        if len(lost):
            values = [" ".join(f"{value:g}" for value in box) for box in boxes]
            raise table.error(lost.tolist(), "the box", values, "expected four numbers")
        empty = np.flatnonzero(~(boxes[:, 2:] > 0).all(axis=1))
        if len(empty):
            raise table.error(
                empty.tolist(),
                "the columns 'width' and 'height'",
                [f"{width:g} x {height:g}" for width, height in boxes[:, 2:]],
                "expected pixels above 0",
            )
        return boxes[order]

    def _of_images(self, name: str, columns: Sequence[str]) -> tuple[Table, np.ndarray]:
        """A table with a line for each image, and which line is that of each."""
        table = self._table(self.folder / name, columns)
        line = {number: row for row, number in enumerate(table.columns["id"])}
        if lacking := [number for number in self._ids if number not in line]:
            raise InputError(
                f"{_NAME}: {table.path} has no line for {len(lacking):,} of the"
                f" {len(self._ids):,} images, numbers {listed(lacking)}: the file is incomplete;"
                " get it again"
            )
        return table, np.array([line[number] for number in self._ids], dtype=np.int64)

    def _named(self, path: Path) -> list[str]:
        """Names that a table numbers from 1 without a gap, in that order."""
        table = self._table(path, ["name"])
        names = dict(zip(table.columns["id"], table.columns["name"], strict=True))
        numbers = [str(number) for number in range(1, len(table) + 1)]
        if lacking := [number for number in numbers if number not in names]:
            raise InputError(
                f"{_NAME}: {path} should number its {len(table)} lines from 1, and has no"
                f" {listed(lacking)}. Get it again"
            )
        return [names[number] for number in numbers]

    def _table(self, path: Path, columns: Sequence[str]) -> Table:
        """A table of numbers, each once, and columns with blanks between."""
        if not path.is_file():
            raise InputFileNotFoundError(
                f"{_NAME}: {path} is missing: unpack the whole archive CUB_200_2011.tgz"
            )
        lines = enumerate(read_text(path).splitlines(), start=1)
        body = ((number, line.split()) for number, line in lines if line.strip())
        header = ["id", *columns]
        table = pick_columns(path, header, body, header, _NAME)
        ids = table.columns["id"]
        wrong = [row for row, number in enumerate(ids) if (whole_number(number) or -1) < 0]
        if wrong or len(set(ids)) != len(ids):
            what = f"line {table.lines[wrong[0]]}" if wrong else "a number that comes twice"
            raise InputError(
                f"{_NAME}: {path} should number its lines, and has {what}: get it again"
            )
        return table
