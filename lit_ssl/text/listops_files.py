"""ListOps in the files of Long Range Arena: a table of expressions and their values."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from lit_ssl.errors import InputError, did_you_mean, quoted
from lit_ssl.files import write_file
from lit_ssl.tables import csv_lines
from lit_ssl.text.listops import evaluate, parse, spell

__all__ = ["file_name", "read_expressions", "write_expressions"]

_COLUMNS = ("Source", "Target")


def file_name(split: str) -> str:
    """Return the benchmark's name for the file of a split: "train", "val" or "test".

    Args:
        split: its name here, which is also the benchmark's.
    """
    return f"basic_{split}.tsv"


def write_expressions(path: Path, expressions: Iterable[bytes]) -> Path:
    """Write expressions and their values as the benchmark's generator does, all or nothing.

    Args:
        path: File to write.
        expressions: Ids of the symbols of each.
    """

    def write(file: TextIO) -> None:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(_COLUMNS)
        writer.writerows((spell(symbols), evaluate(symbols)) for symbols in expressions)

    return write_file(path, write)


def read_expressions(path: Path) -> tuple[list[bytes], list[int]]:
    """Read expressions and their values; every value is worked out again.

    Args:
        path: A tab-separated file with the columns Source and Target.

    Returns:
        Ids of the symbols of each expression, and its value, a digit.

    Raises:
        InputError: It is no such file, a line holds no expression, or another value than its own.
    """
    lines = csv_lines(path, "expected the tab-separated columns Source and Target", "\t")
    _, header = next(lines, (0, []))
    header = [name.strip() for name in header]
    for name in _COLUMNS:
        if name not in header:
            raise InputError(
                f"ListOps: {path} has no column {name!r} between tabs, its columns are"
                f" {', '.join(map(quoted, header[:10])) or 'missing'}."
                f"{did_you_mean(name, header, list_up_to=0)}"
            )
    source, target = (header.index(name) for name in _COLUMNS)
    expressions: list[bytes] = []
    values: list[int] = []
    for number, fields in lines:
        if len(fields) < len(header):
            raise InputError(
                f"ListOps: line {number} of {path} has {len(fields)} of {len(header)} columns: the"
                " file is incomplete; get it again"
            )
        try:
            symbols = parse(fields[source])
            value = evaluate(symbols)
        except InputError as error:
            raise InputError(f"ListOps: line {number} of {path} holds {error}") from error
        if fields[target].strip() != str(value):
            raise InputError(
                f"ListOps: line {number} of {path} gives {fields[target][:20]!r} for an expression"
                f" whose value is {value}: Source and Target do not belong together; get the file"
                " again"
            )
        expressions.append(symbols)
        values.append(value)
    if not expressions:
        raise InputError(f"ListOps: {path} has no rows below its header; get the file again")
    return expressions, values
