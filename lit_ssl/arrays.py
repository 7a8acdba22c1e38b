"""Files of NumPy that others may have written: nothing is run, and no header is believed."""

from __future__ import annotations

import io
import math
import os
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lit_ssl.errors import quoted
from lit_ssl.opening import open_file

__all__ = ["ArrayFileError", "arrays_in", "read_array", "read_arrays"]

_ENDING = ".npy"
_ALWAYS = 64 << 20  # bytes that compressed arrays of any file may have together …
_RATIO = 200  # … and how many times as many as the file: masks shrink to a hundredth


class ArrayFileError(ValueError):
    """What is wrong with a file of arrays, in a few words."""


def read_array(path: str | Path) -> np.ndarray:
    """Read a ``.npy`` file of numbers or strings.

    Args:
        path: The file.

    Returns:
        Of the shape and type that its header says.

    Raises:
        OSError: It is not there, or cannot be read.
        ArrayFileError: It is no such file, or shorter than its header says.
    """
    with open_file(path) as file:
        return _array(file.read())


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Read all arrays of a ``.npz`` file.

    Args:
        path: The file.

    Returns:
        The arrays by their names, without ``.npy``.

    Raises:
        OSError: It is not there, or cannot be read.
        ArrayFileError: It is no such file, or one of its arrays is damaged.
    """
    with open_file(path) as file:
        return _members(file, os.fstat(file.fileno()).st_size)


def arrays_in(content: bytes) -> dict[str, np.ndarray]:
    """Return all arrays of a ``.npz`` file that is in memory.

    Args:
        content: The bytes of the whole file.

    Returns:
        The arrays by their names, without ``.npy``.

    Raises:
        ArrayFileError: It is no such file, or one of its arrays is damaged.
    """
    return _members(io.BytesIO(content), len(content))


def _members(file: BinaryIO, length: int) -> dict[str, np.ndarray]:
    try:
        return _unpacked(file, length)
    except ArrayFileError:
        raise
    except Exception as error:  # zipfile has errors of every kind for a file that is broken
        if isinstance(error, OSError) and error.errno is not None:  # the disk's
            raise
        raise ArrayFileError(str(error) or type(error).__name__) from error


def _unpacked(file: BinaryIO, length: int) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        found = [about for about in archive.infolist() if about.filename.endswith(_ENDING)]
        size = sum(about.file_size for about in found)  # zipfile reads no more than that
        if size > max(_ALWAYS, _RATIO * length):
            raise ArrayFileError(
                f"its arrays expand to {size:,} bytes, more than {_RATIO} times its size: write it"
                " with numpy.savez, which compresses nothing"
            )
        return {a.filename.removesuffix(_ENDING): _array(archive.read(a)) for a in found}


def _array(content: bytes) -> np.ndarray:
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
        rest = len(content) - file.tell()
        if dtype.hasobject:
            raise ArrayFileError("it holds Python objects, which are not read")
        # The array is made before it is filled: a false shape would take all memory.
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > rest:
            raise ArrayFileError(f"its header says {quoted(shape)} of {dtype}, and it ends before")
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)
    except ArrayFileError:
        raise
    except Exception as error:  # a header is a text of Python's, with errors of every kind
        raise ArrayFileError(str(error) or type(error).__name__) from error
