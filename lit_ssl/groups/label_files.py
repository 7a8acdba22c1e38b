"""Group labels of training rows as CSV: what a predictor says, beside what was known."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from lit_ssl.errors import InputError, listed, quoted
from lit_ssl.files import write_file
from lit_ssl.numerals import finite_number, whole_number
from lit_ssl.tables import csv_lines

__all__ = ["GroupLabels", "read_group_labels", "write_group_labels"]

_COLUMNS = ("row", "attribute", "source")
_SOURCES = ("known", "predicted")
_EXPECTED = (
    f"expected a CSV file with the columns {', '.join(_COLUMNS)} (known or predicted) and, for "
    "soft groups, p_0, p_1, … (predicted_groups.csv of a run of BARACK or AttributePredictor)"
)


class GroupLabels(NamedTuple):
    """Attributes of all training rows, in the order of the training set.

    Attributes:
        attributes: int64 ``[N]``, each in ``[0, A)``; −1 unknown, which no file holds.
        known: bool ``[N]``; False where the attribute is a prediction, or unknown.
        probabilities: float32 ``[N, A]``, rows sum to 1 (one-hot where known), or None.
    """

    attributes: np.ndarray
    known: np.ndarray
    probabilities: np.ndarray | None = None


def write_group_labels(path: str | Path, labels: GroupLabels) -> Path:
    """Write attributes as CSV; the file appears when it is complete.

    The columns are ``row`` (0, 1, … in the order of the training set as it is used), ``attribute``,
    ``source`` (``known`` or ``predicted``) and, with probabilities, ``p_0`` … ``p_{A-1}``, with as
    many digits as give the same float32 back.

    Args:
        path: file to write; its folder is made.
        labels: of all training rows.

    Returns:
        The path.
    """
    width = 0 if labels.probabilities is None else labels.probabilities.shape[1]

    def write(file: TextIO) -> None:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*_COLUMNS, *(f"p_{a}" for a in range(width))])
        for row, attribute in enumerate(labels.attributes.tolist()):
            fields = [row, attribute, _SOURCES[not labels.known[row]]]
            if labels.probabilities is not None:
                fields += [f"{p:.9g}" for p in labels.probabilities[row].tolist()]
            writer.writerow(fields)

    return write_file(path, write)


def read_group_labels(path: str | Path, num_rows: int, num_attributes: int) -> GroupLabels:
    """Read attributes that ``write_group_labels`` wrote.

    Args:
        path: CSV file; its rows may come in any order.
        num_rows: number N of training rows.
        num_attributes: number A of attribute values.

    Returns:
        The attributes, in the order of the training set.

    Raises:
        InputError: if the file cannot be read, does not name each row once, or holds something that
            is no attribute.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"no group labels at {path}: {_EXPECTED}")
    lines = csv_lines(path, _EXPECTED)
    header = [field.strip() for field in next(lines, (0, []))[1]]
    body = [fields for _, fields in lines]
    if missing := [column for column in _COLUMNS if column not in header]:
        raise InputError(f"{path} has no column {missing[0]}: {_EXPECTED}")
    short = [line for line, fields in enumerate(body, start=2) if len(fields) < len(header)]
    if short:
        raise InputError(f"{path} ends in the middle of line {short[0]}: {_EXPECTED}")
    columns = {name: [fields[i].strip() for fields in body] for i, name in enumerate(header)}
    order = _order(path, columns["row"], num_rows)
    attributes = _integers(path, columns["attribute"], "attribute", num_attributes)
    sources = columns["source"]
    wrong = next((i for i, source in enumerate(sources) if source not in _SOURCES), None)
    if wrong is not None:
        raise InputError(
            f"line {wrong + 2} of {path} has the source {quoted(sources[wrong])}: {_EXPECTED}"
        )
    known = np.array([source == "known" for source in sources])
    probabilities = _probabilities(path, columns, num_attributes)
    soft = None if probabilities is None else probabilities[order]
    return GroupLabels(attributes[order], known[order], soft)


def _order(path: Path, values: list[str], num_rows: int) -> np.ndarray:
    """Where in the file the training rows 0, 1, … are."""
    if len(values) != num_rows:
        raise InputError(
            f"{path} has {len(values):,} rows, but the training set has {num_rows:,}: it belongs "
            "to other data or another subset; predict the groups again with this data module"
        )
    rows = _integers(path, values, "row", num_rows)
    times = np.bincount(rows, minlength=num_rows)
    if (times > 1).any():
        doubled = int(np.argmax(times > 1))
        raise InputError(f"{path} has row {doubled} {times[doubled]} times: expected each row once")
    return np.argsort(rows)


def _integers(path: Path, values: list[str], what: str, limit: int) -> np.ndarray:
    found = np.empty(len(values), dtype=np.int64)
    for i, value in enumerate(values):
        number = whole_number(value)
        found[i] = -1 if number is None else number
        if not 0 <= found[i] < limit:
            raise InputError(
                f"line {i + 2} of {path} has the {what} {quoted(value)}: expected an integer from"
                f" 0 to {limit - 1}"
            )
    return found


def _probabilities(
    path: Path, columns: dict[str, list[str]], num_attributes: int
) -> np.ndarray | None:
    given = sorted(name for name in columns if name.startswith("p_"))
    if not given:
        return None
    wanted = [f"p_{a}" for a in range(num_attributes)]
    if given != sorted(wanted):
        raise InputError(
            f"{path} has the probabilities {listed(given, 20)}, but the data has {num_attributes} "
            f"attributes: expected {', '.join(wanted)}"
        )
    found = [[finite_number(value) for value in columns[name]] for name in wanted]
    if any(None in numbers for numbers in found):
        raise InputError(f"{path} has a probability that is no number")
    values = np.array(found, dtype=np.float32).T
    wrong = ~((values >= 0).all(axis=1) & (np.abs(values.sum(axis=1) - 1) < 1e-3))
    if wrong.any():
        line = int(np.argmax(wrong)) + 2
        raise InputError(f"the probabilities in line {line} of {path} do not sum to 1")
    return values
