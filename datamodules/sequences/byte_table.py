"""Your own texts as the bytes of their UTF-8, from a table."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.own_tables import UNKNOWN, numbered, rows_of_split, split_codes
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.sequences.packed import PackedSequences
from lit_ssl.datamodules.sequences.sequence_module import SequenceModule
from lit_ssl.errors import InputFileNotFoundError
from lit_ssl.files import describe_folder
from lit_ssl.tables import Table, csv_lines, pick_columns

__all__ = ["ByteTextCSVDataModule"]

_NAME = "Text CSV"
_USUAL_SPLIT = "split"


class _Content(NamedTuple):
    table: Table
    split_column: str
    splits: np.ndarray | None
    rows: Rows
    class_names: list[str]


class ByteTextCSVDataModule(SequenceModule):
    """Texts listed in a CSV file, as the bytes of their UTF-8, without white space around them.

    The label is a number from 0, or a name if you give ``class_names``; empty or −1, it is unknown.
    The split is train, val or test (or 0, 1, 2).

    Args:
        table: The CSV file, in UTF-8, or in UTF-16 with a byte-order mark.
        text_column: Column of the texts.
        label_column: Column of the classes.
        split_column: Column of the splits. None takes the column ``split`` where there is one, and
            otherwise all rows for training; then give ``val_size``.
        class_names: Names of the classes, in the order of their numbers. None: the numbers up to
            the largest in the file.
        max_length: Longest text, in bytes; longer ones are cut.
        kwargs: Arguments of ``SequenceModule``.
    """

    inputs = "texts"
    tokens = "bytes"
    vocab_size = 257  # bytes, and padding
    pad_id = 256

    def __init__(
        self,
        *,
        table: str,
        text_column: str = "text",
        label_column: str = "label",
        split_column: str | None = None,
        class_names: Sequence[str] | None = None,
        max_length: int = 4096,
        **kwargs: Any,
    ) -> None:
        super().__init__(max_length=max_length, **kwargs)
        self.table = Path(table).expanduser()
        self.text_column = text_column
        self.label_column = label_column
        self.split_column = split_column
        self._given_names = class_names

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes."""
        return self._content.class_names

    def load_rows(self, split: Split) -> Rows | None:
        """Return the texts of a split, None if the file has none."""
        content = self._content
        if content.splits is not None:
            chosen = rows_of_split(content.table, content.split_column, content.splits, split)
            return None if chosen is None else content.rows.select(chosen)
        return content.rows if split == "train" else None

    @cached_property
    def _content(self) -> _Content:
        if not self.table.is_file():
            raise InputFileNotFoundError(
                f"{_NAME}: expected the file {self.table}. Found: {describe_folder(self.table)}."
                " Set table to the CSV file"
            )
        expected = "expected a header and rows, with texts of at most 131,072 characters"
        lines = csv_lines(self.table, expected)
        _, header = next(lines, (0, []))
        split = self.split_column
        if split is None and _USUAL_SPLIT in map(str.strip, header):
            split = _USUAL_SPLIT
        wanted = [self.text_column, self.label_column, *([] if split is None else [split])]
        table = pick_columns(self.table, header, lines, wanted, _NAME)
        labels, names = numbered(
            table, self.label_column, self._given_names, "class_names", UNKNOWN
        )
        # taken out of the table: the strings need several times the memory of their bytes
        texts = (text.encode() for text in table.columns.pop(self.text_column))
        source = PackedSequences.of_bytes(texts, self.pad_id, folder=self.table)
        return _Content(
            table,
            split or "",
            None if split is None else split_codes(table, split),
            Rows(source, {"label": labels}),
            names,
        )
