"""Which videos there are, by name, and how they are read: files below a folder, or a cache."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from lightning.pytorch.utilities.rank_zero import (
    rank_zero_info,
    rank_zero_only,
    rank_zero_warn,
)

from lit_ssl.datamodules.reading.walking import (
    INDEX_FOLDER,
    FileKind,
    LeftOut,
    find_files,
    visible_folders,
)
from lit_ssl.datamodules.video.sources import CachedClips, Clips, FileClips
from lit_ssl.errors import InputError, listed
from lit_ssl.files import describe_folder
from lit_ssl.transforms.video import Size, covering_side
from lit_ssl.video.suffixes import VIDEO_SUFFIXES

__all__ = ["CacheStore", "FolderStore", "Reader", "VideoStore"]

Reader = Literal["auto", "pyav", "torchcodec"]

_VIDEOS = FileKind("videos", lambda: VIDEO_SUFFIXES, "files without the ending of a video")


class VideoStore(ABC):
    """Videos by their paths below the folder of a data set, with ``/``."""

    @abstractmethod
    def names(self, folder: str = "") -> list[str]:
        """Return the sorted names of the videos in a folder, at any depth; [] without it.

        Args:
            folder: Path below the folder of the data set.
        """

    @abstractmethod
    def folders(self, folder: str = "") -> list[str]:
        """Return the sorted names of the folders in a folder, be they empty.

        Args:
            folder: its path below the folder of all videos, with ``/``; "" is that one.
        """

    @abstractmethod
    def clips(self, names: Sequence[str], base: str = "") -> Clips:
        """Return some of the videos, in the order of their names.

        Args:
            names: Paths below the folder of the data set.
            base: Folder that all are in, below which rows are named.
        """

    @abstractmethod
    def found(self) -> str:
        """Say what there is, for messages about what is missing."""

    @abstractmethod
    def warn_left_out(self) -> None:
        """Say once what was found beside videos, if anything was."""


class FolderStore(VideoStore):
    """Video files below a folder.

    Args:
        root: The folder.
        reader: Which package reads them.
        index_dir: Where the lengths and sizes of the files are kept, which are found out once.
            None: the folder ``.lit_ssl_index`` in ``root``, if it can be written.
        cover: Height and width that frames have to cover.
    """

    def __init__(self, root: Path, reader: Reader, index_dir: Path | None, cover: Size) -> None:
        self.root = root
        self.reader = reader
        self.index_dir = index_dir
        self.cover = cover
        self._left_out = LeftOut(root, _VIDEOS)

    def names(self, folder: str = "") -> list[str]:
        """Return the sorted names of the videos in a folder, at any depth."""
        inside = self.root / folder
        if not inside.is_dir():
            return []
        found = find_files(inside, self._left_out)
        return [f"{folder}/{name}" for name in found] if folder else found

    def folders(self, folder: str = "") -> list[str]:
        """Return the sorted names of the folders in a folder, be they empty."""
        return visible_folders(self.root / folder, self._left_out)

    def clips(self, names: Sequence[str], base: str = "") -> Clips:
        """Return some of the videos; how long they are is found out, or known from before."""
        from lit_ssl.video.clip_index import build_clip_index
        from lit_ssl.video.readers import open_reader

        reader = open_reader(self.reader)
        index = build_clip_index(self.root, names, self._kept_in)
        return FileClips(index, reader, self.cover, base)

    @cached_property
    def _kept_in(self) -> Path | None:
        if self.index_dir is not None:
            return self.index_dir
        folder = self.root / INDEX_FOLDER
        if os.access(folder if folder.exists() else self.root, os.W_OK):
            return folder
        rank_zero_info(
            f"{self.root} cannot be written, so that the lengths of its videos are found out in"
            " each run: set index_dir to a folder to keep them in"
        )
        return None

    def found(self) -> str:
        """Say what there is."""
        return f"{describe_folder(self.root)}{self._left_out.among()}"

    def warn_left_out(self) -> None:
        """Say once what was found beside videos, if anything was."""
        self._left_out.warn()
        self._left_out = LeftOut(self.root, _VIDEOS)


class CacheStore(VideoStore):
    """Videos that ``lit-ssl video-cache`` decoded before; the files are not needed.

    Args:
        folder: The cache: a path or a URL.
        cover: Height and width that frames have to cover.
        cache_dir: As of ``VideoCache``.
        cache_size: As of ``VideoCache``, in bytes.

    Raises:
        InputError: It is no whole cache, its frames are too small, or it cannot be fetched.
    """

    def __init__(self, folder: str, cover: Size, cache_dir: str | None, cache_size: int) -> None:
        from lit_ssl.video.cache import VideoCache

        self.folder = folder
        self._cache = VideoCache(folder, cache_dir, cache_size)
        if self._cache.way:
            rank_zero_info(f"the cache {folder}: {self._cache.way}")
        self._rows = {name: row for row, name in enumerate(self._cache.names)}
        self._check_size(cover)

    def _check_size(self, cover: Size) -> None:
        index = self._cache.index()
        sides = zip(index.height.tolist(), index.width.tolist(), strict=True)
        needed = np.asarray([covering_side(*side, cover) for side in sides if min(side) > 0])
        few = int((needed > self._cache.size).sum())
        if few == len(needed) and few:
            raise InputError(
                f"the frames of the cache {self.folder} have a shorter side of {self._cache.size}"
                f" pixels, and size {cover[0]} x {cover[1]} needs {int(needed.min())}: write a"
                " larger cache (lit-ssl video-cache), or lower size"
            )
        if few:
            rank_zero_warn(
                f"the frames of {few:,} of the {len(needed):,} videos in the cache {self.folder}"
                f" are enlarged to cover {cover[0]} x {cover[1]} pixels, since they are longer or"
                " wider than the others"
            )

    def names(self, folder: str = "") -> list[str]:
        """Return the sorted names of the videos in a folder, at any depth."""
        return sorted(name for name in self._rows if not folder or name.startswith(f"{folder}/"))

    def folders(self, folder: str = "") -> list[str]:
        """Return the sorted names of the folders in a folder."""
        start = len(folder) + 1 if folder else 0
        inside = (name[start:] for name in self.names(folder))
        return sorted({name.partition("/")[0] for name in inside if "/" in name})

    def clips(self, names: Sequence[str], base: str = "") -> Clips:
        """Return some of the videos."""
        rows = np.asarray([self._rows[name] for name in names], dtype=np.int64)
        return CachedClips(self._cache, rows, self.folder, base)

    def found(self) -> str:
        """Say what there is."""
        some = listed(sorted(self._rows), 3)
        return f"the cache {self.folder} holds {len(self._rows):,} videos: {some}"

    def warn_left_out(self) -> None:
        """Say nothing: a cache holds videos alone."""

    @rank_zero_only  # one process looks through the folder
    def warn_outdated(self, root: Path) -> None:
        """Say where the folder of the files has other videos by now.

        Names are compared, not contents: to look at each file would take as long as to use it.

        Args:
            root: The folder, which need not be there.
        """
        if not root.is_dir():
            return
        try:
            there = find_files(root, LeftOut(root, _VIDEOS))
        except InputError as error:
            rank_zero_warn(f"the cache {self.folder} cannot be compared with its videos: {error}")
            return
        new = sorted(set(there) - self._rows.keys())
        gone = sorted(self._rows.keys() - set(there)) if there else []
        if new:
            rank_zero_warn(
                f"{len(new):,} of the {len(there):,} videos in {root} are not in the cache"
                f" {self.folder} and are not used ({listed(new, 3)}): run `lit-ssl video-cache`"
                " again to add them"
            )
        if gone:
            rank_zero_warn(
                f"{len(gone):,} videos of the cache {self.folder} are no longer in {root} and"
                f" are used all the same ({listed(gone, 3)}): to leave them out, write a new cache"
            )
