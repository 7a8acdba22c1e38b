"""Clouds of points in memory or on disk, behind one small interface."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lit_ssl.arrays import ArrayFileError, read_array
from lit_ssl.datamodules.reading.images import PackedStrings
from lit_ssl.datamodules.reading.skip_corrupt import ReadableRows
from lit_ssl.errors import InputError
from lit_ssl.files import write_file

__all__ = ["ArrayClouds", "CloudReader", "Clouds", "CorruptPointsError", "FileClouds"]


class CorruptPointsError(InputError, RuntimeError):
    """A file with a shape cannot be read: missing, broken, or no shape at all."""


class Clouds(ABC):
    """Clouds of points with random access."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, row: int) -> np.ndarray:
        """Return one cloud as float32 ``[Q, 3]``, Q >= 1, which may differ from row to row.

        Args:
            row: number of the cloud.

        Raises:
            CorruptPointsError: The cloud cannot be read.
        """

    @abstractmethod
    def name(self, row: int) -> str | None:
        """Return the path of a cloud below the folder of the data set, None if it has none.

        Args:
            row: number of the cloud.
        """

    @abstractmethod
    def select(self, rows: np.ndarray) -> Clouds:
        """Return the clouds at ``rows`` (int64 ``[N]``), in that order.

        Args:
            rows: their numbers.
        """


class ArrayClouds(Clouds):
    """Clouds in memory, one after the other in one array.

    Args:
        points: float32 ``[T, 3]``.
        starts: int64 ``[N + 1]``: cloud ``i`` is ``points[starts[i]:starts[i + 1]]``.
        folder: Where they come from, for messages; None: nowhere.

    Raises:
        InputError: The points have another form or are not finite, or a cloud has none.
    """

    def __init__(self, points: np.ndarray, starts: np.ndarray, folder: str | None = None) -> None:
        sizes = np.diff(starts)
        if points.dtype != np.float32 or points.ndim != 2 or points.shape[1] != 3:
            raise InputError(
                f"points in memory must be float32 [T, 3], got {points.dtype} {list(points.shape)}"
            )
        if starts[0] != 0 or starts[-1] != len(points) or (sizes < 1).any():
            raise InputError("each cloud must have a point, and all points must be in one")
        if not np.isfinite(points).all():
            raise InputError("points must be finite numbers")
        self.points, self.starts, self.folder = points, starts, folder

    def __len__(self) -> int:
        return len(self.starts) - 1

    def read(self, row: int) -> np.ndarray:
        """Return one cloud as float32 ``[Q, 3]``."""
        return self.points[self.starts[row] : self.starts[row + 1]]

    def name(self, row: int) -> None:
        """Return None: clouds in memory have no file names."""

    def select(self, rows: np.ndarray) -> ArrayClouds:
        """Return a copy of the clouds at ``rows`` (int64 ``[N]``), in that order."""
        parts = [self.read(int(row)) for row in rows]
        points = np.concatenate([np.empty((0, 3), dtype=np.float32), *parts])
        starts = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        return ArrayClouds(points, starts, self.folder)


class FileClouds(Clouds):
    """Clouds in files below one folder, read when they are asked for.

    Args:
        folder: Folder of the data set.
        names: Paths below it, with ``/``.
        read_file: Makes finite points ``[Q, 3]``, Q >= 1, of (path, name), or raises
            ``CorruptPointsError``, which names the path.
        cache: Folder where what it made is kept as arrays, and read from as long as they are not
            older than their file; None keeps nothing.
    """

    def __init__(
        self,
        folder: str | Path,
        names: Iterable[str] | PackedStrings,
        read_file: Callable[[Path, str], np.ndarray],
        cache: Path | None = None,
    ) -> None:
        self.folder = str(folder)
        self.names = names if isinstance(names, PackedStrings) else PackedStrings(names)
        self.read_file = read_file
        self.cache = cache

    def __len__(self) -> int:
        return len(self.names)

    def read(self, row: int) -> np.ndarray:
        """Return one cloud as float32 ``[Q, 3]``."""
        name = self.names[row]
        kept = None if self.cache is None else self.cache / f"{name}.npy"
        points = None if kept is None else _read_kept(kept, Path(self.folder, name))
        if points is None:
            points = self._from_file(name)
            if kept is not None:
                _keep(kept, points)
        return points

    def _from_file(self, name: str) -> np.ndarray:
        try:
            made = self.read_file(Path(self.folder, name), name)
        except CorruptPointsError as error:
            raise CorruptPointsError(
                f"Cannot read the shape {error}. Repair or remove the file, or set on_corrupt: skip"
                " to use the next readable shape in its place"
            ) from error
        with np.errstate(over="ignore"):
            points = np.ascontiguousarray(made, dtype=np.float32)
        if not np.isfinite(points).all():
            raise CorruptPointsError(
                f"Cannot read the shape {Path(self.folder, name)}: it has coordinates beyond"
                " float32. Scale it down, or set on_corrupt: skip to use the next readable shape"
                " in its place"
            )
        return points

    def name(self, row: int) -> str | None:
        """Return the path of a cloud below the folder, with ``/``."""
        return self.names[row]

    def select(self, rows: np.ndarray) -> FileClouds:
        """Return the clouds at ``rows`` (int64 ``[N]``), in that order; no file is read."""
        return FileClouds(self.folder, self.names.select(rows), self.read_file, self.cache)


def _read_kept(kept: Path, file: Path) -> np.ndarray | None:
    """Return the points that were kept of a file; None where there are none, or older ones."""
    try:
        if os.stat(kept).st_mtime_ns < os.stat(file).st_mtime_ns:
            return None
        points = read_array(kept)
    except (OSError, ArrayFileError):
        return None
    fits = points.dtype == np.float32 and points.ndim == 2 and points.shape[1:] == (3,)
    return points if fits and len(points) and np.isfinite(points).all() else None


def _keep(kept: Path, points: np.ndarray) -> None:
    try:
        write_file(kept, lambda file: np.save(file, points, allow_pickle=False), binary=True)
    except OSError as error:
        raise InputError(
            f"cannot write {kept} ({error.strerror or error}): set cache_dir to a folder where"
            " files can be written and that has room for them, or leave it out"
        ) from error


class CloudReader:
    """Reads the clouds of one split, and says which one it has read.

    Args:
        clouds: The clouds.
        skip_corrupt: True puts the next readable cloud of the split in the place of an unreadable
            one, and warns once per cloud; False raises.
    """

    def __init__(self, clouds: Clouds, skip_corrupt: bool = False) -> None:
        self.clouds = clouds
        self.readable = ReadableRows(len(clouds), "shapes", CorruptPointsError, skip_corrupt)

    def __len__(self) -> int:
        return len(self.clouds)

    @property
    def folder(self) -> str | None:
        """Folder of the clouds; None where they come from none."""
        return getattr(self.clouds, "folder", None)

    @property
    def num_corrupt(self) -> int:
        """Number of clouds found unreadable so far, by this process and its workers."""
        return int(self.readable.corrupt.sum())

    def name(self, row: int) -> str | None:
        """Return the path of a cloud below the folder of the data set, None if it has none.

        Args:
            row: number of the cloud.
        """
        return self.clouds.name(row)

    def select(self, rows: np.ndarray) -> CloudReader:
        """Return a reader of the clouds at ``rows`` (int64 ``[N]``), in that order.

        Args:
            rows: their numbers.
        """
        return CloudReader(self.clouds.select(rows), self.readable.skip)

    def read(self, index: int) -> tuple[Tensor, int]:
        """Return one cloud and its row, which is another than asked for where it is unreadable.

        Args:
            index: Row of the cloud in the split.

        Returns:
            float32 ``[Q, 3]`` and the row.

        Raises:
            CorruptPointsError: The cloud (or, when skipping, every cloud) is unreadable.
        """
        points, row = self.readable.read(index, self.clouds.read, self.name)
        return torch.from_numpy(points), row

    def read_batch(self, rows: np.ndarray) -> None:
        """Return None: clouds differ in size, and are read one by one.

        Args:
            rows: not used.
        """
