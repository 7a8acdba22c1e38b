"""``lit-ssl video-sample``: videos from a checkpoint of a cascade."""

from __future__ import annotations

import os
import re
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lit_ssl.cli.mistakes.one_line import LineParser
from lit_ssl.errors import InputError, listed, nearest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lit_ssl.models.video.cascade import GeneratorCascade

__all__ = ["run"]

_MOST_SHOWN = 64  # videos side by side
_NUMBER_DIGITS = 5
_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi")


class Sampled(NamedTuple):
    """A video that was made.

    Attributes:
        number: its number.
        label: its class.
        video: uint8 ``[T, 3, H, W]``.
    """

    number: int
    label: int
    video: Tensor


def run(words: Sequence[str]) -> None:
    """Run the command.

    Args:
        words: What follows ``video-sample`` on the command line.

    Raises:
        InputError: For wrong words, a file that is no checkpoint of a cascade, or places where
            something is already.
    """
    args = _parser().parse_args(words)
    _check(args)
    from lit_ssl.methods.video.stored_cascade import load_cascade

    cascade, names, counts = load_cascade(args.checkpoint)
    top = cascade.top
    names = names or tuple(f"class {number}" for number in range(top.num_classes))
    labels = _labels(args, names, counts)
    device = _device(args.device)
    cascade.to(device)
    frames = top.num_frames if args.frames is None else args.frames
    size = f"{frames} frames of {top.resolution[0]} x {top.resolution[1]} pixels"
    level = f"level {top.level}" if top.level > 1 else "level 1 alone"
    print(f"{args.checkpoint}: {level}, {size}, {args.fps:g} frames per second")
    shown = []
    for sampled in _sample(cascade, labels, args, device):
        if args.folder:
            _write_clip(Path(args.folder), sampled, names, args.fps)
        if args.out or args.sheet:
            shown.append(sampled)
    _write_shown(shown, args, names)
    if args.folder:
        print(f"wrote {args.num} clips into {args.folder}")


def _parser() -> LineParser:
    parser = LineParser(
        "lit-ssl video-sample",
        description="Make videos with a trained cascade: side by side in one file (OUT), as single "
        "clips (--folder), as a picture (--sheet).",
    )
    parser.add_argument("checkpoint", help="checkpoint of CascadedVideoGAN, of any level")
    parser.add_argument("out", nargs="?", help="video to write, all side by side: .mp4, .avi, …")
    parser.add_argument("--num", type=int, default=16, help="how many videos (16)")
    parser.add_argument(
        "--classes",
        help="their classes, in turn, by name or number: cat,dog, or 0,3,7, or all (default: as "
        "often as in the training)",
    )
    parser.add_argument("--frames", type=int, help="frames of each (default: as trained)")
    parser.add_argument(
        "--chunk",
        type=int,
        help="make so many frames at a time: less memory, and the same videos",
    )
    parser.add_argument("--seed", type=int, default=0, help="other videos (0)")
    parser.add_argument("--fps", type=float, default=8.0, help="frames per second (8)")
    parser.add_argument("--folder", help="new folder for single clips, as video-score reads them")
    parser.add_argument("--sheet", help="picture to write, a row for each video: .png")
    parser.add_argument("--batch-size", type=int, default=8, help="videos at once (8)")
    parser.add_argument("--device", help="cpu, cuda, … (default: cuda if there is one)")
    return parser


def _check(args: Namespace) -> None:
    """Refuse what could not be written, before anything is computed."""
    if not (args.out or args.folder or args.sheet):
        raise InputError("say where to write: OUT.mp4, --folder DIR or --sheet OUT.png")
    for name in ("num", "batch_size", "frames", "chunk"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} must be at least 1, not {value}")
    if not 0.01 <= args.fps <= 1000:
        raise InputError(f"--fps must lie between 0.01 and 1000, not {args.fps}")
    if args.out and Path(args.out).suffix.lower() not in _SUFFIXES:
        raise InputError(f"{args.out}: the file must end in {', '.join(_SUFFIXES)}")
    for path, name in ((args.out, "OUT"), (args.sheet, "--sheet"), (args.folder, "--folder")):
        is_empty = name == "--folder" and path and Path(path).is_dir() and not os.listdir(path)
        if path and os.path.lexists(path) and not is_empty:
            raise InputError(f"{path} is there already: give {name} another name, or remove it")
    if args.sheet and Path(args.sheet).suffix.lower() != ".png":
        raise InputError(f"--sheet {args.sheet}: the file must end in .png")
    if (args.out or args.sheet) and args.num > _MOST_SHOWN:
        raise InputError(
            f"{args.num} videos do not fit side by side: give --num {_MOST_SHOWN} at most, or only "
            "--folder DIR for single clips"
        )


def _device(name: str | None) -> torch.device:
    """The device asked for, or the usual one."""
    import torch

    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter of a torch without CUDA
        raise InputError(f"--device {name}: no such device here; leave it out, or cpu") from error
    return device


def _labels(args: Namespace, names: Sequence[str], counts: Tensor) -> list[int]:
    """The class of each video."""
    if len(names) == 1:
        if args.classes is not None:
            raise InputError("this cascade has no classes: leave out --classes")
        return [0] * args.num
    if args.classes is None:
        return _drawn_labels(args, counts)
    if args.classes == "all":
        chosen = list(range(len(names)))
    else:
        chosen = [_class_of(part.strip(), names) for part in args.classes.split(",")]
    return [chosen[number % len(chosen)] for number in range(args.num)]


def _class_of(word: str, names: Sequence[str]) -> int:
    """The class that a word means: a name or, where no name is a number, a number."""
    if names.count(word) == 1:
        return names.index(word)
    are_numbers = any(name.isdecimal() for name in names)
    if not are_numbers and word in map(str, range(len(names))):
        return int(word)
    if word in names:
        raise InputError(f"--classes: several classes are called {word}: give their numbers")
    numbers = "" if are_numbers else f", or numbers from 0 to {len(names) - 1}"
    near = nearest(word, names, 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise InputError(
        f"--classes: no class {word!r} among {listed(names, 10)}{hint}: give names{numbers}, or all"
    )


def _drawn_labels(args: Namespace, counts: Tensor) -> list[int]:
    """Classes as often as among the training videos, which the checkpoint knows."""
    import torch

    from lit_ssl.seeding import Stream, sample_seeds

    seed = int(sample_seeds(Stream.SAMPLED_VIDEOS, args.seed, -1)[0])
    random = torch.Generator().manual_seed(seed)
    chances = counts.float()
    return torch.multinomial(chances, args.num, replacement=True, generator=random).tolist()


def _sample(
    cascade: GeneratorCascade, labels: list[int], args: Namespace, device: torch.device
) -> Iterator[Sampled]:
    """Videos one after the other; each depends on the seed, its number and class alone."""
    import torch

    from lit_ssl.metrics.video.preparation import to_uint8
    from lit_ssl.seeding import Stream, sample_seeds

    for start in range(0, len(labels), args.batch_size):
        numbers = range(start, min(start + args.batch_size, len(labels)))
        seeds = [int(sample_seeds(Stream.SAMPLED_VIDEOS, args.seed, n)[0]) for n in numbers]
        drawn = [
            cascade.draw_latents(1, device, torch.Generator().manual_seed(seed)) for seed in seeds
        ]
        latents = [torch.cat(level) for level in zip(*drawn, strict=True)]
        classes = torch.tensor([labels[number] for number in numbers], device=device)
        with torch.no_grad():
            made = cascade(latents, classes, args.frames, args.chunk)
        if not bool(torch.isfinite(made).all()):
            raise InputError(
                f"{args.checkpoint} makes no finite numbers: its training has diverged; take an "
                "earlier checkpoint"
            )
        for number, video in zip(numbers, to_uint8(made).cpu(), strict=True):
            yield Sampled(number, labels[number], video)


def _write_clip(folder: Path, sampled: Sampled, names: Sequence[str], fps: float) -> None:
    from lit_ssl.video.writing import write_video

    number = f"{sampled.number:0{_NUMBER_DIGITS}d}"
    # of a name only what every file system takes; the number keeps files apart
    name = re.sub(r"[^A-Za-z0-9.-]+", "_", names[sampled.label].replace(" ", ""))
    write_video(folder / f"{number}{f'_{name}' if len(names) > 1 else ''}.mp4", sampled.video, fps)


def _write_shown(shown: Sequence[Sampled], args: Namespace, names: Sequence[str]) -> None:
    """The grid and the sheet, where they are asked for."""
    import torch

    from lit_ssl.video.grid import video_grid
    from lit_ssl.video.sheet import contact_sheet, write_png
    from lit_ssl.video.writing import write_video

    if not shown:
        return
    videos = torch.stack([sampled.video for sampled in shown])
    if args.out:
        alone = len(videos) == 1
        write_video(args.out, videos[0] if alone else video_grid(videos), args.fps)
        rows = "" if alone else f": {len(videos)} videos, row by row from the top left"
        print(f"wrote {args.out}{rows}")
    captions = [names[sampled.label] for sampled in shown] if len(names) > 1 else []
    if args.sheet:
        write_png(args.sheet, contact_sheet(videos, captions))
        print(f"wrote {args.sheet}")
    if captions:
        print(f"in order: {', '.join(captions)}")
