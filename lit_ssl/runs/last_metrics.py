"""The last values that a run has logged, where it has written no report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lit_ssl.errors import InputError
from lit_ssl.numerals import finite_number
from lit_ssl.runs.reports import Column, Measurement, Numbers, column_of_metric
from lit_ssl.tables import csv_lines

__all__ = ["METRICS", "last_metrics"]

METRICS = "metrics.csv"
_SPLITS = {"val": "validation", "test": "test"}
_SPREAD = "_std"  # between draws of one run


def last_metrics(path: Path) -> Iterator[Measurement]:
    """The last value of each ``val/…`` and ``test/…`` in the file of Lightning's CSVLogger.

    Args:
        path: ``metrics.csv``.

    Yields:
        One measurement for each of the two splits that it has.

    Raises:
        InputError: it is no CSV file, or has a cell that is no number.
    """
    last: dict[str, float | None] = {}
    ends: dict[str, str] = {}
    lines = csv_lines(path, "expected the metrics.csv of Lightning's CSVLogger")
    _, header = next(lines, (0, []))
    columns = [
        (place, name)
        for place, name in enumerate(header)
        if name.partition("/")[0] in _SPLITS and "/" in name and not name.endswith(_SPREAD)
    ]
    for number, cells in lines:
        if len(cells) < len(header):  # half-written, as by a run that lives
            continue
        for place, name in columns:
            if cells[place]:
                value = finite_number(cells[place])
                if value is None and cells[place].lower() not in ("nan", "inf", "-inf"):
                    raise InputError(f"{path}, line {number}: {cells[place]:.40} is no number")
                last[name] = value
                ends[name] = cells[place].lower()
    for split, word in _SPLITS.items():
        numbers: Numbers = {
            _column(name, value): value
            for name, value in last.items()
            if name.startswith(f"{split}/")
        }
        notes = [
            f"{path.absolute().parent.name}: {column.name} ended as {ends[column.name]}"
            for column, value in numbers.items()
            if value is None
        ]
        if numbers:
            yield Measurement(path, f"last {word} metrics", numbers, {}, None, {}, notes)


def _column(name: str, value: float | None) -> Column:
    """The column of a metric; what is no share in [0, 1] is shown as it was logged."""
    column = column_of_metric(name)
    is_share = column.is_share and (value is None or 0 <= value <= 1)
    return column._replace(is_share=is_share)
