"""Files opened such that nothing waits for ever, and what the system says of them in one line."""

from __future__ import annotations

import codecs
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from lit_ssl.errors import InputError, InputFileNotFoundError, OutputError

__all__ = ["open_file", "open_text", "reading", "text_encoding", "writing"]


def open_file(path: str | Path) -> BinaryIO:
    """Open a regular file for reading its bytes.

    A pipe or a device, at which a reader could wait for ever, is not opened.

    Args:
        path: The file, or a link to it.

    Raises:
        OSError: It is not there, is no regular file, or may not be read.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        number = os.open(path, flags | getattr(os, "O_CLOEXEC", 0))
    except ValueError as error:  # a zero byte in it, or half of a character
        raise FileNotFoundError(None, "no file can have this name", ascii(path)) from error
    try:
        mode = os.fstat(number).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(None, "it is a folder", str(path))
        if not stat.S_ISREG(mode):
            raise OSError(None, "it is a pipe or a device, and no file", str(path))
        return open(number, "rb")
    except BaseException:
        os.close(number)
        raise


def open_text(path: str | Path, newline: str | None = None) -> TextIO:
    """Open a text file as ``open_file`` does a file.

    Args:
        path: The file, in UTF-8, or in UTF-16 with a byte-order mark.
        newline: As of ``open``.

    Raises:
        OSError: As of ``open_file``.
    """
    file = open_file(path)
    head = file.read(4)
    file.seek(0)
    return io.TextIOWrapper(file, encoding=text_encoding(head), newline=newline)


def text_encoding(head: bytes) -> str:
    """Return the encoding of a text, with or without a byte-order mark, by its first four bytes.

    Args:
        head: The first four bytes of a file, or more.

    Returns:
        ``utf-32``, ``utf-16`` or ``utf-8-sig``, which takes UTF-8 with and without a mark.
    """
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-8-sig"


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Let what the system says about a file that cannot be read be one line.

    Args:
        path: The file.

    Raises:
        InputError: It is not there, or cannot be read.
    """
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputFileNotFoundError(f"there is no file {path}") from error
    except OSError as error:
        raise InputError(
            f"cannot read {path} ({error.strerror or error}): make it readable"
        ) from error


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Let what the system says about a file that cannot be written be one line.

    Args:
        path: The file, or folder.

    Raises:
        OutputError: The disk is full or read-only, the folder is closed, or is a file.
    """
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"cannot write {path} ({error.strerror or error}): make room, or give a folder that"
            " can be written"
        ) from error
