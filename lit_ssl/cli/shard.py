"""``lit-ssl shard``: the images of a data module as shards, for a store or for streaming."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from time import monotonic
from typing import Any

from lit_ssl.cli.mistakes.one_line import LineParser
from lit_ssl.errors import InputError

__all__ = ["run"]

_USAGE = (
    "lit-ssl shard --data ImageNetDataModule --data.root DIR --output OUT [--workers N]"
    " [--size 64MB]"
)
_SECONDS_BETWEEN_LINES = 15.0


def run(words: Sequence[str]) -> None:
    """Run the command.

    Args:
        words: What follows ``shard`` on the command line.

    Raises:
        InputError: For wrong words, or data that have no shards.
    """
    parser = LineParser(
        "lit-ssl shard",
        usage=_USAGE,
        allow_abbrev=False,
        description="Write all images of a data module as shards, files byte for byte, with "
        "labels, classes and checksums. Stopped, the same command goes on. "
        "StreamingImageDataModule reads them from a folder or, once copied there, from an object "
        "store. Other options are those of `lit-ssl fit`, --config RECIPE too: its data count.",
    )
    parser.add_argument("--output", required=True, help="folder to write: new or empty")
    parser.add_argument("--size", default="64MB", help="bytes of images per shard (default: 64MB)")
    parser.add_argument(
        "--workers", type=int, help="processes that write (default: one for each CPU)"
    )
    args, rest = parser.parse_known_args(words)
    if args.workers is not None and args.workers < 1:
        raise InputError(f"--workers must be at least 1, not {args.workers}")
    from lit_ssl.datamodules.streaming.sharding import shard_images
    from lit_ssl.stores.byte_sizes import byte_count

    size = byte_count(args.size, "--size")
    report = shard_images(
        _data(rest),
        os.path.expanduser(args.output) if "://" not in args.output else args.output,
        size=size,
        workers=args.workers or _cpus(),
        progress=_Line(),
    )
    images = ", ".join(f"{count:,} {split}" for split, count in report.images.items())
    kept = f", {report.kept:,} of them were there already" if report.kept else ""
    print(f"wrote {args.output}: {images} images in {report.chunks:,} shards{kept},"
          f" {report.size / 1e9:,.2f} GB")  # fmt: skip
    print(f"  --data StreamingImageDataModule --data.url {args.output}")


def _data(words: Sequence[str]) -> Any:
    """Build the data module that options name, and nothing else."""
    from lightning.pytorch.cli import LightningArgumentParser

    from lit_ssl.cli.output import quiet
    from lit_ssl.cli.training import LitSSLCLI

    class DataOnly(LitSSLCLI):
        """Builds the data, and neither model nor trainer."""

        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            """Link nothing: there is no model."""

        def _parse_ckpt_path(self) -> None:
            """Ask for data only, whatever a recipe has."""
            config = self.config["fit"]
            if not config.get("data"):
                raise InputError(f"say which data: {_USAGE}")
            config["model"] = None
            for name in ("callbacks", "logger", "plugins", "profiler", "strategy"):
                config["trainer"][name] = None

        def instantiate_trainer(self, **kwargs: Any) -> Any:
            """Build none."""

        def _run_subcommand(self, subcommand: str) -> None:
            """Run nothing."""

    if not words:
        raise InputError(f"say which data: {_USAGE}")
    quiet()
    return DataOnly(args=["fit", *words], seed_everything_default=False).datamodule


def _cpus() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


class _Line:
    """Shows how far it is, on one line of a terminal, or now and then on a new one."""

    def __init__(self) -> None:
        self._last = monotonic()

    def __call__(self, done: int, total: int, size: int) -> None:
        screen, now = sys.stderr.isatty(), monotonic()
        if done < total and now - self._last < (0.2 if screen else _SECONDS_BETWEEN_LINES):
            return
        self._last = now
        text = f"{done:,} of {total:,} shards, {size / 1e9:,.2f} GB"
        start, end = ("\r", "\n" if done == total else "") if screen else ("", "\n")
        print(f"{start}{text}", end=end, file=sys.stderr, flush=True)
