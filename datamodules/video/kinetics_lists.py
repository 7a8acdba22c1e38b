"""Lists of the videos of Kinetics: the official tables, and lists of paths with labels."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from lit_ssl.errors import InputError, listed, quoted
from lit_ssl.files import read_text, text_lines
from lit_ssl.numerals import finite_number

__all__ = ["Entry", "find_list", "is_table", "read_list", "read_table", "split_names"]

_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "validate", "valid", "validation"),
    "test": ("test",),
}
_COLUMNS = ("label", "youtube_id", "time_start", "time_end")


class Entry(NamedTuple):
    """A video that a list has.

    Attributes:
        name: Its path, or the name of its file without ending.
        label: The name or the number of its class; None where the list has none.
    """

    name: str
    label: str | None


def split_names(split: str) -> Sequence[str]:
    """Return what releases call a split, as folders and as files.

    Args:
        split: ``train``, ``val`` or ``test``.
    """
    return _NAMES[split]


def find_list(folders: Sequence[Path], version: int, split: str) -> Path | None:
    """Return the list of a split, of whichever kind; None where there is none.

    Args:
        folders: Folders to look in.
        version: 400, 600 or 700.
        split: The split.
    """
    for folder in folders:
        for name in _NAMES[split]:
            for stem in (
                name,
                f"kinetics_{version}_{name}",
                f"kinetics-{version}_{name}",
                f"kinetics{version}_{name}",
                f"kinetics{version}_{name}_list_videos",
            ):
                for ending in (".csv", ".txt"):
                    if (folder / f"{stem}{ending}").is_file():
                        return folder / f"{stem}{ending}"
    return None


def is_table(path: Path) -> bool:
    """Whether a list is an official table, with the names of its columns in the first line.

    Args:
        path: of the list, a text file.
    """
    first = next(iter(text_lines(path)), (0, ""))[1]
    with _table_errors(path):
        return any("youtube_id" in names for names in csv.reader([first], skipinitialspace=True))


def read_table(path: Path) -> list[Entry]:
    """Read an official table: columns label, youtube_id, time_start, time_end, … in any order.

    A table of test videos may lack labels. Files are named ``<id>_<start>_<end>``, both in seconds
    with six digits.

    Args:
        path: of the table.

    Raises:
        InputError: A column is missing, or a line has no such times.
    """
    with _table_errors(path):
        return _entries(path)


@contextmanager
def _table_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except csv.Error as error:
        raise InputError(
            f"Kinetics: {path} is no table of comma-separated values: {error}"
        ) from error


def _entries(path: Path) -> list[Entry]:
    lines = csv.DictReader(read_text(path).splitlines(), skipinitialspace=True)
    lacking = [name for name in _COLUMNS[1:] if name not in (lines.fieldnames or ())]
    if lacking:
        raise InputError(
            f"Kinetics: {path} has no column {' and '.join(lacking)}: expected the official table,"
            f" with the columns {', '.join(_COLUMNS)}"
        )
    entries = []
    for line in lines:
        times = [finite_number(line[name] or "") for name in ("time_start", "time_end")]
        if None in times or not line["youtube_id"]:
            raise InputError(
                f"Kinetics: line {lines.line_num} of {path} has no youtube_id, or no times in"
                f" seconds: {listed([quoted(line[name]) for name in _COLUMNS[1:]])}"
            )
        start, end = (f"{round(time or 0):06}" for time in times)
        entries.append(Entry(f"{line['youtube_id']}_{start}_{end}", line.get("label") or None))
    return entries


def read_list(path: Path) -> list[Entry]:
    """Read a list with lines ``<path> <number of the class>``; between them blanks or a comma.

    Paths may have blanks and commas in them.

    Args:
        path: of the list.

    Raises:
        InputError: A line is another.
    """
    entries = []
    for place, line in text_lines(path):
        entry = re.fullmatch(r"(.*[^\s,])[\s,]+([0-9]{1,9})", line.strip())
        if entry is None:
            raise InputError(
                f"Kinetics: line {place} of {path} is {quoted(line)}: expected '<path> <number of"
                " the class from 0>', or an official table, which begins with the names of its"
                " columns"
            )
        entries.append(Entry(entry[1], entry[2]))
    return entries
