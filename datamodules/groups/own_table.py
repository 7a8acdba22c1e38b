"""Your own images with classes and, as far as you know them, attributes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lit_ssl.datamodules.groups.images import GroupImageDataModule
from lit_ssl.datamodules.reading.folders import missing_images, posix_name
from lit_ssl.datamodules.reading.images import FileImages
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.own_tables import UNKNOWN, numbered, rows_of_split, split_codes
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.errors import InputError
from lit_ssl.tables import Table, read_table

__all__ = ["GroupCSVDataModule"]

_NAME = "Group CSV"


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
        rows = rows_of_split(found.table, self.columns[1], found.splits, split)
        if rows is None:
            return None
        files = found.table.columns[self.columns[0]]
        names = [posix_name(self.root, files[row]) for row in rows]
        missing_images(self.root, names, found.table.path, _NAME)
        columns = {"label": found.labels[rows], "attribute": found.attributes[rows]}
        return Rows(FileImages(self.root, names), columns)

    @cached_property
    def _content(self) -> _Metadata:
        _, split, label, attribute = self.columns
        table = read_table(self.metadata, self.columns, _NAME)
        splits = split_codes(table, split)
        classes, values = self._given_names
        labels, class_names = numbered(table, label, classes, "class_names")
        attributes, attribute_names = numbered(table, attribute, values, "attribute_names", UNKNOWN)
        if not attribute_names:
            raise InputError(
                f"{table.path} has no attribute at all in column {attribute!r}: expected some for"
                " at least a few training rows, and for validation. Name the column with"
                " attribute_column"
            )
        return _Metadata(table, splits, labels, attributes, class_names, attribute_names)
