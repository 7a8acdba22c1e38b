"""Your own images with classes and, as far as you know them, attributes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lit_ssl.datamodules.groups.images import GroupImageDataModule
from lit_ssl.datamodules.reading.folders import missing_images, posix_name
from lit_ssl.datamodules.reading.images import FileImages
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.errors import InputError
from lit_ssl.tables import Table, read_table

__all__ = ["GroupCSVDataModule"]

_NAME = "Group CSV"
_SPLITS = {
    "train": 0, "val": 1, "valid": 1, "validation": 1, "test": 2, "0": 0, "1": 1, "2": 2,
}  # fmt: skip
_UNKNOWN = {"": -1, "-1": -1}


class _Metadata(NamedTuple):
    table: Table
    splits: np.ndarray
    labels: np.ndarray
    attributes: np.ndarray
    class_names: list[str]
    attribute_names: list[str]


class GroupCSVDataModule(GroupImageDataModule):
    """Images listed in a CSV file: ``id,filename,split,y,a``, where a may be empty.

    The split is train, val or test (or 0, 1, 2); y and a are numbers from 0, or names if you give
    ``class_names`` and ``attribute_names``; an empty a, or −1, is unknown. Rows of training without
    an attribute count like those that ``group_label_fraction`` takes it from.

    Args:
        root: Folder with the images.
        metadata: The CSV file, below ``root`` or anywhere.
        filename_column: Column of the paths of the images below ``root``.
        split_column: Column of the splits.
        label_column: Column of the classes.
        attribute_column: Column of the attributes.
        class_names: Names of the classes, in the order of their numbers. None: the numbers up to
            the largest in the file.
        attribute_names: Names of the attribute's values. None: the numbers up to the largest.
        image_size: Height and width: the shorter side is resized to 8/7 of it (256 for 224), then
            the centre is cut out.
        kwargs: Arguments of ``GroupImageDataModule``.
    """

    def __init__(
        self,
        *,
        root: str,
        metadata: str = "metadata.csv",
        filename_column: str = "filename",
        split_column: str = "split",
        label_column: str = "y",
        attribute_column: str = "a",
        class_names: Sequence[str] | None = None,
        attribute_names: Sequence[str] | None = None,
        image_size: int = 224,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.default_size = image_size
        self.root = Path(root).expanduser()
        self.metadata = self.root / Path(metadata).expanduser()
        self.columns = (filename_column, split_column, label_column, attribute_column)
        self._given_names = (class_names, attribute_names)

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes."""
        return self._content.class_names

    @property
    def attribute_names(self) -> Sequence[str]:
        """Names of the attribute's values."""
        return self._content.attribute_names

    def load_rows(self, split: Split) -> Rows | None:
        """Return the images of a split, None if the file has none."""
        found = self._content
        rows = np.flatnonzero(found.splits == _SPLITS[split])
        if not len(rows):
            if split == "train":
                raise InputError(
                    f"{found.table.path} has no training row: expected 'train' or 0 in column"
                    f" {self.columns[1]!r}"
                )
            self._warn_of_stand_in(split)
            return None
        files = found.table.columns[self.columns[0]]
        names = [posix_name(self.root, files[row]) for row in rows]
        missing_images(self.root, names, found.table.path, _NAME)
        columns = {"label": found.labels[rows], "attribute": found.attributes[rows]}
        return Rows(FileImages(self.root, names), columns)

    def _warn_of_stand_in(self, split: Split) -> None:
        """Say that a missing split is replaced by the other one, which numbers do not show."""
        other: Split = "test" if split == "val" else "val"
        if _SPLITS[other] in self._content.splits:
            rank_zero_warn(
                f"{self._content.table.path} has no {split} row: the {other} rows take their place,"
                " so that the test is on the rows that choose the checkpoint. Add"
                f" {split} rows{', or give val_size' if split == 'val' else ''}"
            )

    @cached_property
    def _content(self) -> _Metadata:
        _, split, label, attribute = self.columns
        table = read_table(self.metadata, self.columns, _NAME)
        splits = table.codes(split, _SPLITS, "train, val or test, or 0, 1 or 2")
        classes, values = self._given_names
        labels, class_names = _numbered(table, label, classes, "class_names")
        attributes, attribute_names = _numbered(
            table, attribute, values, "attribute_names", _UNKNOWN
        )
        if not attribute_names:
            raise InputError(
                f"{table.path} has no attribute at all in column {attribute!r}: expected some for"
                " at least a few training rows, and for validation. Name the column with"
                " attribute_column"
            )
        return _Metadata(table, splits, labels, attributes, class_names, attribute_names)


def _numbered(
    table: Table,
    column: str,
    names: Sequence[str] | None,
    argument: str,
    unknown: dict[str, int] | None = None,
) -> tuple[np.ndarray, list[str]]:
    """Numbers in a column, or of the names in it, and the names of the numbers."""
    unknown = unknown or {}
    or_unknown = ", or empty or -1 where it is unknown" if unknown else ""
    if names is not None:
        numbers = {str(number): number for number in range(len(names))}
        known = {**numbers, **{name: number for number, name in enumerate(names)}, **unknown}
        expected = f"expected {' or '.join(names)}, or a number from 0 to {len(names) - 1}"
        return table.codes(column, known, f"{expected[9:]}{or_unknown}"), list(names)
    values = {value.removesuffix(".0") for value in table.columns[column]} - set(unknown)
    numbers = {value: int(value) for value in values if value.isdecimal()}
    hint = f"numbers from 0 on{or_unknown} (for names in the file, give {argument})"
    codes = table.codes(column, {**numbers, **unknown}, hint)
    return codes, [str(number) for number in range(max(numbers.values(), default=-1) + 1)]
