"""``lit-ssl look``: what is in a folder of images, before anything is trained on it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from lit_ssl.cli.mistakes.one_line import LineParser
from lit_ssl.cli.new_folder import made_folder, new_folder
from lit_ssl.cli.printing import say
from lit_ssl.errors import InputError, listed, shortened

if TYPE_CHECKING:
    import numpy as np

    from lit_ssl.cli.look_advice import Step
    from lit_ssl.datamodules.images.folder_survey import FolderSurvey

__all__ = ["run"]

_SHEET, _FOUND = "sheet.png", "look.json"
_CLASSES, _FILES = 12, 5  # that are printed; look.json has all
_TILES, _COLUMNS = 40, 8
_CROP = {"folder_small": 96}  # pixels; of the other recipes 224
_USUAL_CROP = 224


def run(words: Sequence[str]) -> None:
    """Run the command.

    Args:
        words: What follows ``look`` on the command line.

    Raises:
        InputError: For wrong words, a folder without images, or an output that cannot be written.
    """
    parser = LineParser(
        "lit-ssl look",
        description="Say what is in a folder of images: numbers, classes, formats, sizes, files "
        "that cannot be read, duplicates, and what ImageFolderDataModule makes of it; which "
        "commands to run next. Every file is decoded. Writes look.json and a sheet of samples.",
    )
    parser.add_argument("folder", help="folder of images, of class folders, or of train/, val/ …")
    parser.add_argument(
        "--output", help="folder to write: new or empty (default: lit_ssl_look/version_N)"
    )
    parser.add_argument(
        "--layout",
        default="auto",
        choices=("auto", "splits", "classes"),
        help="what the folders in it are, where that is not clear (default: auto)",
    )
    parser.add_argument("--workers", type=int, help="processes that read (default: one per CPU)")
    args = parser.parse_args(words)
    if args.workers is not None and args.workers < 1:
        raise InputError(f"--workers must be at least 1, not {args.workers}")
    folder = Path(os.path.expanduser(args.folder))
    new_folder(args.output, "lit_ssl_look", images=folder)
    from lit_ssl.cli.look_advice import next_steps
    from lit_ssl.datamodules.images.folder_survey import survey_folder

    progress = _Line()
    survey = survey_folder(folder, args.layout, args.workers or _cpus(), progress)
    steps = next_steps(survey, args.layout)
    for line in _lines(survey, steps):
        say(line)
    _write(survey, steps, made_folder(args.output, "lit_ssl_look", images=folder))


def _cpus() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


class _Line:
    """Shows on a terminal how far it is."""

    def __init__(self) -> None:
        self._start = self._last = monotonic()
        self._shown = False

    def __call__(self, done: int, total: int) -> None:
        now = monotonic()
        if sys.stderr.isatty() and (now - self._last > 0.2 or (self._shown and done == total)):
            self._last, self._shown = now, True
            speed = done / max(now - self._start, 1e-9)
            end = "\n" if done == total else ""
            text = f"\r{done:,} of {total:,} files, {speed:,.0f} a second"
            print(text, end=end, file=sys.stderr, flush=True)


# What is printed


def _lines(survey: FolderSurvey, steps: list[Step]) -> list[str]:
    size = sum(facts.size for facts in survey.facts)
    count = len(survey.names)
    lines = [f"{survey.root}: {count:,} image file{'s' * (count != 1)}, {_bytes(size)}", ""]
    lines += _split_lines(survey)
    lines += _class_lines(survey)
    lines += _picture_lines(survey)
    lines += _trouble_lines(survey)
    if not steps and not survey.problem:
        lines += ["", "no commands to run next: a training needs at least two images"]
    if steps:
        why = "sizes by the number of images: rules of thumb, docs/getting_started.md"
        lines += ["", f"next ({why}):"]
        for step in steps:
            lines += [f"  # {step.purpose}", f"  {step.command}"]
        if any("RUN/" in step.command for step in steps):
            lines.append(
                "  (RUN: of checkpoints the folder that fit names, of predictions the one that"
                " predict names: lightning_logs/…)"
            )
    return lines


def _split_lines(survey: FolderSurvey) -> list[str]:
    if survey.problem:
        return [f"no training on it as it is: {survey.problem}"]
    missing = {"val": "none: hold some out by val_size", "test": "none"}
    lines = []
    for split in ("train", "val", "test"):
        used = survey.splits.get(split)
        text = missing.get(split, "none") if used is None else used.text
        lines.append(f"  {split + ':':<7}{text}{_stands_in(survey, split)}")
    return lines


def _stands_in(survey: FolderSurvey, split: str) -> str:
    """Says so where the images of one split are those of another."""
    both = survey.splits.get("val"), survey.splits.get("test")
    if split == "train" or None in both or both[0].folder != both[1].folder:  # type: ignore[union-attr]
        return ""
    from lit_ssl.datamodules.reading.layout import split_folder

    theirs = "val" if split == "test" else "test"
    own = os.path.relpath(split_folder(survey.root, theirs), survey.root)
    return f" (the {theirs} images stand in)" if both[0].folder == own else ""  # type: ignore[union-attr]


def _class_lines(survey: FolderSurvey) -> list[str]:
    if not survey.class_names or survey.problem:
        return []
    train = survey.per_class("train")
    least, most = int(train.min()), int(train.max())
    each = f"{least:,} to {most:,}" if least < most else f"{most:,}"
    lines = ["", f"classes: {len(train):,} with {each} training images each"]
    order = (-train).argsort(kind="stable")
    shown = order if len(order) <= _CLASSES else [*order[: _CLASSES - 3], *order[-3:]]
    width = max(len(shortened(survey.class_names[label], 40)) for label in shown)
    columns = {split: survey.per_class(split) for split in survey.splits}
    lines.append(f"  {'':<{width}}" + "".join(f"{split:>8}" for split in columns))
    for place, label in enumerate(shown):
        if len(order) > _CLASSES and place == _CLASSES - 3:
            lines.append(f"  … {len(order) - _CLASSES:,} more (all in {_FOUND})")
        name = shortened(survey.class_names[label], 40)
        counts = "".join(f"{column[label]:>8,}" for column in columns.values())
        lines.append(f"  {name:<{width}}{counts}")
    return lines


def _picture_lines(survey: FolderSurvey) -> list[str]:
    if not survey.readable:
        return []
    lines = ["", f"formats: {_counted(survey.counts('format'))}"]
    lines.append(f"modes:   {_counted(survey.counts('mode'))}")
    lines.append("pixels:    smallest   median  largest")
    for name, (least, middle, most) in _sizes(survey).items():
        lines.append(f"  {name.replace('_', ' '):<13}{least:>4,}{middle:>9,}{most:>9,}")
    crop = _crop(survey)
    small = int((survey.sides().min(1) < crop).sum())
    if small:
        lines.append(
            f"  {small:,} with a shorter side below the {crop} pixels of the recipe's images:"
            " these are enlarged"
        )
    return lines


def _trouble_lines(survey: FolderSurvey) -> list[str]:
    lines = []
    if survey.unreadable:
        lines.append(f"unreadable: {len(survey.unreadable):,}; on_corrupt: skip leaves them out")
        shown = list(survey.unreadable.items())[:_FILES]
        lines += [f"  {shortened(name)}: {problem}" for name, problem in shown]
        lines += _more(len(survey.unreadable))
    if survey.left_out:
        lines.append("not taken:")
        for reason, names in survey.left_out.items():
            lines.append(f"  {len(names):,} {reason}: {listed(names, _FILES)}")
    if survey.unused and not survey.problem:
        lines.append(f"images that no split has: {len(survey.unused):,}: {listed(survey.unused)}")
    if survey.duplicates:
        extra = sum(len(group) - 1 for group in survey.duplicates)
        lines.append(f"duplicates, equal byte for byte: {extra:,}")
        lines += [f"  {listed(group)}" for group in survey.duplicates[:_FILES]]
        lines += _more(len(survey.duplicates))
        for groups, where in (
            (survey.shared, "are in the training and in another split: results will be too good"),
            (survey.contradictions, "lie in several classes"),
        ):
            if groups:
                lines.append(f"  {len(groups):,} of these {where}, as {listed(groups[0])}")
    turned = sum(facts.turned for facts in survey.readable)
    if turned:
        lines.append(
            f"turned by EXIF: {turned:,}; read as they are stored, lying on their side perhaps:"
            " turn the files themselves if that matters"
        )
    transparent = sum(facts.transparent for facts in survey.readable)
    if transparent:
        lines.append(
            f"transparent pixels: in {transparent:,}; background puts a colour below, else hidden"
            " colours show"
        )
    pictures = sum(facts.pictures for facts in survey.readable)
    if pictures:
        lines.append(f"several pictures in a file: {pictures:,}; the first counts")
    lines += [f"note: {shortened(note, 400)}" for note in _other_notes(survey)]
    return ["", *lines] if lines else []


def _other_notes(survey: FolderSurvey) -> list[str]:
    """What the data module warns of, but for what is said here anyway."""
    return [note for note in survey.notes if not note.startswith("left out of ")]


def _more(count: int) -> list[str]:
    return [f"  … (all in {_FOUND})"] if count > _FILES else []


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _bytes(size: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:,.1f} {unit}"
    return f"{size / 1e3:,.1f} KB"


def _sizes(survey: FolderSurvey) -> dict[str, tuple[int, int, int]]:
    """Smallest, median and largest width, height and shorter side."""
    import numpy as np

    sides = survey.sides()
    columns: dict[str, np.ndarray] = {
        "width": sides[:, 0], "height": sides[:, 1], "shorter_side": sides.min(1),
    }  # fmt: skip
    return {
        name: (int(values.min()), int(np.median(values)), int(values.max()))
        for name, values in columns.items()
    }


def _crop(survey: FolderSurvey) -> int:
    from lit_ssl.cli.look_advice import choose_sizes

    train = survey.splits.get("train")
    images = len(survey.names) if train is None else len(train.names)
    sizes = choose_sizes(images, len(survey.class_names), "val" in survey.splits)
    return _CROP.get(sizes.recipe, _USUAL_CROP)


# What is written


def _write(survey: FolderSurvey, steps: list[Step], output: Path) -> None:
    from lit_ssl.files import write_file, write_json

    found = write_json(output / _FOUND, _content(survey, steps))
    say("")
    say(f"wrote {found}")
    if (sheet := _sheet(survey)) is not None:
        path = write_file(output / _SHEET, lambda file: sheet.save(file, "png"), binary=True)
        say(f"wrote {path}")


def _content(survey: FolderSurvey, steps: list[Step]) -> dict[str, Any]:
    used = {
        split: {
            "folder": part.folder,
            "images": len(part.names),
            "classes": {
                name: int(count)
                for name, count in zip(survey.class_names, survey.per_class(split), strict=True)
            },
        }
        for split, part in survey.splits.items()
    }
    sides = _sizes(survey) if survey.readable else {}
    return {
        "folder": str(survey.root.absolute()),
        "images": len(survey.names),
        "bytes": sum(facts.size for facts in survey.facts),
        "problem": survey.problem or None,
        "splits": used,
        "formats": survey.counts("format"),
        "modes": survey.counts("mode"),
        "pixels": {
            name: dict(zip(("smallest", "median", "largest"), three, strict=True))
            for name, three in sides.items()
        },
        "turned_by_exif": sum(facts.turned for facts in survey.readable),
        "transparent": sum(facts.transparent for facts in survey.readable),
        "several_pictures": sum(facts.pictures for facts in survey.readable),
        "unreadable": survey.unreadable,
        "not_taken": survey.left_out,
        "in_no_split": [] if survey.problem else survey.unused,
        "duplicates": survey.duplicates,
        "duplicates_across_splits": survey.shared,
        "duplicates_across_classes": survey.contradictions,
        "notes": list(survey.notes),
        "next": [step._asdict() for step in steps],
    }


def _sheet(survey: FolderSurvey) -> Any:
    """Samples of all classes, as the network sees them; None where no file can be read."""
    import warnings

    from PIL import Image

    from lit_ssl.datamodules.reading.decoding import read_image
    from lit_ssl.drawing.lettering import in_one_line
    from lit_ssl.drawing.sheet import Tile, draw_sheet

    tiles = []
    for name in _samples(survey):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said above, by numbers
            pixels = read_image(str(survey.root / name), max_side=256)
        tiles.append(Tile(Image.fromarray(pixels.permute(1, 2, 0).numpy()), in_one_line(name)))
    if not tiles:
        return None
    title = f"{len(tiles):,} of {len(survey.names):,} images in {survey.root}"
    return draw_sheet(tiles, _COLUMNS, title=title)


def _samples(survey: FolderSurvey) -> list[str]:
    """Some readable images: of some folders, if there are many, a few spread over each."""
    folders: dict[str, list[str]] = {}
    for name in survey.names:
        if name not in survey.unreadable:
            folders.setdefault(name.rpartition("/")[0], []).append(name)
    parts = _spread(list(folders.values()), _TILES)
    each = _TILES // max(1, len(parts))
    return [name for part in parts for name in _spread(part, each)]


def _spread(items: list[Any], count: int) -> list[Any]:
    """At most so many of a list, at equal distances."""
    return [items[len(items) * i // count] for i in range(count)] if len(items) > count else items
