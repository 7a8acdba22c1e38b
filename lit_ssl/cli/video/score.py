"""``lit-ssl video-score``: compare a folder of generated videos with one of real ones."""

from __future__ import annotations

import re
import warnings
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_ssl.cli.mistakes.one_line import LineParser
from lit_ssl.errors import InputError

if TYPE_CHECKING:
    from lit_ssl.cli.video.folders import ClipFolder

__all__ = ["run"]

# options that say how a network is used: its option, and what they are if they are not given
_OF_A_NETWORK: dict[str, tuple[str, str | int | None]] = {
    "protocol": ("extractor", "stylegan_v"),
    "num_features": ("extractor", 400),
    "inception_protocol": ("classifier", "tgan2"),
    "num_classes": ("classifier", 101),
    "mean_clip": ("classifier", None),
}


def run(words: Sequence[str]) -> None:
    """Run the command.

    Args:
        words: What follows ``video-score`` on the command line.

    Raises:
        InputError: For wrong words, files or values.
    """
    args = _parser().parse_args(words)
    _check(args)
    size = None if args.size is None else _size(args.size)

    from lit_ssl.cli.video import folders
    from lit_ssl.cli.video.scoring import Scores
    from lit_ssl.video.readers import open_reader

    scores = Scores(args)  # networks are opened first: their files may be wrong
    sets = [folders.indexed_videos(folder) for folder in (args.real, args.fake)]
    chosen = folders.common_size(sets[1]) if size is None else size
    real, fake = (
        folders.ClipFolder(
            index, args.clip_length, args.stride, args.max_items, args.seed, random_start=is_real
        )
        for index, is_real in zip(sets, (True, False), strict=True)
    )
    reader = open_reader(args.reader)
    for folder, kind in ((real, "real"), (fake, "generated")):
        for video in folder.batches(reader, chosen, args.batch_size):
            scores.update(video, real=folder is real)
        folder.check(kind)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = scores.compute()
    _print_folders(args, real, fake, chosen, given=size is not None)
    _print_table(found)
    for line in _notes(args, [str(one.message) for one in said]):
        print(line)
    if args.out is not None:
        print(f"card: {_write(args, found, real, fake, chosen, str(scores.device))}")


def _parser() -> LineParser:
    parser = LineParser(
        "lit-ssl video-score",
        description="Scores of generated videos beside real ones: FVD and KVD with --extractor, "
        "Inception Score with --classifier; without a file the random-feature distance and motion.",
    )
    add = parser.add_argument
    add("real", metavar="REAL_DIR", help="folder of real videos, of any length and depth")
    add("fake", metavar="FAKE_DIR", help="folder of generated videos")
    add("--extractor", metavar="FILE", help="for FVD and KVD: TorchScript or exported program")
    add("--classifier", metavar="FILE", help="for the Inception Score: the same")
    add("--mean-clip", metavar="FILE", help="of C3D, for the Inception Score of tgan2 (.npy, .npz)")
    add(
        "--protocol",
        choices=("stylegan_v", "tats"),
        help="of FVD and KVD (default: stylegan_v)",
    )
    add(
        "--inception-protocol",
        choices=("tgan2", "stylegan_v"),
        help="of the Inception Score (default: tgan2)",
    )
    add("--num-features", type=int, help="of the extractor (default: 400)")
    add("--num-classes", type=int, help="of the classifier (default: 101)")
    add("--clip-length", type=int, default=16, help="frames of a clip (default: 16)")
    add("--stride", type=int, default=1, help="take every so many-th frame (default: 1)")
    add("--size", help="H or HxW to compare at (default: that of the generated videos)")
    add("--max-items", type=int, default=2048, help="clips of each set (default: 2048)")
    add("--seed", type=int, default=0, help="of which videos, and where clips start (default: 0)")
    add("--bootstrap", type=int, default=0, metavar="R", help="95 %% intervals by R replicates")
    add("--split", help="of the real videos, for the card: train, test, ...")
    add("--reader", choices=("auto", "pyav", "torchcodec"), default="auto", help="default: auto")
    add("--device", help="such as cuda or cpu (default: a GPU if there is one)")
    add("--batch-size", type=int, default=16, help="clips at once (default: 16)")
    add("--out", metavar="CARD.json", help="write all numbers with their protocol there")
    return parser


def _check(args: Namespace) -> None:
    for name, (network, usual) in _OF_A_NETWORK.items():
        if getattr(args, name) is None:
            setattr(args, name, usual)
        elif getattr(args, network) is None:
            option = name.replace("_", "-")
            raise InputError(f"--{option} goes with --{network}, which is missing")
    for name in ("clip_length", "stride", "max_items", "batch_size", "num_features", "num_classes"):
        if getattr(args, name) < 1:
            option = name.replace("_", "-")
            raise InputError(f"--{option} must be at least 1, not {getattr(args, name)}")
    if args.bootstrap and args.bootstrap < 20:
        raise InputError(f"--bootstrap needs at least 20 replicates, or 0, not {args.bootstrap}")
    if args.out is not None and Path(args.out).exists():
        raise InputError(f"--out {args.out} exists; give another file for the card")
    folders = [Path(folder).resolve() for folder in (args.real, args.fake)]
    for outer, inner in (folders, folders[::-1]):
        if outer in inner.parents:
            raise InputError(
                f"{inner} lies in {outer}, whose videos are looked for in all folders below: keep"
                " real and generated videos apart"
            )


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", text)
    if found is None:
        raise InputError(f"--size takes H or HxW in pixels, such as 64 or 64x128, not {text}")
    return int(found[1]), int(found[2] or found[1])


def _print_folders(
    args: Namespace, real: ClipFolder, fake: ClipFolder, size: tuple[int, int], given: bool
) -> None:
    for kind, folder in (("real", real), ("generated", fake)):
        card = folder.card()
        left = [f"{card['unreadable']:,} cannot be read"] * bool(card["unreadable"])
        left += [f"{card['shorter_than_a_clip']:,} are too short"] * bool(folder.short)
        more = f" ({', '.join(left)})" if left else ""
        count = f"{folder.used:,} of {len(folder.index):,} videos"
        print(f"{kind + ':':<11}{count} in {card['folder']}{more}")
    where = "--size" if given else "that of the generated videos"
    stride = f", stride {args.stride}" if args.stride > 1 else ""
    print(f"{'clips:':<11}{args.clip_length} frames{stride}, {size[0]} x {size[1]} ({where})\n")


def _print_table(scores: dict[str, dict[str, Any]]) -> None:
    rows = [("score", "value", "95 % interval", "real halves", "protocol")]
    for name, score in scores.items():
        interval = score.get("interval_95")
        spread = "" if interval is None else f"{interval[0]:.4g} to {interval[1]:.4g}"
        if score.get("std") is not None:
            spread = f"± {score['std']:.4g} over {score['splits']} parts"
        halves = "" if score.get("self_distance") is None else f"{score['self_distance']:.4g}"
        rows.append((name, f"{score['value']:.4g}", spread, halves, score.get("protocol", "")))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    for row in rows:
        print("  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)).rstrip())
    print()


def _notes(args: Namespace, said: Sequence[str]) -> list[str]:
    from lit_ssl.metrics.video.card import CONTENT_BIAS

    notes = [f"note: {line}" for line in dict.fromkeys(said)]
    if args.extractor is None:
        notes.append(
            "note: no --extractor, so no FVD: random features compare only with themselves, on the"
            " same real videos, size and number of clips"
        )
    else:
        notes.append(f"note: {CONTENT_BIAS}")
    return notes


def _write(
    args: Namespace,
    found: dict[str, dict[str, Any]],
    real: ClipFolder,
    fake: ClipFolder,
    size: tuple[int, int],
    device: str,
) -> Path:
    from lit_ssl.metrics.video.card import score_card, write_card
    from lit_ssl.version import __version__

    data = {
        "real": {**real.card(), "split": args.split},
        "generated": fake.card(),
        "clip_length": args.clip_length,
        "stride": args.stride,
        "size": list(size),
        "resize": "bilinear of libswscale, shorter side, then centre crop; where sizes differ",
        "reader": "torchcodec" if args.reader == "torchcodec" else "pyav",
        "device": device,
        "flip": False,
        "seed": args.seed,
    }
    return write_card(args.out, score_card(found, data, __version__))
