"""The videos of a data set in numbers, found out once and kept in a file.

Clips are computed from these numbers (``lit_ssl.video.clips``), so other clips need no other
index.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lit_ssl.arrays import read_arrays
from lit_ssl.errors import InputError, InputFileNotFoundError, listed
from lit_ssl.files import write_file
from lit_ssl.video.probe_many import probe_videos

__all__ = ["ClipIndex", "build_clip_index"]

_VERSION = 1  # of what is found out; another one builds every index again
_COLUMNS = {"frames": np.int64, "fps": np.float64, "width": np.int64, "height": np.int64}


@dataclass(frozen=True)
class ClipIndex:
    """Videos in numbers.

    Attributes:
        paths: Files, relative to ``root``, with ``/``.
        frames: How many frames each has, int64 ``[N]``; 0: the file cannot be read.
        fps: Frames per second, float64 ``[N]``.
        width: Pixels, upright, int64 ``[N]``.
        height: Pixels, upright, int64 ``[N]``.
        root: Folder of the files.
    """

    paths: tuple[str, ...]
    frames: np.ndarray
    fps: np.ndarray
    width: np.ndarray
    height: np.ndarray
    root: Path

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, rows: np.ndarray) -> ClipIndex:
        """Return the index of some of the videos.

        Args:
            rows: int64 ``[M]``, in any order, or bool ``[N]``.
        """
        rows = np.arange(len(self))[np.asarray(rows)]
        return ClipIndex(
            paths=tuple(self.paths[row] for row in rows),
            root=self.root,
            **{name: getattr(self, name)[rows] for name in _COLUMNS},
        )


def build_clip_index(
    root: Path,
    paths: Sequence[str],
    cache_dir: Path | None = None,
    num_workers: int | None = None,
) -> ClipIndex:
    """Return the index of videos, from its file where that was made for just these files.

    Packets are counted, and the first frame is decoded. Warns once where files cannot be read; with
    a ``cache_dir`` a list of them is written there. The file of the index is known by names, sizes
    and times of the videos, so that it is made anew when one of them changes. Nothing is kept where
    a file cannot be opened at all (no permission, a disk that fails): that may be otherwise the
    next time.

    Args:
        root: Folder of the videos.
        paths: Files relative to it, with ``/``.
        cache_dir: Folder for the index; made if needed. None: nothing is kept.
        num_workers: Processes; None: as many as there are cores.

    Raises:
        InputFileNotFoundError: A file is not there.
        InputError: The same file is listed twice, or the index cannot be written.
        InputRuntimeError: A process that looks at files was ended from outside.
        InputImportError: PyAV is not installed.
    """
    root = Path(root)
    paths = tuple(paths)
    if len(set(paths)) < len(paths):
        twice = [path for path, count in Counter(paths).items() if count > 1]
        raise InputError(f"Videos are listed twice: {listed(twice)}")
    key = _key(root, paths)
    file = None if cache_dir is None else Path(cache_dir) / f"clip_index_{key}.npz"
    index = None if file is None else _read(file, root, paths)
    if index is None:
        answers = probe_videos([root / path for path in paths], num_workers)
        index = ClipIndex(
            paths=paths,
            root=root,
            **{
                name: np.array([getattr(facts, name) for facts, _ in answers], dtype)
                for name, dtype in _COLUMNS.items()
            },
        )
        if file is not None and _is_final(index):
            _write(file, index, [why for _, why in answers])
    _warn_of_unreadable(index, file)
    return index


def _key(root: Path, paths: Sequence[str]) -> str:
    """Hash of what the index hangs on."""

    def stat(path: str) -> tuple[int, int] | None:
        try:
            found = os.stat(root / path)
        except OSError:
            return None
        return found.st_size, found.st_mtime_ns

    # Threads, since on network disks each of these waits.
    with ThreadPoolExecutor(16) as pool:
        stats = list(pool.map(stat, paths, chunksize=256))
    missing = [path for path, found in zip(paths, stats, strict=True) if found is None]
    if missing:
        raise InputFileNotFoundError(
            f"{len(missing)} of {len(paths)} videos are not in {root}: {listed(missing, 3)}"
        )
    content = json.dumps([_VERSION, list(zip(paths, stats, strict=True))])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _is_final(index: ClipIndex) -> bool:
    """Whether what is unreadable is so by its content, and not by its place."""
    for row in np.flatnonzero(index.frames == 0):
        path = index.root / index.paths[row]
        if path.exists() and not path.is_file():  # a pipe would be waited for
            continue
        try:
            with path.open("rb") as file:
                file.read(1)
        except OSError:
            return False
    return True


def _unreadable_list(file: Path) -> Path:
    return file.with_name(f"{file.stem}_unreadable.txt")


def _write(file: Path, index: ClipIndex, reasons: Sequence[str]) -> None:
    columns = {name: getattr(index, name) for name in _COLUMNS}
    lines = [f"{path}\t{why}\n" for path, why in zip(index.paths, reasons, strict=True) if why]
    listing = "".join(lines).encode(errors="surrogateescape")  # names need not be UTF-8
    names = np.frombuffer(_names(index.paths), np.uint8)
    try:
        if lines:
            write_file(_unreadable_list(file), lambda out: out.write(listing), binary=True)
        write_file(file, lambda out: np.savez_compressed(out, names=names, **columns), binary=True)
    except OSError as error:
        raise InputError(
            f"the index of the videos in {index.root} cannot be written to {file}"
            f" ({error.strerror or error}): set index_dir to a folder that can be written"
        ) from error


def _names(paths: Sequence[str]) -> bytes:
    return json.dumps(list(paths)).encode()


def _read(file: Path, root: Path, paths: tuple[str, ...]) -> ClipIndex | None:
    """The index of a file; None where there is none, and with a warning where it is damaged."""
    if not file.exists():
        return None
    try:
        content = read_arrays(file)
        names, columns = content["names"].tobytes(), {n: content[n] for n in _COLUMNS}
    except (OSError, ValueError, KeyError) as error:
        why = str(error) or type(error).__name__
    else:
        fits = (
            columns[name].dtype == dtype and columns[name].shape == (len(paths),)
            for name, dtype in _COLUMNS.items()
        )
        if names == _names(paths) and all(fits):
            return ClipIndex(paths=paths, root=root, **columns)
        why = "it is not of these videos"
    warnings.warn(f"{file} is damaged and is made again: {why}", stacklevel=3)
    return None


def _warn_of_unreadable(index: ClipIndex, file: Path | None) -> None:
    rows = np.flatnonzero(index.frames == 0)
    if not len(rows):
        return
    if file is None or not _unreadable_list(file).exists():
        where = listed([index.paths[row] for row in rows], 3)
    else:
        where = f"{_unreadable_list(file)} lists them with the reasons"
    warnings.warn(
        f"{len(rows)} of {len(index)} videos in {index.root} cannot be read: {where}", stacklevel=3
    )
