"""The file of rows of a split: where each image lies, its checksum, columns and name."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lit_ssl.arrays import read_arrays
from lit_ssl.datamodules.reading.images import PackedStrings
from lit_ssl.datamodules.streaming.manifest import SplitFiles
from lit_ssl.errors import InputError, quoted

__all__ = ["RowTable", "rows_content", "stored_rows"]

_NAMES = "names"
_COLUMN = "column."
_NUMBERS = "biuf"  # kinds of columns
_PLACES = ("chunk", "offset", "size", "crc")
_DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile)


class RowTable(NamedTuple):
    """The images of a split, in the order of the data set.

    Attributes:
        chunk: int64 ``[N]``: number of the chunk of each.
        offset: int64 ``[N]``: where it begins there, in bytes.
        size: int64 ``[N]``: its bytes.
        crc: int64 ``[N]``: CRC-32 of them.
        columns: Name → array ``[N, …]``.
        names: Its path below the folder of the split; None: images have no names.
    """

    chunk: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    crc: np.ndarray
    columns: dict[str, np.ndarray]
    names: PackedStrings | None


def rows_content(table: RowTable) -> bytes:
    """Return the file of a table.

    Args:
        table: places, checksums, columns and names of a split's images.

    Raises:
        InputError: A column is of something else than numbers.
    """
    arrays: dict[str, Any] = {name: getattr(table, name) for name in _PLACES}
    for name, column in table.columns.items():
        if column.dtype.kind not in _NUMBERS:
            raise InputError(f"the column {name!r} is {column.dtype}, and shards hold numbers only")
        arrays[_COLUMN + name] = column
    if table.names is not None:
        names = b"".join(os.fsencode(table.names[row]) + b"\0" for row in range(len(table.names)))
        arrays[_NAMES] = np.frombuffer(names, dtype=np.uint8)
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def stored_rows(path: Path, files: SplitFiles, place: str) -> RowTable:
    """Read the table of a split.

    Args:
        path: Its file, on this machine.
        files: What the manifest says of the split.
        place: What messages call it.

    Raises:
        InputError: It is damaged, or not the one that the manifest names.
    """
    try:
        if hashlib.sha256(path.read_bytes()).hexdigest() != files.rows_sha256:
            raise ValueError("its checksum is another than the manifest says")
        arrays = read_arrays(path)
        table = RowTable(
            **{name: arrays[name] for name in _PLACES},
            columns={
                name.removeprefix(_COLUMN): array
                for name, array in arrays.items()
                if name.startswith(_COLUMN)
            },
            names=_unpacked(arrays[_NAMES]) if _NAMES in arrays else None,
        )
        _check(table, files)
        return table
    except _DAMAGED as error:
        raise InputError(
            f"{place} is damaged ({error}): copy it again, or run `lit-ssl shard` again"
        ) from error


def _unpacked(array: np.ndarray) -> PackedStrings:
    if array.dtype != np.uint8:
        raise ValueError(f"names are {array.dtype}")
    names = array.tobytes().split(b"\0")
    return PackedStrings(os.fsdecode(name) for name in names[:-1])


def _check(table: RowTable, files: SplitFiles) -> None:
    for name in _PLACES:
        places = getattr(table, name)
        if places.dtype != np.int64 or places.shape != (files.images,) or (places < 0).any():
            raise ValueError(f"its {name} are {places.dtype} {list(places.shape)}")
    for name, column in table.columns.items():
        if column.dtype.kind not in _NUMBERS:
            raise ValueError(f"its column {quoted(name)} is {column.dtype}")
    lengths = [len(column) for column in table.columns.values()]
    if table.names is not None:
        lengths.append(len(table.names))
    if any(length != files.images for length in lengths):
        raise ValueError("its columns have different lengths")
    if "label" not in table.columns:
        raise ValueError("it has no labels")
    labels = table.columns["label"]
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise ValueError(f"its labels are {labels.dtype} {list(labels.shape)}")
    if not files.images:
        return
    if table.chunk.max() >= len(files.chunks):
        raise ValueError(f"it names chunk {quoted(int(table.chunk.max()))}")
    ends = np.array([chunk.size for chunk in files.chunks])[table.chunk]
    if (table.offset > ends).any() or (table.size > ends - table.offset).any():
        raise ValueError("it has places behind the end of a chunk")
