"""Clips of videos in files, or in a cache of them."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import splits_of_stage
from lit_ssl.datamodules.video.clip_module import VideoDataModule
from lit_ssl.datamodules.video.stores import CacheStore, FolderStore, Reader, VideoStore
from lit_ssl.errors import InputFileNotFoundError, check_choice
from lit_ssl.stores.byte_sizes import byte_count
from lit_ssl.stores.places import Folder, place_at

__all__ = ["VideoFilesModule"]


class VideoFilesModule(VideoDataModule, ABC):
    """Labelled videos in files.

    How long videos are is found out once, without decoding them, and kept. Files that cannot be
    read then are left out and listed once; one that fails later, while it is decoded, is treated as
    ``on_corrupt`` says.

    Args:
        root: Folder of the data set.
        cache: Folder that ``lit-ssl video-cache`` has written from ``root``, or the URL of a copy
            (``s3://``, ``http(s)://``, what fsspec opens): its frames are read in place of the
            files, which need not be there. Where they are, a line says whether their folder has
            other videos by now.
        cache_dir: Folder for what is fetched of a cache in a store. None: ``lit_ssl/shards`` in
            ``XDG_CACHE_HOME``, or else in ``~/.cache``.
        cache_size: Bytes that it may have in all, such as 100GB. Where it does not hold all shards,
            clips are fetched one by one.
        reader: Package that reads files: "pyav" (``pip install lit-ssl[video]``) or "torchcodec";
            "auto" is PyAV.
        index_dir: Folder to keep the lengths of files in; None: ``.lit_ssl_index`` in ``root``, if
            it can be written.
        kwargs: Arguments of ``VideoDataModule``.
    """

    def __init__(
        self,
        *,
        root: str,
        cache: str | None = None,
        cache_dir: str | None = None,
        cache_size: str | int = "50GB",
        reader: Reader = "auto",
        index_dir: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_choice("reader", reader, ("auto", "pyav", "torchcodec"))
        self.root = Path(root).expanduser()
        self.cache = _called(cache)
        self.cache_dir = cache_dir
        self.cache_size = byte_count(cache_size, "cache_size")
        self.reader = reader
        self.index_dir = None if index_dir is None else Path(index_dir).expanduser()

    @cached_property
    def store(self) -> VideoStore:
        """The videos, by name."""
        if self.cache is not None:
            store = CacheStore(self.cache, self.resolution, self.cache_dir, self.cache_size)
            store.warn_outdated(self.root)
            return store
        return FolderStore(self.root, self.reader, self.index_dir, self.resolution)

    def prepare_data(self) -> None:
        """Find out in one process how long videos are, where several would do it at a time."""
        if self.trainer is not None and self.trainer.world_size > 1:
            state = self.trainer.state.fn
            for split in splits_of_stage(None if state is None else str(state.value)):
                self.rows(split)

    def rows_of(self, names: Sequence[str], labels: Sequence[int], base: str = "") -> Rows:
        """Return rows of some videos.

        Args:
            names: Paths below ``root``, at least one.
            labels: The label of each.
            base: Folder below ``root`` that all are in, below which lists name them.
        """
        columns = {"label": np.asarray(labels, dtype=np.int64)}
        return Rows(self.store.clips(names, base), columns)

    def missing(self, data_set: str, expected: str) -> InputFileNotFoundError:
        """Return the error for videos that are not there.

        Args:
            data_set: Name of the data set, for the message.
            expected: What should be there.
        """
        place = "root" if self.cache is None else "cache"
        return InputFileNotFoundError(
            f"{data_set}: expected {expected}. Found: {self.store.found()}. Set {place} to the"
            " folder that has this layout"
        )


def _called(cache: str | None) -> str | None:
    """The path or URL of a cache; one that nothing opens is refused."""
    if cache is None:
        return None
    place = place_at(cache)
    return str(Path(place.url)) if isinstance(place, Folder) else place.url
