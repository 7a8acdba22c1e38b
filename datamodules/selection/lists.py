"""Lists of training images: files of names or indices, some of which come with the package."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.errors import InputError, InputFileNotFoundError, listed

__all__ = ["find_listed", "packaged_lists", "read_lines"]

_FOLDER = Path(__file__).parent / "lists"
_ENDING = ".txt.xz"


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
    if Path(name).is_file():
        return Path(name)
    if name in packaged_lists():
        return _FOLDER / f"{name}{_ENDING}"
    raise InputFileNotFoundError(
        f"There is no list file {name}. Give a path from {Path.cwd()}, an absolute one, or the name"
        f" of a packaged list: {', '.join(packaged_lists())}"
    )


def read_lines(path: str) -> list[str]:
    """Return the lines of a text file that are not empty, stripped.

    Args:
        path: Plain text, .gz or .xz; or the name of a packaged list.

    Raises:
        FileNotFoundError: No such file.
    """
    found = _find_list(path)
    openers: dict[str, Callable[..., IO[str]]] = {".gz": gzip.open, ".xz": lzma.open}
    opener = openers.get(found.suffix, open)
    with opener(found, "rt", encoding="utf-8") as file:
        return [line.strip() for line in file if line.strip()]


def find_listed(path: str, rows: Rows) -> np.ndarray:
    """Return which images a list names.

    Args:
        path: As ``Subset.file``.
        rows: The complete official training set.

    Returns:
        int64 indices into ``rows``, ascending, each once.

    Raises:
        ValueError: The file is empty, or names images that do not exist or are ambiguous.
        FileNotFoundError: No such file.
    """
    entries = read_lines(path)
    if not entries:
        raise InputError(f"The list {path} is empty")
    if all(entry.lstrip("-").isdigit() for entry in entries):
        found = {entry: int(entry) for entry in entries if 0 <= int(entry) < len(rows)}
    else:
        found = _find_names(path, entries, rows)
    missing = [entry for entry in entries if entry not in found]
    if missing:
        raise InputError(
            f"{len(missing)} of the {len(entries)} images in {path} are not among the"
            f" {len(rows)} training images: {listed(missing)}. Check that the list belongs to"
            " this data set and that the training folder is complete"
        )
    return np.unique(np.fromiter(found.values(), dtype=np.int64))


def _find_names(path: str, entries: list[str], rows: Rows) -> dict[str, int]:
    if rows.name(0) is None:
        raise InputError(
            f"{path} lists names ({listed(entries)}), but the images of this data set have no file"
            " names: list indices of training images, one a line"
        )
    wanted = {entry: _readings(entry) for entry in entries}
    names = {name for readings in wanted.values() for name in readings}
    positions: dict[str, int] = {}
    several = set()
    for index in range(len(rows)):
        name = rows.name(index) or ""
        for key in {name, name.rpartition("/")[2]} & names:
            if key in positions:
                several.add(key)
            positions[key] = index
    keys = {
        entry: next((name for name in readings if name in positions), None)
        for entry, readings in wanted.items()
    }
    if ambiguous := sorted(several & set(keys.values())):
        raise InputError(
            f"{len(ambiguous)} names in {path} fit several training images:"
            f" {listed(ambiguous)}. List paths below the training folder (class/name) instead"
        )
    return {entry: positions[key] for entry, key in keys.items() if key is not None}


def _readings(entry: str) -> list[str]:
    """Names that a line may mean: as it is, without a label, without its first folder."""
    *rest, last = entry.rsplit(maxsplit=1)
    names = [entry, *rest] if last.lstrip("-").isdigit() else [entry]
    paths = [str(PurePosixPath(name)) for name in names]
    return paths + [path.partition("/")[2] for path in paths if "/" in path]
