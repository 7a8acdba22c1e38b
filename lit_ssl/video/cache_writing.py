"""Videos decoded once, at the size that training needs."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from lit_ssl.errors import InputError
from lit_ssl.files import write_file
from lit_ssl.video.cache_checksums import take_checksums, write_checksums
from lit_ssl.video.cache_decoding import Failure, Job
from lit_ssl.video.cache_files import (
    CacheEntry,
    CacheSettings,
    read_index,
    size_in_words,
    write_index,
    write_settings,
)
from lit_ssl.video.cache_processes import cache_videos
from lit_ssl.video.cache_shards import finished_videos
from lit_ssl.video.clip_index import ClipIndex
from lit_ssl.video.frames import fitted_size
from lit_ssl.video.readers import open_reader

__all__ = [
    "CachePlan",
    "CacheProgress",
    "CacheReport",
    "cache_settings",
    "check_workers",
    "plan_video_cache",
    "write_video_cache",
]

Reader = Literal["auto", "pyav", "torchcodec"]
# Of the raw bytes, in small photographs: at most so many up to quality 95, and up to 100.
_JPEG_SHARES = (0.28, 0.6)


class CachePlan(NamedTuple):
    """What there is to do for a cache.

    Args:
        kept: Videos of the index that are finished, by name.
        jobs: The others.
        changed: How many of these were finished, and then their file changed.
        needed: Bytes that they will take; of JPEG a careful guess.
        free: Bytes that are free.
    """

    kept: dict[str, CacheEntry]
    jobs: list[Job]
    changed: int
    needed: int
    free: int


class CacheProgress(NamedTuple):
    """How far a cache is: videos done and to do in this run, failed ones, bytes, seconds.

    Attributes:
        done: videos that this run has done, the failed ones among them.
        total: videos that this run has to do.
        unreadable: videos that could not be decoded.
        written: bytes of the decoded videos.
        seconds: since the run began.
    """

    done: int
    total: int
    unreadable: int
    written: int
    seconds: float


class CacheReport(NamedTuple):
    """What a cache holds of the videos it was asked for.

    Args:
        kept: How many were there before.
        added: How many were decoded now.
        frames: Frames of both.
        size: Bytes of both.
        unreadable: Names of the others, and why.
    """

    kept: int
    added: int
    frames: int
    size: int
    unreadable: dict[str, str]


def cache_settings(
    shorter: int, format: str = "raw", quality: int | None = None, reader: Reader = "auto"
) -> CacheSettings:
    """Check what a cache is to hold; the arguments are those of ``write_video_cache``.

    Args:
        shorter: pixels of the shorter side.
        format: ``raw`` or ``jpeg``.
        quality: of JPEG; None: 95.
        reader: which decodes the files.

    Raises:
        InputError: A quality is given for raw frames, or a value is out of range.
    """
    if format == "raw" and quality is not None:
        raise InputError(f"quality {quality} is for format jpeg: leave it out")
    if format == "jpeg" and quality is None:
        quality = 95
    return CacheSettings(shorter, format, quality or 0, type(open_reader(reader)).__name__)


def check_workers(num_workers: int | None) -> None:
    """Raise ``InputError`` for a number of processes below 1; None is good.

    Args:
        num_workers: how many; None: to be chosen.

    Raises:
        InputError: It is below 1.
    """
    if num_workers is not None and num_workers < 1:
        raise InputError(f"num_workers must be at least 1, not {num_workers}")


def plan_video_cache(index: ClipIndex, out: Path, settings: CacheSettings) -> CachePlan:
    """Find out what is done and what there is to do; makes the folder and writes its settings.

    Args:
        index: The videos.
        out: Folder of the cache.
        settings: Of the cache.

    Raises:
        InputError: The folder is of another cache or has other files, or there are no videos.
    """
    if not len(index.paths):
        raise InputError("no videos to cache")
    write_settings(out, settings)
    finished = finished_videos(out, settings)
    kept, jobs, changed, needed = {}, [], 0, 0
    for name, frames, fps, width, height in zip(
        index.paths, index.frames, index.fps, index.width, index.height, strict=True
    ):
        path = index.root / name
        job = Job(name, str(path), _size(path), int(frames), float(fps), (int(height), int(width)))
        entry = finished.get(name)
        if entry is not None and entry[:4] == (name, job.source, job.frames, job.fps):
            kept[name] = entry
            continue
        changed += entry is not None
        jobs.append(job)
        if frames:
            needed += job.frames * math.prod(fitted_size(*job.size, settings.shorter)) * 3
    if settings.format == "jpeg":
        needed = round(needed * _JPEG_SHARES[settings.quality > 95])
    return CachePlan(kept, jobs, changed, needed, shutil.disk_usage(out).free)


def write_video_cache(
    index: ClipIndex,
    out: str | Path,
    shorter: int,
    *,
    format: str = "raw",
    quality: int | None = None,
    reader: Reader = "auto",
    num_workers: int | None = None,
    progress: Callable[[CacheProgress], None] | None = None,
) -> CacheReport:
    """Decode videos into a folder, from where [`VideoCache`][lit_ssl.video.VideoCache] reads clips.

    Called again after it was stopped, it goes on: finished videos are kept, unless the size, frames
    or rate of their file have changed. Videos that cannot be decoded are listed in
    ``unreadable.txt`` and have no frames in the cache. More videos may be added later.

    Args:
        index: The videos.
        out: Folder of the cache: a new or empty one, or that of an earlier call.
        shorter: Shorter side of the frames, pixels.
        format: ``raw``: 3 bytes a pixel, exactly what the reader gives; ``jpeg``:
            about a fifth, 1 to 2 grey levels off in the mean.
        quality: Of JPEG, 1 to 100; 95 where it is not given.
        reader: Which reader decodes: ``auto``, ``pyav`` or ``torchcodec``.
        num_workers: Processes that decode, 1: this one only; by default one for each CPU.
        progress: Called after each video.

    Returns:
        What the cache holds.

    Raises:
        InputError: The folder is of another cache or has other files, the disk is too full or gets
            full, no video can be decoded, a process dies, or a value is out of range.
    """
    out = Path(out)
    check_workers(num_workers)
    settings = cache_settings(shorter, format, quality, reader)
    plan = plan_video_cache(index, out, settings)
    if plan.needed > plan.free:
        raise InputError(
            f"the cache needs {size_in_words(plan.needed)} more, and the disk of {out} has"
            f" {size_in_words(plan.free)}: make room, or take format jpeg or a smaller size"
        )
    done, unreadable = dict(plan.kept), {}
    start, written = time.monotonic(), 0
    workers = min(num_workers or _cpus(), len(plan.jobs))
    for count, outcome in enumerate(
        cache_videos(plan.jobs, out, settings, reader, workers), start=1
    ):
        if isinstance(outcome, Failure):
            unreadable[outcome.name] = outcome.why
        else:
            done[outcome.name] = outcome
            written += outcome.end - outcome.start
        if progress is not None:
            seconds = time.monotonic() - start
            progress(CacheProgress(count, len(plan.jobs), len(unreadable), written, seconds))
    _write_unreadable(out, unreadable)
    if not done:
        name, why = next(iter(unreadable.items()))
        raise InputError(f"none of {len(unreadable):,} videos can be decoded; {name}: {why}")
    known = take_checksums(out)
    write_index(out, list(_rows(index, out, settings, done)))
    write_checksums(out, settings, known)
    return CacheReport(
        len(plan.kept),
        len(done) - len(plan.kept),
        sum(entry.frames for entry in done.values()),
        sum(entry.end - entry.start for entry in done.values()),
        unreadable,
    )


def _rows(
    index: ClipIndex, out: Path, settings: CacheSettings, done: dict[str, CacheEntry]
) -> Iterator[CacheEntry]:
    """The videos of the index, then those that earlier calls have put there."""
    for name, fps in zip(index.paths, index.fps, strict=True):
        nothing = CacheEntry(name, _size(index.root / name), 0, float(fps), 0, 0, 0, 0, 0)
        yield done.get(name, nothing)
    asked = set(index.paths)
    earlier = finished_videos(out, settings)
    if (out / "index.npz").is_file():
        there = map(CacheEntry._make, zip(*read_index(out), strict=True))
        earlier |= {e.name: e for e in there if not e.frames and e.name not in earlier}
    yield from (earlier[name] for name in sorted(set(earlier) - asked))


def _write_unreadable(out: Path, unreadable: dict[str, str]) -> None:
    path = out / "unreadable.txt"
    if unreadable:
        lines = "".join(f"{name}\t{' '.join(why.split())}\n" for name, why in unreadable.items())
        content = lines.encode(errors="replace")
        write_file(path, lambda file: file.write(content), binary=True)
    else:
        path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _cpus() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1
