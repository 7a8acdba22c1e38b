"""Curves of a run: what its loggers wrote, as numbers."""

from __future__ import annotations

import math
import struct
import warnings
from collections.abc import Callable, Iterator
from os import fstat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lit_ssl.errors import InputError
from lit_ssl.numerals import finite_number, whole_number
from lit_ssl.opening import open_file, reading
from lit_ssl.tables import csv_lines

__all__ = ["Curve", "has_curves", "read_curves"]

_CSV = "metrics.csv"
_EVENTS = "events.out.tfevents.*"
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_HEAD = struct.Struct("<QI")  # length of a record, checksum of these 8 bytes
_CHECK = struct.Struct("<I")
_LARGEST = 1 << 16  # bytes of a record with a number; pictures have more, and are passed over

Say = Callable[[str], object]


class Curve(NamedTuple):
    """One metric over a training.

    Attributes:
        steps: optimizer steps, int64 ``[N]``, ascending, each once.
        values: float64 ``[N]``; NaN and infinities stay what they are.
    """

    steps: np.ndarray
    values: np.ndarray


def has_curves(folder: str | Path) -> bool:
    """Whether a folder has a file that ``read_curves`` reads.

    Args:
        folder: folder of a run, which need not exist.
    """
    return bool(_files(Path(folder)))


def read_curves(folder: str | Path, say: Say = warnings.warn) -> dict[str, Curve]:
    """Read what Lightning's CSVLogger and TensorBoardLogger left in the folder of a run.

    Files may be growing, or damaged: all that can be read before the damage counts. Where a metric
    is in both kinds of files, those of TensorBoard count. Where the steps go back, as in a run that
    was resumed from an earlier checkpoint, what was logged last counts.

    Args:
        folder: folder of the run, with ``metrics.csv`` or files ``events.out.tfevents.…``.
        say: called with one line for each file that could not be read to its end.

    Returns:
        The curves by the name of the metric, in the order in which the files name them; none where
        there are no such files.
    """
    found: dict[str, tuple[list[int], list[float]]] = {}
    for path in _files(Path(folder)):
        points = _csv_points if path.name == _CSV else _event_points
        from_file: dict[str, tuple[list[int], list[float]]] = {}
        try:
            for name, step, value in points(path, say):
                steps, values = from_file.setdefault(name, ([], []))
                _add(steps, values, step, value)
        except InputError as error:
            say(f"{error}; read up to there")
        for name, (steps, values) in from_file.items():
            if path.name == _CSV and name in found:
                continue
            earlier = found.setdefault(name, ([], []))
            while earlier[0] and steps and earlier[0][-1] >= steps[0]:
                earlier[0].pop()
                earlier[1].pop()
            earlier[0].extend(steps)
            earlier[1].extend(values)
    return {
        name: Curve(np.array(steps, dtype=np.int64), np.array(values, dtype=np.float64))
        for name, (steps, values) in found.items()
    }


def _add(steps: list[int], values: list[float], step: int, value: float) -> None:
    while steps and steps[-1] >= step:
        steps.pop()
        values.pop()
    steps.append(step)
    values.append(value)


def _files(folder: Path) -> list[Path]:
    """TensorBoard's files, the oldest first (their names begin with the time), then the CSV."""
    events = sorted(path for path in folder.glob(_EVENTS) if path.is_file())
    return [*events, *(path for path in [folder / _CSV] if path.is_file())]


def _csv_points(path: Path, say: Say) -> Iterator[tuple[str, int, float]]:
    """Points of ``metrics.csv``: a column ``step``, one column for each metric, blanks between."""
    lines = csv_lines(path, "expected the metrics.csv of Lightning's CSVLogger")
    header = next(lines, (0, []))[1]
    if "step" not in header:
        if header:
            say(f"{path} has no column step: it is no metrics.csv of Lightning's CSVLogger")
        return
    place = header.index("step")
    columns = [(n, name) for n, name in enumerate(header) if name and n != place]
    unreadable = 0
    for _, cells in lines:
        step = whole_number(cells[place]) if len(cells) > place else None
        if step is None or len(cells) != len(header):  # the last line may be half written
            unreadable += 1
            continue
        for n, name in columns:
            if cells[n]:
                number = finite_number(cells[n])
                value = _NOT_FINITE.get(cells[n].lower()) if number is None else number
                if value is None:
                    unreadable += 1
                else:
                    yield name, step, value
    if unreadable:
        say(f"{path}: {unreadable:,} of its lines or cells are no numbers, and are left out")


def _event_points(path: Path, say: Say) -> Iterator[tuple[str, int, float]]:
    """Points of a file of TensorBoard."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    try:
        for record in _records(path, say):
            event = Event.FromString(record)
            for value in event.summary.value:
                number = _scalar(value)
                if number is not None:
                    yield value.tag, event.step, number
        # the last ones are TensorBoard's for tensors that are not what they say
    except (DecodeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} holds a record that is none of TensorBoard's") from error


def _scalar(value: Any) -> float | None:
    """The number in a value, written in the old way or in the new one; None for what is none."""
    if value.HasField("simple_value"):
        return float(value.simple_value)
    if value.HasField("tensor") and value.metadata.plugin_data.plugin_name == "scalars":
        if value.tensor.tensor_shape.dim:  # of any size that a foreign file says
            return None
        from tensorboard.util.tensor_util import make_ndarray

        array = make_ndarray(value.tensor)
        return float(array) if array.dtype.kind in "fiu" else None
    return None


def _records(path: Path, say: Say) -> Iterator[bytes]:
    """Records of a file that are small enough for numbers.

    TensorBoard's own loader computes checksums of all pictures in Python, which takes a second for
    some megabytes, and ends in silence where a file is damaged.
    """
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    with reading(path), open_file(path) as file:
        size, place = fstat(file.fileno()).st_size, 0
        while place < size:
            head = file.read(_HEAD.size)
            if len(head) == _HEAD.size:
                length, check = _HEAD.unpack(head)
                if masked_crc32c(head[:8]) != check:
                    raise InputError(f"{path} is damaged at byte {place:,} of {size:,}")
            end = place + _HEAD.size + (length if len(head) == _HEAD.size else 0) + _CHECK.size
            if end > size:
                say(f"{path} ends within a record: it is being written, or its writer was killed")
                return
            if length > _LARGEST:
                file.seek(end)
            else:
                record = file.read(length)
                if file.read(_CHECK.size) != _CHECK.pack(masked_crc32c(record)):
                    raise InputError(f"{path} is damaged at byte {place:,} of {size:,}")
                yield record
            place = end
