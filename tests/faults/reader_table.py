"""A table of readers of files: how a valid file is written, and what its values must be like."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from lit_ssl.errors import InputError

__all__ = [
    "READERS",
    "Reader",
    "is_sound",
    "lines",
    "npy",
    "picture",
    "put",
    "reader",
    "same_rows",
    "table",
]


class Reader(NamedTuple):
    """How a file is read.

    Attributes:
        write: Writes a valid one, and what goes with it, into a folder; returns its path.
        read: Reads it; asserts that the values have the right form.
        cost: How many others could be read meanwhile.
    """

    write: Callable[[Path], Path]
    read: Callable[[Path], object]
    cost: int = 1


READERS: dict[str, Reader] = {}


def reader(write: Callable[[Path], Path]) -> Callable[[Callable[[Path], object]], None]:
    def add(read: Callable[[Path], object]) -> None:
        READERS[read.__name__] = Reader(write, read)

    return add


def put(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def lines(*items: object) -> str:
    return "".join(f"{json.dumps(item)}\n" for item in items)


def picture(kind: str = "JPEG", mode: str = "RGB", size: tuple[int, int] = (9, 7)) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(np.linspace(0, 65535, 63).reshape(7, 9).astype(np.uint16))
    else:
        image = image.convert(mode)
    image.save(file, kind)
    return file.getvalue()


def same_rows(rows: Any, low: int = -1, high: int | None = None) -> None:
    """Rows whose labels are int64 and in range."""
    assert len(rows.labels) == len(rows)
    assert rows.labels.dtype == np.int64
    if len(rows):
        assert rows.labels.min() >= low
        assert high is None or rows.labels.max() < high


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def is_sound(name: str, folder: Path) -> None:
    """The file as it was written is read without an error."""
    one = READERS[name]
    path = one.write(folder)
    try:
        one.read(path)
    except InputError as error:
        raise AssertionError(f"the reader {name} refuses a valid file: {error}") from error
