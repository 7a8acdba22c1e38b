"""Files that are never half-written, and what stands where a file should be."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from gzip import BadGzipFile
from lzma import LZMAError
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from lit_ssl.cells import plain_cell
from lit_ssl.errors import InputError, InputFileNotFoundError, listed
from lit_ssl.opening import open_file, open_text, reading, text_encoding, writing
from lit_ssl.parts import replacing

__all__ = [
    "describe_folder",
    "layout_error",
    "read_bytes",
    "read_text",
    "text_lines",
    "write_csv",
    "write_file",
    "write_json",
]

_SHOWN = 6
_PIECE = 1 << 20
_SMALL = 1 << 26  # bytes that any archive may hold
_RATIO = 200  # lists of names shrink to a third or a thirtieth
_HALF = re.compile("[\ud800-\udfff]")  # of a character, as names that are no UTF-8 have


def read_bytes(path: str | Path) -> bytes:
    """Read a file.

    Args:
        path: The file.

    Raises:
        InputError: It is not there, or cannot be read.
    """
    with reading(path), open_file(path) as file:
        return file.read()


def read_text(path: str | Path, opener: Callable[[Any], Any] | None = None) -> str:
    """Read a text file that a person may have written anywhere: UTF-8, or UTF-16 with its mark.

    Args:
        path: The file.
        opener: Makes a stream of the text of the opened file, as ``gzip.open`` does.

    Raises:
        InputError: It is not there, or is no such text, or no such archive.
    """
    try:
        with reading(path), open_file(path) as file:
            content = file.read() if opener is None else _expanded(file, path, opener)
        text = content.decode(text_encoding(content[:4]))
    except (UnicodeDecodeError, EOFError, zlib.error, LZMAError, BadGzipFile) as error:
        raise _no_text(path, str(error)) from error
    if "\0" in text:
        raise _no_text(path, "it holds zero bytes")
    return text


def _expanded(file: BinaryIO, path: str | Path, opener: Callable[[Any], Any]) -> bytes:
    most = max(_SMALL, _RATIO * os.fstat(file.fileno()).st_size)
    content = bytearray()
    try:
        with opener(file) as stream:
            while part := stream.read(_PIECE):
                content += part
                if len(content) > most:
                    raise InputError(
                        f"{path} expands to more than {_RATIO} times its size, as no list does:"
                        " unpack it if you know what is in it"
                    )
    except BadGzipFile as error:  # which is an OSError
        raise _no_text(path, str(error)) from error
    return bytes(content)


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file that are not blank, reading it in pieces.

    Args:
        path: The file, in UTF-8, or in UTF-16 with a byte-order mark. Lines end in LF or CR LF.

    Yields:
        The number of a line in the file, from 1, and the line without its end.

    Raises:
        InputError: It is not there, or is no such text.
    """
    try:
        with reading(path), open_text(path, "\n") as text:
            for number, line in enumerate(text, start=1):
                if "\0" in line:
                    raise _no_text(path, f"line {number} holds zero bytes")
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise _no_text(path, str(error)) from error


def _no_text(path: str | Path, why: str) -> InputError:
    return InputError(f"{path} is no text in UTF-8, or in UTF-16 with a byte-order mark ({why})")


def write_file(path: str | Path, write: Callable[[Any], object], binary: bool = False) -> Path:
    """Write a file beside its place, then put it there: it is never half-written.

    Args:
        path: File to write; its folder is made.
        write: Gets the open file, of text in UTF-8 or of bytes.
        binary: Whether it writes bytes.

    Returns:
        The path.

    Raises:
        OutputError: The disk is full or read-only, or the folder cannot be written.
    """
    path = Path(path)
    with writing(path):
        _replace(path, write, binary)
    return path


def _replace(path: Path, write: Callable[[Any], object], binary: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {}
    if not binary:  # names of files need not be UTF-8: they keep their bytes
        options = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}
    with replacing(path) as part, part.open("wb" if binary else "w", **options) as file:
        write(file)


def write_json(path: Path, content: Any) -> Path:
    """Write plain values as JSON.

    Null stands for NaN and a text for an infinity, which JSON does not know; bytes of names that
    are no UTF-8 are escaped.

    Args:
        path: The file to write; its folder is made where it is missing.
        content: Dictionaries, lists, texts, numbers, booleans and None.

    Returns:
        The path.
    """
    text = json.dumps(_without_nan(content), indent=2, ensure_ascii=False, allow_nan=False)
    text = _HALF.sub(lambda half: f"\\u{ord(half[0]):04x}", text)
    return write_file(path, lambda file: file.write(text + "\n"))


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else f"{value}"
    return value


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows, at least one, as CSV; all have the keys of the first.

    Texts that a spreadsheet would take for formulas are written as ``lit_ssl.cells`` says.

    Args:
        path: The file to write; its folder is made where it is missing.
        rows: One mapping of column names to values for each row.

    Returns:
        The path.
    """

    def write(file: TextIO) -> None:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writerow({name: plain_cell(name) for name in rows[0]})
        for row in rows:
            writer.writerow({name: plain_cell(value) for name, value in row.items()})

    return write_file(path, write)


def describe_folder(folder: Path) -> str:
    """Return what is at a path: its first entries, or those of the nearest existing parent.

    Args:
        folder: The path, of a folder that may not be there.
    """
    if os.path.isdir(folder):
        try:
            with os.scandir(folder) as found:
                entries = sorted(entry.name + "/" * _is_folder(entry) for entry in found)
        except OSError as error:
            return f"{folder} cannot be listed ({error.strerror or error})"
        if not entries:
            return f"{folder} is empty"
        more = f" ({len(entries)} entries)" if len(entries) > _SHOWN else ""
        return f"{folder} holds {listed(entries, _SHOWN)}{more}"
    if os.path.exists(folder):
        return f"{folder} is not a folder"
    parent = next((path for path in folder.absolute().parents if os.path.isdir(path)), Path("/"))
    return f"{folder} does not exist; {describe_folder(parent)}"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that goes round in a circle
        return False


def layout_error(data_set: str, folder: Path, expected: str) -> InputFileNotFoundError:
    """Return the error for a folder that is not laid out as its data set is.

    Args:
        data_set: Name of the data set.
        folder: Folder that was looked at.
        expected: What should be there.
    """
    return InputFileNotFoundError(
        f"{data_set}: expected {expected}. Found: {describe_folder(folder)}. Set root to the"
        " folder that has this layout"
    )
