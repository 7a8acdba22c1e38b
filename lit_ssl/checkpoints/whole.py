"""Whole files of weights: how they are written, and how a damaged one is told."""

from __future__ import annotations

import os
import pickle
import stat
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO

import torch

from lit_ssl.opening import open_file
from lit_ssl.parts import replacing

__all__ = ["damage", "save_whole"]

_BLOCK = 1 << 20  # bytes read at a time
_ARCHIVE = b"PK\x03\x04"
_PICKLE = b"\x80\x02"  # how files of torch.save before 1.6 begin
_FOLDER = 0x10  # torch reads nothing of a record with this bit, and takes what is in memory
# What the table of a sharded checkpoint is made of.
_OF_TABLES = ("torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem")
_HELPERS = (
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("collections", "OrderedDict"),
    ("pathlib", "Path"),
    ("pathlib", "PosixPath"),
    ("pathlib", "WindowsPath"),
    ("pathlib._local", "PosixPath"),  # of Python 3.13
)
_FOREIGN = "it was not written by torch.save"

# What is known of files: identity, size and times → why it is damaged.
_known: dict[tuple[int, ...], str | None] = {}


def damage(path: str | Path) -> str | None:
    """Say why a file of weights cannot be trusted.

    Of a file of ``torch.save`` every byte is read and compared with the CRC-32 that its archive
    keeps of each record; nothing in it is run, and nothing is read twice by one process while the
    file stays as it is. One changed bit is always found, any other damage but for one case in 2³².

    Not everything can be verified: files of ``torch.save`` before 1.6 have no checksums; of
    ``.safetensors`` only the header and the size are compared; of a folder (a sharded checkpoint)
    only whether its writing was finished. A file of ``torch.save`` that was written without
    checksums is accepted, with a warning.

    Args:
        path: the file, or folder.

    Returns:
        A sentence that begins with ``it``, without a full stop; None if all of it is as written.

    Raises:
        FileNotFoundError: it is not there.
    """
    path = Path(path)
    about = path.stat()
    try:
        if stat.S_ISDIR(about.st_mode):
            return _of_folder(path)
        if not stat.S_ISREG(about.st_mode):  # a reader could wait for ever
            return "it is a pipe or a device"
        key = (
            about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns
        )  # fmt: skip
        if key not in _known:
            _known[key] = _of_file(path)
        return _known[key]
    except FileNotFoundError:
        raise
    except OSError as error:
        return f"it cannot be read ({error.strerror or error})"


def _of_folder(folder: Path) -> str | None:
    names = os.listdir(folder)
    if not names:
        return "it is an empty folder"
    if any(name.endswith(".distcp") for name in names) and ".metadata" not in names:
        return "its writing was not finished: .metadata, which comes last, is missing"
    return _of_table(folder / ".metadata") if ".metadata" in names else None


class _TableUnpickler(pickle.Unpickler):
    """Reads the table of a sharded checkpoint, which torch itself unpickles with all that is in it.

    Only the classes of tables are built, and Python's other names are refused.
    """

    def find_class(self, module: str, name: str) -> Any:
        """A class of tables."""
        is_type = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if is_type or (module, name) in _HELPERS:
            return super().find_class(module, name)
        if module not in _OF_TABLES or "." in name:
            raise pickle.UnpicklingError(f"{module}.{name}")
        found = super().find_class(module, name)
        is_entry = isinstance(found, type) and (is_dataclass(found) or issubclass(found, Enum))
        if not is_entry or found.__module__ not in _OF_TABLES:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return found


def _of_table(path: Path) -> str | None:
    if path.stat().st_size == 0:
        return "its .metadata is empty"
    try:
        with open_file(path) as file:
            _TableUnpickler(file).load()
    except OSError:
        raise
    except pickle.UnpicklingError as error:
        return f"its .metadata is damaged, or names code ({error!s:.80}), and none is run"
    except Exception as error:  # a damaged pickle leads to errors of many kinds
        return f"its .metadata is damaged ({type(error).__name__})"
    return None


def _of_file(path: Path) -> str | None:
    if path.suffix == ".safetensors":
        return _of_safetensors(path)
    with path.open("rb") as file:
        head = file.read(len(_ARCHIVE))
        try:
            if zipfile.is_zipfile(file):
                return _of_archive(file, path)
        except zipfile.BadZipFile as error:
            return f"it is damaged: {error}"
    if not head:
        return "it is empty"
    if head == _ARCHIVE:
        return "it was cut short"
    return None if head.startswith(_PICKLE) else _FOREIGN


def _of_safetensors(path: Path) -> str | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt"):
            return None
    except SafetensorError as error:
        return f"it is damaged or no file of safetensors ({error})"


def _of_archive(file: BinaryIO, path: Path) -> str | None:
    try:
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
            if any(record.compress_type != zipfile.ZIP_STORED for record in records):
                return f"{_FOREIGN}, which compresses nothing"
            if not any(record.CRC for record in records):
                warnings.warn(
                    f"{path} was written without checksums: whether it is whole is not known",
                    stacklevel=2,
                )
                return None
            # zipfile skips what stands before an archive, but torch counts from the beginning
            if min(record.header_offset for record in records) != 0:
                return "it is damaged: something else stands before its records"
            if len({record.filename for record in records}) < len(records):
                return "it is damaged: it has two records of one name"
            for record in records:
                if record.file_size != record.compress_size:
                    return f"it is damaged: {record.filename} has two sizes"
                if record.external_attr & _FOLDER:
                    return f"it is damaged: {record.filename} is called a folder"
                with archive.open(record) as content:
                    while content.read(_BLOCK):
                        pass
    except OSError:
        raise
    except Exception as error:  # a damaged table of records leads to errors of many kinds
        return f"it is damaged: {str(error) or type(error).__name__}"
    return None


def save_whole(content: Any, path: str | Path) -> None:
    """Write what ``torch.save`` writes, whole or not at all.

    The file is written beside its place in one pass, without a copy in memory, and put there when
    it is on the disk. It has checksums, for ``damage``.

    Args:
        content: what ``torch.save`` takes.
        path: file to write; its folder is made.

    Raises:
        OSError: it cannot be written; what was there is as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part, part.open("wb") as file, _with_checksums():
        target: Any = _Target(file)
        torch.save(content, target)
        if target.error is not None:
            raise target.error


class _Target:
    """A file that keeps the first error of the system, for which torch has another of its own."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        if self.error is None:
            try:
                self._file.write(content)
            except OSError as error:
                self.error = error
        return len(content)

    def flush(self) -> None:
        """Nothing to do: the file is closed before it is put in its place."""


@contextmanager
def _with_checksums() -> Iterator[None]:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(True)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)
