"""Files that take their place only when they are whole, and what killed writers leave of them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["remove_leftovers", "replacing"]

_DAY = 86_400  # seconds
_NAME = re.compile(r"\..+\.\d+-(?P<kernel>[0-9a-f]{8})[0-9a-f]{8}\.part")
_OLD_NAME = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.part")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Put a file in its place once it is written, and on the disk.

    The name to write to lies beside the place, so that nothing is ever copied from one disk to
    another. While it is written it is locked, by which ``remove_leftovers`` knows that its
    writer is alive. If the writing fails, what is at the place stays as it was.

    Args:
        path: the place; its folder exists.

    Yields:
        A file to write, empty, which must be closed at the end. Its name is
        ``.NAME.PID-HEX.part``.

    Raises:
        OSError: it cannot be written.
    """
    part, number = _held(path)
    try:
        yield part
        os.fsync(number)
        os.replace(part, path)
        _sync_folder(path.parent)
    finally:
        os.close(number)
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _held(path: Path) -> tuple[Path, int]:
    """Make an unfinished file and lock it; the kernel lets go of it when the process dies."""
    while True:
        # A process number alone is not enough: in containers on several machines all may have one.
        name = f".{path.name}.{os.getpid()}-{_kernel()}{secrets.token_hex(4)}.part"
        part = path.with_name(name)
        number = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(number, fcntl.LOCK_EX)
        if os.fstat(number).st_nlink:
            return part, number
        os.close(number)  # somebody took it for a leftover before it was locked


def _sync_folder(folder: Path) -> None:
    """Make a new name last, where the file system can be asked to."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _kernel() -> str:
    """Eight digits for the running kernel, which all containers on a machine share."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:  # not on every system
        boot = str(uuid.getnode())
    return hashlib.sha256(boot.encode()).hexdigest()[:8]


def remove_leftovers(folder: Path) -> list[Path]:
    """Remove the unfinished files of dead writers from a folder.

    A file that its writer has locked stays. Locks tell for sure where the writer ran under this
    kernel; a file of another machine, or of before a restart, is removed when nobody has written
    to it for a day.

    Args:
        folder: where to look; folders below are left alone.

    Returns:
        The files that were removed; none where the folder cannot be read or changed.
    """
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    removed = []
    for name in names:
        found = _NAME.fullmatch(name)
        is_of_here = found is not None and found["kernel"] == _kernel()
        known = found is not None or _OLD_NAME.fullmatch(name) is not None
        if known and _remove_if_dead(folder / name, is_of_here):
            removed.append(folder / name)
    return removed


def _remove_if_dead(part: Path, is_of_here: bool) -> bool:
    try:
        number = os.open(part, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # it is being written
            return False
        except OSError:  # no locks here
            is_of_here = False
        if not is_of_here and time.time() - os.fstat(number).st_mtime < _DAY:
            return False
        part.unlink()
        return True
    except OSError:
        return False
    finally:
        os.close(number)
