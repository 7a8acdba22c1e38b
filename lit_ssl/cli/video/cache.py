"""``lit-ssl video-cache``: decode videos once, at the size that training needs."""

from __future__ import annotations

import sys
import warnings
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from lit_ssl.cli.mistakes.one_line import LineParser
from lit_ssl.errors import listed
from lit_ssl.video.cache_files import size_in_words

if TYPE_CHECKING:
    from lit_ssl.video.cache_writing import CachePlan, CacheProgress, CacheReport

__all__ = ["run"]

_SECONDS_BETWEEN_LINES = 15.0  # where they do not replace each other


def run(words: Sequence[str]) -> None:
    """Run the command.

    Args:
        words: What follows ``video-cache`` on the command line.

    Raises:
        InputError: For wrong words, files or values.
    """
    args = _parser().parse_args(words)
    from lit_ssl.video.cache_files import write_settings
    from lit_ssl.video.cache_writing import (
        cache_settings,
        check_workers,
        plan_video_cache,
        write_video_cache,
    )
    from lit_ssl.video.clip_index import build_clip_index

    out = Path(args.out)
    check_workers(args.num_workers)
    settings = cache_settings(args.shorter, args.format, args.quality, args.reader)
    names = _names(args)
    write_settings(out, settings)
    with warnings.catch_warnings():
        # Those that cannot be read are listed at the end, together with what fails later.
        warnings.filterwarnings("ignore", message=".* cannot be read")
        index = build_clip_index(Path(args.videos), names, out, args.num_workers)
    _print_plan(plan_video_cache(index, out, settings), len(index), str(settings))
    try:
        report = write_video_cache(
            index,
            out,
            args.shorter,
            format=args.format,
            quality=args.quality,
            reader=args.reader,
            num_workers=args.num_workers,
            progress=_Line(),
        )
    except KeyboardInterrupt:
        print("\nstopped: the same command goes on", file=sys.stderr)
        sys.exit(130)
    _print_report(report, out)


def _parser() -> LineParser:
    parser = LineParser(
        "lit-ssl video-cache",
        description="Decode videos once, at the size that training needs. Stopped, the same "
        "command goes on. Data modules read from it with --data.cache OUT, or the URL of a copy.",
    )
    parser.add_argument("videos", help="folder of the videos; those below count, too")
    parser.add_argument("out", help="folder of the cache: new, empty, or that of an earlier call")
    parser.add_argument(
        "--shorter", type=int, required=True, help="shorter side of the frames, pixels"
    )
    parser.add_argument("--list", help="only the videos of this file: a path below VIDEOS a line")
    parser.add_argument(
        "--format",
        choices=("raw", "jpeg"),
        default="raw",
        help="3 bytes a pixel, exact (default), or about a fifth of that",
    )
    parser.add_argument("--quality", type=int, help="of jpeg, 1 to 100 (default: 95)")
    parser.add_argument(
        "--reader", choices=("auto", "pyav", "torchcodec"), default="auto", help="default: auto"
    )
    parser.add_argument(
        "--num-workers", type=int, help="processes that decode (default: one for each CPU)"
    )
    return parser


def _names(args: Namespace) -> list[str]:
    from lit_ssl.video.listing import find_videos, read_video_list

    if args.list is None:
        return find_videos(args.videos)
    found, missing = read_video_list(args.list, args.videos)
    if missing:
        print(f"{len(missing):,} of {len(missing) + len(found):,} listed videos are not there: "
              f"{listed(missing, 3)}")  # fmt: skip
    return found


def _print_plan(plan: CachePlan, total: int, settings: str) -> None:
    print(f"{total:,} videos: {settings}")
    if plan.kept:
        print(f"{len(plan.kept):,} of them are there already")
    if plan.changed:
        print(f"{plan.changed:,} have changed since and are decoded again")
    if plan.jobs:
        about = "about " if "jpeg" in settings else ""
        print(
            f"{len(plan.jobs):,} to decode, {about}{size_in_words(plan.needed)};"
            f" {size_in_words(plan.free)} are free",
            flush=True,
        )


def _print_report(report: CacheReport, out: Path) -> None:
    print(f"wrote {out}: {report.kept + report.added:,} videos, {report.frames:,} frames,"
          f" {size_in_words(report.size)}")  # fmt: skip
    if report.unreadable:
        names = listed(list(report.unreadable), 3)
        print(f"{len(report.unreadable):,} videos could not be decoded: {names}; "
              f"{out / 'unreadable.txt'} says why")  # fmt: skip


class _Line:
    """Shows how far it is, on one line of a terminal, or now and then on a new one."""

    def __init__(self) -> None:
        self._last = monotonic()
        self._width = 0

    def __call__(self, progress: CacheProgress) -> None:
        screen, now = sys.stderr.isatty(), monotonic()
        ended = progress.done == progress.total
        if not ended and now - self._last < (0.2 if screen else _SECONDS_BETWEEN_LINES):
            return
        self._last = now
        left = progress.seconds / progress.done * (progress.total - progress.done)
        failed = f", {progress.unreadable:,} unreadable" if progress.unreadable else ""
        text = (
            f"{progress.done:,} of {progress.total:,} videos{failed},"
            f" {size_in_words(progress.written)}, {_clock(left)} left"
        )
        if screen:
            padded, self._width = text.ljust(self._width), len(text)
            print(f"\r{padded}", end="\n" if ended else "", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
