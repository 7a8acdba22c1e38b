"""Files of a store kept on this machine, in a folder of bounded size that runs may share."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lit_ssl.errors import InputError, InputRuntimeError, OutputError
from lit_ssl.opening import writing
from lit_ssl.parts import remove_leftovers, replacing
from lit_ssl.stores.places import Place

__all__ = ["FileCache", "usual_folder"]

_KEPT = ".kept"
_USED = 60.0  # seconds after which a file that is read counts as used anew
_WAIT = 0.1
_SILENCE = 600.0  # seconds without a byte after which nobody writes a file


def usual_folder() -> Path:
    """Return the folder for copies where none is named."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "lit_ssl" / "shards"


class FileCache:
    """A folder with copies of files, named by their checksums, the longest unused of which go.

    A file is fetched by one process, whatever number wants it, and takes its place when it is whole
    and its checksum is right. Any number of runs may use the folder; one that wants a file that has
    gone fetches it again. The limit counts what all of them have fetched to it, and no other files.

    Args:
        folder: The folder, on a disk of this machine; it is made. None: ``usual_folder()``.
        limit: Bytes that all its files may have.
    """

    def __init__(self, folder: str | Path | None, limit: int) -> None:
        self.folder = usual_folder() if folder is None else Path(folder).expanduser()
        self.limit = limit

    def has(self, sha256: str) -> bool:
        """Whether a file is there.

        Args:
            sha256: Its checksum, in hexadecimal.
        """
        return self._path(sha256).is_file()

    def path(self, place: Place, name: str, size: int, sha256: str) -> Path:
        """Return the path of a file, which is fetched where it is not there.

        The path may be gone when it is opened, so ``read`` is what most should use.

        Args:
            place: Where it comes from.
            name: Its path there.
            size: Its bytes.
            sha256: Its checksum, in hexadecimal.

        Raises:
            InputError: It is not there or damaged, or has no room.
            OutputError: The folder cannot be written.
        """
        path = self._path(sha256)
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            while not path.is_file():
                with self._locked(f"{sha256}.lock") as is_mine:
                    if is_mine and not path.is_file():
                        self._fetch(place, name, size, sha256)
        return path

    def read(
        self, place: Place, name: str, size: int, sha256: str, offset: int, count: int
    ) -> bytes:
        """Return ``count`` bytes of a file, from ``offset`` on; the rest is as for ``path``.

        Args:
            place: Where it comes from.
            name: Its path there.
            size: Its bytes.
            sha256: Its checksum, in hexadecimal.
            offset: Where to begin, in bytes.
            count: How many to read; fewer come where the file ends.
        """
        while True:
            try:
                with open(self._path(sha256), "rb", buffering=0) as file:
                    found = os.fstat(file.fileno())
                    if time.time() - found.st_mtime > _USED:
                        with suppress(OSError):
                            os.utime(self._path(sha256))
                    if found.st_size == size:
                        return os.pread(file.fileno(), count, offset)
                # cut since it was fetched, by a disk that failed
                self._path(sha256).unlink(missing_ok=True)
            except FileNotFoundError:  # not there yet, or it had to make room
                pass
            self.path(place, name, size, sha256)

    def _path(self, sha256: str) -> Path:
        return self.folder / f"{sha256}{_KEPT}"

    def _fetch(self, place: Place, name: str, size: int, sha256: str) -> None:
        with replacing(self._path(sha256)) as part:
            self._reserve(part, place.name_of(name), size)
            with open(part, "r+b") as file:
                place.fetch(name, file)
                file.flush()
                found = os.fstat(file.fileno()).st_size
            if found != size:
                raise InputRuntimeError(
                    f"{place.name_of(name)} has {found:,} bytes, and should have {size:,}: copy it"
                    " there again"
                )
            if _digest(part) != sha256:
                raise InputRuntimeError(
                    f"{place.name_of(name)} is damaged (its checksum is another than the manifest"
                    " says): copy it there again"
                )

    def _reserve(self, part: Path, name: str, size: int) -> None:
        """Give a new file its size, when there is room for it."""
        if size > self.limit:
            raise InputError(
                f"{name} has {size:,} bytes, and cache_size is {self.limit:,}: raise it"
            )
        while True:
            with self._locked("room.lock") as is_mine:
                if is_mine and self._make_room(size):
                    os.truncate(part, size)
                    return
            time.sleep(_WAIT)  # until others have fetched what they are fetching

    def _make_room(self, size: int) -> bool:
        """Remove the longest unused files until one more of this size fits.

        Returns:
            Whether it does; else others are fetching what takes the room.

        Raises:
            OutputError: Files that cannot be removed take it.
        """
        remove_leftovers(self.folder)
        kept, taken, is_busy = [], 0, False
        for entry in os.scandir(self.folder):
            if _KEPT not in entry.name:  # a lock, or nothing of a cache
                continue
            with suppress(OSError):
                found = entry.stat()
                taken += found.st_size
                if entry.name.endswith(_KEPT):
                    kept.append((found.st_mtime, found.st_size, entry.path))
                elif found.st_size:  # those that wait for room have none yet
                    is_busy |= time.time() - found.st_mtime < _SILENCE
        for _, bytes_, path in sorted(kept):
            if taken + size <= self.limit:
                break
            try:
                os.unlink(path)
            except FileNotFoundError:  # already gone
                pass
            except OSError:  # of another user
                continue
            taken -= bytes_
        if taken + size > self.limit and not is_busy:
            raise OutputError(
                f"there is no room in {self.folder} for a shard of {size:,} bytes: {taken:,} of"
                f" {self.limit:,} (cache_size) are files that this user cannot remove, or that"
                " nobody goes on fetching: remove them, or give another cache_dir"
            )
        return taken + size <= self.limit

    @contextmanager
    def _locked(self, name: str) -> Iterator[bool]:
        """Hold a lock that the kernel lets go when its process dies.

        Yields:
            Whether the lock is the one that others will take: its file is still there.
        """
        path = self.folder / name
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(number, fcntl.LOCK_EX)
            yield os.fstat(number).st_nlink > 0
        finally:
            if name != "room.lock":
                with suppress(OSError):
                    path.unlink()
            os.close(number)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
