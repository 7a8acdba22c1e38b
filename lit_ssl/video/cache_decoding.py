"""One process that decodes videos into shards of a cache."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lit_ssl.errors import InputError
from lit_ssl.video.cache_files import CacheEntry, CacheSettings
from lit_ssl.video.cache_shards import Shard
from lit_ssl.video.frames import UnreadableVideo
from lit_ssl.video.probe import look_at_video
from lit_ssl.video.readers import VideoReader, open_reader

__all__ = ["Failure", "Job", "decode_videos"]

_SHARD_BYTES = 1 << 30
_DECODED_BYTES = 1 << 28  # of full-size frames that a reader may hold at once


class Job(NamedTuple):
    """A video to decode.

    Attributes:
        name: its path, relative to the folder of all.
        path: its file.
        source: bytes of the file.
        frames: how many there are.
        fps: frames per second.
        size: height and width.
    """

    name: str
    path: str
    source: int
    frames: int
    fps: float
    size: tuple[int, int]


class Failure(NamedTuple):
    """A video that cannot be decoded.

    Attributes:
        name: its path, relative to the folder of all.
        why: in words.
    """

    name: str
    why: str


def decode_videos(
    jobs: Iterable[Job], folder: Path, settings: CacheSettings, reader: VideoReader
) -> Iterator[CacheEntry | Failure]:
    """Decode videos into new shards, and yield what became of each as it is done.

    Args:
        jobs: The videos.
        folder: Of the cache.
        settings: Of the cache.
        reader: Decodes them.

    Raises:
        InputError: The disk is full.
    """
    shard: Shard | None = None
    try:
        for job in jobs:
            if shard is not None and shard.size >= _SHARD_BYTES:
                shard.close()
                shard = None
            shard = shard or Shard(folder, settings)
            try:
                yield _cached(job, shard, settings, reader)
            except UnreadableVideo as error:
                shard.drop()
                yield Failure(job.name, error.why)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(
            f"the disk of {folder} is full: make room, then the same command goes on"
        ) from error
    finally:
        if shard is not None:
            shard.close()


def _cached(job: Job, shard: Shard, settings: CacheSettings, reader: VideoReader) -> CacheEntry:
    if not job.frames:
        why = look_at_video(job.path)[1] or "no frames were found in it when it was indexed"
        raise UnreadableVideo(job.path, why)
    height, width = job.size
    at_once = max(16, _DECODED_BYTES // (3 * height * width))
    shape: tuple[int, int] | None = None
    for first in range(0, job.frames, at_once):
        numbers = np.arange(first, min(first + at_once, job.frames), dtype=np.int64)
        frames = reader.read(job.path, numbers, settings.shorter)
        if shape is not None and frames.shape[1:3] != shape:
            raise UnreadableVideo(job.path, "its frames change their size")
        shape = (frames.shape[1], frames.shape[2])
        shard.add(frames)
    assert shape is not None
    return shard.finish(job.name, job.source, job.frames, job.fps, shape)


def _main() -> None:
    """Decode what standard input lists; see ``lit_ssl.video.cache_processes``."""
    answers, sys.stdout = sys.stdout, sys.stderr
    start = json.loads(sys.stdin.readline())
    settings = CacheSettings(**start["settings"])
    jobs = (Job(*json.loads(line)) for line in sys.stdin)
    answer: dict[str, Any]
    try:
        for outcome in decode_videos(
            jobs, Path(start["folder"]), settings, open_reader(start["reader"])
        ):
            answer = {type(outcome).__name__: outcome}
            print(json.dumps(answer), file=answers, flush=True)
    except InputError as error:
        print(json.dumps({"error": str(error)}), file=answers, flush=True)


if __name__ == "__main__":
    _main()
