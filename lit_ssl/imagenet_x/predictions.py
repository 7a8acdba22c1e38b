"""Predictions of a classifier as CSV, in the official format of ImageNet-X."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from lit_ssl.cells import name_of_cell, plain_cell
from lit_ssl.errors import InputError, did_you_mean, quoted, shortened
from lit_ssl.files import write_file
from lit_ssl.imagenet_x.annotations import FactorAnnotations
from lit_ssl.numerals import finite_number, whole_number
from lit_ssl.tables import csv_lines, even_columns

__all__ = ["Predictions", "check_coverage", "read_predictions", "write_predictions"]

_COLUMNS = ("file_name", "predicted_class", "predicted_probability")
_PLAIN = frozenset("0123456789.eE+-")
_EXPECTED = f"expected a CSV file with the columns {', '.join(_COLUMNS)} (the last may be missing)"


class Predictions(NamedTuple):
    """One model's predictions, by image number.

    Attributes:
        name: Of the model.
        classes: int64 ``[size + 1]``: of image n at n; −1 where there is none.
        probability: Of the predicted class, float64 ``[size + 1]``, NaN where there is none.
        extra: Rows of a file about images that a user's annotations do not name.
    """

    name: str
    classes: np.ndarray
    probability: np.ndarray
    extra: int = 0


def read_predictions(
    path: str | Path, annotations: FactorAnnotations, name: str | None = None
) -> Predictions:
    """Read predictions.

    Args:
        path: CSV file with the columns ``file_name``, ``predicted_class`` (class index; ``65.0`` is
            65) and ``predicted_probability`` (may be missing or empty); others are ignored.
        annotations: Tell the number of an image by its name.
        name: Of the model; None takes the file's.

    Raises:
        InputError: If the file cannot be read, names an image twice or an unknown one, or holds
            something that is no class. Images that it does not name are for
            ``check_coverage``.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"no predictions at {path}: {_EXPECTED}")
    columns, lines = _read_columns(path)
    names = list(map(name_of_cell, columns["file_name"]))
    numbers = annotations.find_numbers(names)
    _check_names(path, names, numbers, annotations)
    classes = np.full(annotations.size + 1, -1, dtype=np.int64)
    probability = np.full(annotations.size + 1, np.nan)
    limit = annotations.num_classes if annotations.files is None else 2**31
    classes[numbers] = _class_indices(path, lines, columns["predicted_class"], limit)
    if cells := columns.get("predicted_probability"):
        probability[numbers] = _probabilities(path, lines, cells)
    classes[0], probability[0] = -1, np.nan  # where the unknown names went
    return Predictions(name or path.stem, classes, probability, int((numbers == 0).sum()))


def _read_columns(path: Path) -> tuple[dict[str, list[str]], Sequence[int]]:
    """The cells of the columns that are there, and the line on which each row ends."""
    if columns := even_columns(path):
        where = _places(path, [column[0] for column in columns])
        lines = range(2, len(columns[0]) + 1)
        return {name: columns[place][1:] for name, place in where.items()}, lines
    rows = csv_lines(path, _EXPECTED)
    where = _places(path, next(rows, (0, []))[1])
    body = list(rows)
    width = max(where.values()) + 1
    if short := next((line for line, row in body if len(row) < width), None):
        raise InputError(f"{path} ends in the middle of line {short}: {_EXPECTED}")
    cells = {name: [row[place] for _, row in body] for name, place in where.items()}
    return cells, [line for line, _ in body]


def _places(path: Path, header: list[str]) -> dict[str, int]:
    names = [field.strip() for field in header]
    for column in _COLUMNS[:2]:
        if column not in names:
            raise InputError(f"{path} has no column {column}: {_EXPECTED}.{_hint(column, names)}")
    return {column: names.index(column) for column in _COLUMNS if column in names}


def _hint(column: str, header: list[str]) -> str:
    return did_you_mean(column, header) if header else " It is empty."


def _check_names(
    path: Path, names: list[str], numbers: np.ndarray, annotations: FactorAnnotations
) -> None:
    unknown = np.flatnonzero(numbers == 0)
    if len(unknown) and (annotations.files is None or len(unknown) == len(names)):
        like = annotations.file_name(1)
        raise InputError(
            f"{path} names {len(unknown):,} images that are not in the annotations, e.g. "
            f"{shortened(names[unknown[0]])}: expected names such as {like}"
        )
    times = np.bincount(numbers, minlength=annotations.size + 1)
    times[0] = 0
    doubled = np.flatnonzero(times > 1)
    if len(doubled):
        raise InputError(
            f"{path} has {len(doubled):,} images more than once, e.g. "
            f"{annotations.file_name(int(doubled[0]))} ({times[doubled[0]]} times): keep one row "
            "per image (samplers that pad their data write some twice)"
        )


def _whole(text: str) -> int:
    """A whole number; a table of floats, as where a row had no class once, has 65.0 or 6.5e+01."""
    whole = whole_number(text.strip())
    if whole is not None:
        return whole
    found = _number(text)
    if not found.is_integer():
        raise ValueError(text)
    return int(found)


def _number(text: str) -> float:
    found = finite_number(text.strip())
    if found is None:
        raise ValueError(text)
    return found


def _class_indices(path: Path, lines: Sequence[int], cells: list[str], limit: int) -> np.ndarray:
    """A column of whole numbers from 0 to below ``limit``: int64."""
    found = _plain_numbers(cells)
    if found is not None and np.all((found >= 0) & (found < limit) & (found == np.floor(found))):
        return found.astype(np.int64)
    values = np.empty(len(cells), dtype=np.int64)
    for row, cell in enumerate(cells):
        try:
            values[row] = _whole(cell)
            inside = 0 <= values[row] < limit
        except (ValueError, OverflowError):
            inside = False
        if not inside:
            raise _wrong(path, lines[row], cell, f"class indices from 0 to {limit - 1}")
    return values


def _probabilities(path: Path, lines: Sequence[int], cells: list[str]) -> np.ndarray:
    """A column of numbers from 0 to 1, NaN where it is empty: float64."""
    found = _plain_numbers(cells)
    if found is not None and np.all((found >= 0) & (found <= 1)):
        return found
    values = np.full(len(cells), np.nan)  # as write_predictions writes what is not known
    for row, cell in enumerate(cells):
        if not cell.strip():
            continue
        try:
            values[row] = _number(cell)
            inside = 0 <= values[row] <= 1
        except ValueError:
            inside = False
        if not inside:
            raise _wrong(path, lines[row], cell, "numbers from 0 to 1")
    return values


def _plain_numbers(cells: list[str]) -> np.ndarray | None:
    """All cells at once, where they are made of digits, points and exponents: float64.

    None: at least one has to be looked at. What Python's ``float`` makes of these characters is
    what ``lit_ssl.numerals.finite_number`` does.
    """
    if not set("".join(cells)) <= _PLAIN:
        return None
    try:
        return np.array(list(map(float, cells)), dtype=np.float64)
    except ValueError:
        return None


def _wrong(path: Path, line: int, cell: str, expected: str) -> InputError:
    return InputError(f"line {line} of {path} holds {quoted(cell)}: expected {expected}")


def check_coverage(
    predictions: Predictions, annotations: FactorAnnotations, partial: bool = False
) -> int:
    """Count the annotated images that have a prediction.

    Args:
        predictions: Of one model.
        annotations: Say which images count.
        partial: Whether some may be missing.

    Returns:
        How many have one.

    Raises:
        InputError: If some have none and ``partial`` is not set, or if none has one.
    """
    missing = annotations.numbers[predictions.classes[annotations.numbers] < 0]
    total = len(annotations.numbers)
    if len(missing) and (not partial or len(missing) == total):
        rest = (
            "an accuracy over the others would not be comparable; predict all images, or allow "
            "it (partial) and read n in the table"
        )
        raise InputError(
            f"{predictions.name} has no prediction for {len(missing):,} of the {total:,} annotated "
            f"images, e.g. {annotations.file_name(int(missing[0]))}: {rest}"
        )
    return total - len(missing)


def write_predictions(
    path: str | Path, predictions: Predictions, annotations: FactorAnnotations
) -> Path:
    """Write all predictions in the official format; the file appears when it is complete.

    ImageNet's images come by class, then by number: the official package needs this order.

    Args:
        path: CSV file.
        predictions: Of one model.
        annotations: Name the images.

    Returns:
        The path.
    """
    order = np.flatnonzero(predictions.classes >= 0)
    if annotations.files is None:
        order = order[np.argsort(annotations.labels[order - 1], kind="stable")]

    def write(file: TextIO) -> None:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for image in order.tolist():
            p = predictions.probability[image]
            shown = "" if np.isnan(p) else repr(round(float(p), 9))
            name = plain_cell(annotations.file_name(image))
            writer.writerow([name, predictions.classes[image], shown])

    return write_file(path, write)
