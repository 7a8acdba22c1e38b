"""Lists of training images: files of names or indices, some of which come with the package."""

from __future__ import annotations

import gzip
import lzma
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.errors import InputError, InputFileNotFoundError, listed
from lit_ssl.files import read_text
from lit_ssl.numerals import whole_number

__all__ = ["find_listed", "packaged_lists", "read_lines"]

_FOLDER = Path(__file__).parent / "lists"
_ENDING = ".txt.xz"
_TRAINING = ("train", "training")


def packaged_lists() -> list[str]:
    """Return the names of the packaged lists, sorted, such as ``paws/cifar10_4000_split152``."""
    paths = _FOLDER.rglob(f"*{_ENDING}")
    return sorted(path.relative_to(_FOLDER).as_posix().removesuffix(_ENDING) for path in paths)


def _find_list(name: str) -> Path:
    """Return the file of a list.

    Args:
        name: Path of a file, or the name of a packaged list; a file goes before a packaged list.

    Raises:
        FileNotFoundError: Neither is there.
    """
    if (path := Path(name).expanduser()).is_file():
        return path
    if name in packaged_lists():
        return _FOLDER / f"{name}{_ENDING}"
    raise InputFileNotFoundError(
        f"There is no list file {name}. Give a path from {Path.cwd()}, an absolute one, or the name"
        f" of a packaged list: {', '.join(packaged_lists())}"
    )


def read_lines(path: str) -> list[str]:
    """Return the lines of a text file that are not empty, stripped.

    Args:
        path: Plain text, .gz or .xz, in UTF-8 or UTF-16; or the name of a packaged list.

    Raises:
        FileNotFoundError: No such file.
        InputError: It is no text.
    """
    found = _find_list(path)
    openers: dict[str, Callable[[Any], Any]] = {".gz": gzip.open, ".xz": lzma.open}
    lines = read_text(found, openers.get(found.suffix)).splitlines()
    return [line.strip() for line in lines if line.strip()]


def find_listed(path: str, rows: Rows, inputs: str = "images") -> np.ndarray:
    """Return which rows a list names.

    Args:
        path: As ``Subset.file``.
        rows: The complete official training set.
        inputs: What rows are, for messages.

    Returns:
        int64 indices into ``rows``, ascending, each once.

    Raises:
        ValueError: The file is empty, or names rows that do not exist or are ambiguous.
        FileNotFoundError: No such file.
    """
    entries = read_lines(path)
    if not entries:
        raise InputError(f"The list {path} is empty")
    indices = {entry: whole_number(entry) for entry in entries}
    if None not in indices.values():
        found = {name: n for name, n in indices.items() if n is not None and 0 <= n < len(rows)}
    else:
        found = _find_names(path, entries, rows, inputs)
    missing = [entry for entry in entries if entry not in found]
    if missing:
        raise InputError(
            f"{len(missing)} of the {len(entries)} {inputs} in {path} are not among the"
            f" {len(rows)} training {inputs}: {listed(missing)}. Check that the list belongs to"
            " this data set and that the training folder is complete; a name with a folder counts"
            " as a whole path below the training folder"
        )
    return np.unique(np.fromiter(found.values(), dtype=np.int64))


def _find_names(path: str, entries: list[str], rows: Rows, inputs: str) -> dict[str, int]:
    """Positions of names: whole paths below the folder, or bare names of files in any folder."""
    if rows.name(0) is None:
        raise InputError(
            f"{path} lists names ({listed(entries)}), but the {inputs} of this data set have no"
            f" file names: list indices of training {inputs}, one a line"
        )
    folder = getattr(rows.source, "folder", None)
    wanted = {entry: _readings(entry, folder) for entry in entries}
    names = {name for readings in wanted.values() for name in readings}
    bare = {name for entry in entries for name in _bare(entry)}
    whole: dict[str, int] = {}
    by_file: dict[str, list[int]] = {}
    for index in range(len(rows)):
        name = rows.name(index) or ""
        if name in names:
            whole[name] = index
        file = name.rpartition("/")[2]
        if file in bare:
            by_file.setdefault(file, []).append(index)
    found: dict[str, int] = {}
    ambiguous = []
    for entry, readings in wanted.items():
        matches = [whole[name] for name in readings if name in whole]
        if not matches:
            matches = next((by_file[name] for name in _bare(entry) if name in by_file), [])
            if len(matches) > 1:
                ambiguous.append(entry)
        if matches:
            found[entry] = matches[0]
    if ambiguous:
        raise InputError(
            f"{len(ambiguous)} names in {path} fit several training {inputs}:"
            f" {listed(sorted(ambiguous))}. List paths below the training folder (class/name)"
            " instead"
        )
    return found


def _readings(entry: str, folder: str | None) -> list[str]:
    """Names that a line may mean, the likeliest first.

    As it is and without a label after it; then with ``/`` for the backslashes of Windows; then what
    follows the training folder in it: its own name or, before a folder of a class, another usual
    one.
    """
    names = _with_and_without_label(entry)
    names += [name.replace("\\", "/") for name in names if "\\" in name]
    paths = list(dict.fromkeys(str(PurePosixPath(name)) for name in names))
    own = None if folder is None else Path(folder).absolute().name
    return paths + [rest for path in paths for rest in _below_training_folder(path, own)]


def _bare(entry: str) -> list[str]:
    """Names of a file in any folder that a line may mean; none where it says a folder.

    What follows a backslash is no such name, though a file may have one in its name.
    """
    return [name for name in _with_and_without_label(entry) if "/" not in name]


def _with_and_without_label(entry: str) -> list[str]:
    labelled = re.fullmatch(r"(.*\S)[\s,;]+-?[0-9]+", entry)
    return [entry, labelled[1]] if labelled else [entry]


def _below_training_folder(path: str, own: str | None) -> Iterator[str]:
    parts = path.split("/")
    for place, part in enumerate(parts[:-1], start=1):
        rest = "/".join(parts[place:])
        if part == own or (part.lower() in _TRAINING and "/" in rest):
            yield rest
