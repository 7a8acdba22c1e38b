"""The one reader of CSV files and tables, with errors that name the line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lit_ssl.errors import InputError, did_you_mean, listed, quoted
from lit_ssl.files import layout_error
from lit_ssl.numerals import finite_number
from lit_ssl.opening import open_text, reading

__all__ = [
    "Line",
    "Table",
    "columns_of_lines",
    "csv_lines",
    "even_columns",
    "pick_columns",
    "read_table",
]

_SHORT = 16

Line = tuple[int, list[str]]  # its number in the file, from 1, and its fields


class Table(NamedTuple):
    """Some columns of a file.

    Attributes:
        path: The file.
        columns: Name → values, stripped, one per row.
        lines: int64 ``[N]``, the line of the file on which each row ends, from 1.
    """

    path: Path
    columns: dict[str, list[str]]
    lines: np.ndarray

    def __len__(self) -> int:
        return len(self.lines)

    def codes(
        self, column: str, known: Mapping[str, int], expected: str | None = None
    ) -> np.ndarray:
        """Translate a column.

        Args:
            column: Its name.
            known: Number of each value that may occur; floats of integers ("1.0") count as these.
            expected: What to say was expected; None lists the values.

        Returns:
            int64 ``[N]``.

        Raises:
            InputError: Other values occur; it says which, how many and on which lines.
        """
        values = self.columns[column]
        found = [known.get(value, known.get(value.removesuffix(".0"))) for value in values]
        if wrong := [row for row, code in enumerate(found) if code is None]:
            expected = expected or " or ".join(sorted(value for value in known if value))
            raise self.error(wrong, f"column {column!r}", values, f"expected {expected}")
        return np.array(found, dtype=np.int64)

    def numbers(self, column: str) -> np.ndarray:
        """Read a column of numbers: float64 ``[N]``, empty values as 0.

        Args:
            column: Its name.

        Raises:
            InputError: A value is no finite number in plain digits.
        """
        values = self.columns[column]
        found = [finite_number(value or "0") for value in values]
        if wrong := [row for row, value in enumerate(found) if value is None]:
            raise self.error(wrong, f"column {column!r}", values, "expected a number")
        return np.array(found, dtype=np.float64)

    def error(
        self, rows: Sequence[int], where: str, values: Sequence[str], expected: str
    ) -> InputError:
        """Return an error about the values of some rows.

        Args:
            rows: Numbers of the rows, from 0.
            where: Name of the column, as the message calls it.
            values: All values of the column, one per row; those of ``rows`` are shown.
            expected: What should have been there.

        Returns:
            The error, to be raised.
        """
        found = listed([f"line {self.lines[row]}: {quoted(values[row])}" for row in rows[:6]])
        return InputError(
            f"{self.path} has {len(rows):,} unknown value{'s' * (len(rows) > 1)} in {where}"
            f" ({found}): {expected}. Correct the file, or name another column"
        )


def csv_lines(path: Path, expected: str, delimiter: str = ",") -> Iterator[Line]:
    """Yield the rows of a CSV file that are not empty, or blank without a delimiter; header first.

    Args:
        path: The file.
        expected: What should be in it, for the message.
        delimiter: Between the fields.

    Yields:
        The line of the file on which a row ends, from 1, and its fields, as they stand there.

    Raises:
        InputError: It is no CSV file.
    """
    try:
        with reading(path), open_text(path, newline="") as file:
            # Strict: else a quotation mark that is not closed swallows all lines after it.
            reader = csv.reader(_without_zeros(file), delimiter=delimiter, strict=True)
            for fields in reader:
                if len(fields) > 1 or (fields and fields[0].strip()):
                    yield reader.line_num, fields
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path} is no text with comma-separated values ({error}): {expected}"
        ) from error


def even_columns(path: Path) -> list[list[str]] | None:
    """Read a CSV file whose rows are lines with equally many fields at once, by C code alone.

    Args:
        path: The file.

    Returns:
        Its columns, each with its header first; None for every other file, for ``csv_lines``
        to say what is the matter with it, or to read it.
    """
    try:
        with reading(path), open_text(path, newline="") as file:
            text = file.read()
        if "\0" in text:
            return None
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = next(reader, [])
        width = len(header)

        def even(row: list[str]) -> list[str]:
            if len(row) != width:
                raise csv.Error
            return row

        # Rows are let go at once: kept, they cost the garbage collector more than the reading does.
        cells = list(chain.from_iterable(map(even, reader)))
    except (UnicodeDecodeError, csv.Error):
        return None
    if width == 0 or reader.line_num != len(cells) // width + 1:
        return None
    if width == 1 and not all(map(str.strip, [*header, *cells])):
        return None
    return [[name, *cells[n::width]] for n, name in enumerate(header)]


def _without_zeros(file: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(file, start=1):
        if "\0" in line:
            raise csv.Error(f"line {number} holds zero bytes")
        yield line


def read_table(path: Path, wanted: Sequence[str], data_set: str) -> Table:
    """Read columns of a CSV file.

    Args:
        path: The file.
        wanted: Names of the columns to keep.
        data_set: Name of the data set, for messages.

    Raises:
        FileNotFoundError: No such file.
        InputError: It is no CSV file, a column is missing, a row is cut short, or it has no rows.
    """
    if not path.is_file():
        raise layout_error(data_set, path.parent, f"{path.name} in {path.parent}")
    lines = csv_lines(path, f"get the file of {data_set} again")
    _, header = next(lines, (0, []))
    return pick_columns(path, header, lines, wanted, data_set)


def pick_columns(
    path: Path,
    header: Sequence[str],
    lines: Iterable[Line],
    wanted: Sequence[str],
    data_set: str,
) -> Table:
    """Keep some columns of the lines of a file.

    Args:
        path: The file, for messages.
        header: Names of all columns.
        lines: Number and fields of each line.
        wanted: Names of the columns to keep.
        data_set: Name of the data set, for messages.

    Raises:
        InputError: A column is missing or comes twice, a row is shorter or longer than the header,
            or there are no rows.
    """
    columns: list[list[str]] = [[] for _ in wanted]
    numbers: list[int] = []
    shared: dict[str, str] = {}  # short values repeat; one copy of each saves most of the memory
    for number, values in columns_of_lines(path, header, lines, wanted, data_set):
        for column, value in zip(columns, values, strict=True):
            column.append(value if len(value) > _SHORT else shared.setdefault(value, value))
        numbers.append(number)
    if not numbers:
        raise InputError(f"{data_set}: {path} has no rows below its header; get the file again")
    return Table(path, dict(zip(wanted, columns, strict=True)), np.array(numbers, dtype=np.int64))


def columns_of_lines(
    path: Path,
    header: Sequence[str],
    lines: Iterable[Line],
    wanted: Sequence[str],
    data_set: str,
) -> Iterator[Line]:
    """Yield number and some columns, stripped, of each line.

    Args:
        path: The file, for messages.
        header: Names of all columns.
        lines: Number and fields of each line.
        wanted: Names of the columns to keep.
        data_set: Name of the data set, for messages.

    Yields:
        The line's number, and its values in the order of ``wanted``.

    Raises:
        InputError: A column is missing or comes twice, or a row is shorter or longer than the
            header.
    """
    header = [name.strip() for name in header]
    if missing := [column for column in wanted if column not in header]:
        raise InputError(
            f"{data_set}: {path} has no column {missing[0]!r}, its columns are"
            f" {', '.join(map(quoted, header[:50])) or 'missing'}."
            f"{did_you_mean(missing[0], header, list_up_to=0)}"
        )
    if twice := [column for column in wanted if header.count(column) > 1]:
        raise InputError(
            f"{data_set}: {path} has {header.count(twice[0])} columns {twice[0]!r}: rename all but"
            " one of them"
        )
    places = [header.index(column) for column in wanted]
    for number, fields in lines:
        if len(fields) < len(header):
            raise InputError(
                f"{data_set}: line {number} of {path} has {len(fields)} of {len(header)} columns:"
                " the file is incomplete; get it again"
            )
        if any(field.strip() for field in fields[len(header) :]):
            raise InputError(
                f"{data_set}: line {number} of {path} has {len(fields)} columns, its header"
                f" {len(header)}: a value with the separator in it needs quotes"
            )
        yield number, [fields[place].strip() for place in places]
