"""Folders that take their place only when they are whole."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lit_ssl.errors import InputError
from lit_ssl.files import describe_folder
from lit_ssl.opening import writing

__all__ = ["check_new_file", "check_new_folder", "new_folder"]


def check_new_folder(out: Path) -> None:
    """Refuse a place where something is; an empty folder may be there.

    Args:
        out: the place.

    Raises:
        InputError: if something is there, or nothing can be written there.
    """
    if not out.name:
        raise InputError(f"{out} is the folder you are in: give the name of a new one")
    if out.is_symlink():
        raise InputError(f"{out} is a link: give another name, or remove it first")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        what = describe_folder(out) if out.is_dir() else f"{out} exists"
        raise InputError(f"{what}: give another name, or remove it first")
    _check_above(out)


def check_new_file(out: Path) -> None:
    """Refuse a place where something is, be it a link to nothing, or where no file can be.

    Args:
        out: the place.

    Raises:
        InputError: if something is there, or nothing can be written there.
    """
    if os.path.lexists(out):
        raise InputError(f"{out} exists: give another name, or remove it first")
    _check_above(out)


def _check_above(out: Path) -> None:
    there = next(place for place in out.absolute().parents if os.path.lexists(place))
    if not there.is_dir():
        raise InputError(f"{out} cannot be written: {there} is no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{out} cannot be written: {there} is closed or read-only")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill, which is put in its place at the end; without it where that fails.

    Args:
        out: the place, where nothing or an empty folder is.

    Raises:
        InputError: if something is there, or it cannot be written.
    """
    check_new_folder(out)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
        try:
            yield part
            part.chmod(0o777 & ~_umask())  # mkdtemp lets nobody else read it
            os.replace(part, out)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
