"""Folders of runs: each belongs to one living run, which holds a lock in it."""

from __future__ import annotations

import errno
import json
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lit_ssl.errors import InputError
from lit_ssl.files import read_text
from lit_ssl.json_text import parse_json

__all__ = [
    "NAME",
    "FolderLock",
    "holder",
    "in_the_way",
    "last_run_in",
    "new_folder",
    "new_run",
    "new_version",
]

NAME = ".lit_ssl_run"  # of the file that is locked, and tells whose folder it is
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_open: set[int] = set()  # files of this process that are locked


def _close_in_child() -> None:
    """A forked process shares the locks, and would keep them when its parent has been killed."""
    for number in _open:
        with suppress(OSError):
            os.close(number)
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


def new_run() -> str:
    """A name for a run that no other has."""
    return uuid.uuid4().hex


def new_version(parent: Path, first: int = 0) -> int:
    """Make a folder ``version_N`` that nobody else has made, however many try at once.

    Args:
        parent: Folder of all runs; it is made.
        first: The smallest N to try.

    Returns:
        N.

    Raises:
        InputError: If no folder can be made there.
    """
    names = (f"version_{number}" for number in count(first))
    return int(new_folder(parent, names).name.removeprefix("version_"))


def new_folder(parent: Path, names: Iterator[str]) -> Path:
    """Make a folder that nobody else has made, see ``new_version``.

    Args:
        parent: Folder of all runs; it is made.
        names: Names to try, without end.

    Raises:
        InputError: If no folder can be made there.
    """
    name = next(names)
    while True:
        try:
            parent.mkdir(parents=True, exist_ok=True)
            (parent / name).mkdir()
            return parent / name
        except FileNotFoundError:  # a run that had nothing to leave has just removed the parent
            continue
        except OSError as error:
            if (what := in_the_way(parent)) is not None:
                raise InputError(
                    f"{what} is no folder, and the run needs one there: choose another place "
                    "(--trainer.default_root_dir, the logger's save_dir)"
                ) from error
            if not isinstance(error, FileExistsError):
                raise InputError(
                    f"{parent} cannot be written ({error.strerror}); choose another folder for "
                    "the runs (--trainer.default_root_dir, the logger's save_dir)"
                ) from error
            name = next(names)


def in_the_way(folder: Path) -> Path | None:
    """What stands in the place of a folder, or of one above it: a file, or a link to nothing.

    Args:
        folder: It need not exist.

    Returns:
        Its path; None if the folder is there, or nothing is.
    """
    there = next((path for path in (folder, *folder.parents) if os.path.lexists(path)), folder)
    is_folder = there.is_dir() or not os.path.lexists(there)
    return None if is_folder else there


def last_run_in(folder: Path) -> dict[str, Any]:
    """What the last run of a folder has written down there.

    Args:
        folder: of a run.

    Returns:
        ``run``, its name; ``process`` and ``host``; ``finished``, the step at which it ended, or
        None. Empty if there is nothing to read.
    """
    try:
        found = parse_json(read_text(folder / NAME))
    except ValueError:  # none, or of a process that was killed in the middle
        return {}
    if not isinstance(found, dict):
        return {}
    if not isinstance(found.get("finished"), int):
        found["finished"] = None
    return found


def holder(folder: Path) -> str | None:
    """Who holds a folder, in words; None if nobody does, or the file system has no locks.

    Args:
        folder: of a run.
    """
    try:
        file = os.open(folder / NAME, os.O_RDONLY | _NO_LINK | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return None
    try:
        _flock(file, shared=True)
    except BlockingIOError:
        there = last_run_in(folder)
        return f"process {there.get('process', '?')} on {there.get('host', '?')}"
    except OSError:
        return None
    finally:
        os.close(file)
    return None


class FolderLock:
    """The right of one run to write into a folder, until it gives it back or its process ends.

    The kernel gives it back, too, when the process is killed. Where the file system has no locks
    (some network file systems), a line says that nothing keeps other runs away.

    Args:
        folder: The folder; it is made.
        run: Name of the run.

    Raises:
        InputError: If a run that is still going holds it, or nothing can be written there.
    """

    def __init__(self, folder: Path, run: str) -> None:
        self.folder, self.run = folder, run
        try:
            self._file = self._lock()
        except OSError as error:
            raise InputError(
                f"{folder} cannot be written ({error.strerror}); choose another folder for the run"
            ) from error
        _open.add(self._file)
        self.before = last_run_in(folder)  # what the run before has noted
        self.note()

    def _lock(self) -> int:
        self.folder.mkdir(parents=True, exist_ok=True)
        while True:
            # A link could lead to a file of somebody else, and what is noted would replace it.
            file = os.open(self.folder / NAME, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o666)
            try:
                _flock(file)
            except BlockingIOError as error:
                os.close(file)
                raise InputError(self._who_holds_it()) from error
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    os.close(file)
                    raise
                rank_zero_warn(
                    f"The file system of {self.folder} has no locks ({error.strerror}): see to it "
                    "that no other run writes there."
                )
            if _is_there(file, self.folder / NAME):
                return file
            os.close(file)  # another process has removed it meanwhile

    def _who_holds_it(self) -> str:
        who = holder(self.folder) or "it has just ended"
        return (
            f"{self.folder} is in use by a run that is still going ({who}): wait for its end, or "
            "choose another folder for this one (--trainer.default_root_dir, the logger's version, "
            "a ModelCheckpoint's dirpath)"
        )

    def note(self, finished: int | None = None) -> None:
        """Write down whose folder it is.

        Args:
            finished: Step at which the run has come to its end.
        """
        told = {
            "run": self.run,
            "process": os.getpid(),
            "host": socket.gethostname(),
            "finished": finished,
        }
        text = json.dumps(told).encode()
        with suppress(OSError):  # a full disk: the lock holds all the same
            os.pwrite(self._file, text, 0)
            os.ftruncate(self._file, len(text))

    def release(self, keep_note: bool = False) -> None:
        """Give the folder back; an empty one is removed.

        Args:
            keep_note: Leave written down whose folder it is.
        """
        _open.discard(self._file)
        with suppress(OSError):
            if not keep_note or os.listdir(self.folder) == [NAME]:
                os.unlink(self.folder / NAME)
                self.folder.rmdir()
        os.close(self._file)


def _flock(file: int, shared: bool = False) -> None:
    try:
        import fcntl
    except ImportError as error:  # Windows
        raise OSError(errno.ENOSYS, "none on this system") from error
    fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


def _is_there(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False
