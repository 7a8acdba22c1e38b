"""Splits and classes as a table of a person's own names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.errors import InputError, listed
from lit_ssl.numerals import whole_number
from lit_ssl.tables import Table

__all__ = ["SPLIT_NUMBERS", "UNKNOWN", "numbered", "rows_of_split", "split_codes"]

_MOST_WITHOUT_ROWS = 1000  # classes, of which most may have no row in a small file
UNKNOWN = {"": -1, "-1": -1}
SPLIT_NUMBERS = {
    "train": 0, "val": 1, "valid": 1, "validation": 1, "test": 2, "0": 0, "1": 1, "2": 2,
}  # fmt: skip


def split_codes(table: Table, column: str) -> np.ndarray:
    """Return the split of each row, train, val or test, as 0, 1 or 2: int64 ``[N]``.

    Args:
        table: as read.
        column: name of the column that holds the splits.

    Raises:
        InputError: A value is none of these names or numbers.
    """
    return table.codes(column, SPLIT_NUMBERS, "train, val or test, or 0, 1 or 2")


def rows_of_split(table: Table, column: str, splits: np.ndarray, split: Split) -> np.ndarray | None:
    """Return the rows of a split, None if there are none.

    A warning says where the other split stands in for one that is missing, which numbers do not
    show.

    Args:
        table: Whose rows.
        column: Name of the column of the splits, for messages.
        splits: Its codes.
        split: "train", "val" or "test".

    Returns:
        int64 ``[N]``, ascending.

    Raises:
        InputError: There is no training row.
    """
    rows = np.flatnonzero(splits == SPLIT_NUMBERS[split])
    if len(rows):
        return rows
    if split == "train":
        raise InputError(
            f"{table.path} has no training row: expected 'train' or 0 in column {column!r}"
        )
    other: Split = "test" if split == "val" else "val"
    if SPLIT_NUMBERS[other] in splits:
        rank_zero_warn(
            f"{table.path} has no {split} row: the {other} rows take their place,"
            " so that the test is on the rows that choose the checkpoint. Add"
            f" {split} rows{', or give val_size' if split == 'val' else ''}"
        )
    return None


def numbered(
    table: Table,
    column: str,
    names: Sequence[str] | None,
    argument: str,
    unknown: Mapping[str, int] | None = None,
) -> tuple[np.ndarray, list[str]]:
    """Return the numbers in a column, or of the names in it, and the names of the numbers.

    Args:
        table: With this column.
        column: Its name.
        names: Names in the order of their numbers, which may stand there too; None: only numbers
            stand there, and they are their own names.
        argument: What the names are given by, for messages.
        unknown: Number of each value that says that nothing is known.

    Returns:
        int64 ``[N]``, and the names.

    Raises:
        InputError: Other values occur, a name comes twice, or a number is so large that the column
            can hold no classes.
    """
    unknown = unknown or {}
    if names is not None and len(set(names)) < len(names):
        raise InputError(f"{argument} names a class twice: {listed(names)}. Name each once")
    or_unknown = ", or empty or -1 where it is unknown" if unknown else ""
    if names is not None:
        numbers = {str(number): number for number in range(len(names))}
        known = {**numbers, **{name: number for number, name in enumerate(names)}, **unknown}
        expected = f"expected {' or '.join(names)}, or a number from 0 to {len(names) - 1}"
        return table.codes(column, known, f"{expected[9:]}{or_unknown}"), list(names)
    values = {value.removesuffix(".0") for value in table.columns[column]} - set(unknown)
    found = {value: whole_number(value) for value in values}
    numbers = {value: n for value, n in found.items() if n is not None and n >= 0}
    hint = f"numbers from 0 on{or_unknown} (for names in the file, give {argument})"
    largest = max(numbers.values(), default=-1)
    if largest >= max(_MOST_WITHOUT_ROWS, len(table)):
        raise InputError(
            f"{table.path} has the number {largest:,} in column {column!r}, so that there would be"
            f" more than {largest:,} classes, of {len(table):,} rows: number the classes from 0"
            " without gaps, or name another column"
        )
    codes = table.codes(column, {**numbers, **unknown}, hint)
    return codes, [str(number) for number in range(largest + 1)]
