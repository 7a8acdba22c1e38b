"""Which files of a folder are videos."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lit_ssl.errors import InputError, InputFileNotFoundError, listed
from lit_ssl.files import describe_folder, text_lines
from lit_ssl.video.suffixes import VIDEO_SUFFIXES

__all__ = ["find_videos", "read_video_list"]


def find_videos(root: str | Path) -> list[str]:
    """Return the videos below a folder, by their suffixes; hidden files do not count.

    Args:
        root: The folder. Links to folders are followed, but not back to a folder above.

    Returns:
        Paths relative to it, with ``/``, sorted.

    Raises:
        InputFileNotFoundError: There are none.
        InputError: A folder cannot be listed.
    """
    root = Path(root)
    found = sorted(_videos(str(root), "", ())) if root.is_dir() else []
    if not found:
        raise InputFileNotFoundError(
            f"no videos ({', '.join(sorted(VIDEO_SUFFIXES))}) in {root}: {describe_folder(root)}"
        )
    return found


def _videos(folder: str, name: str, above: tuple[str, ...]) -> Iterator[str]:
    """Yield the videos of a folder, named ``name``, that was reached through those ``above``."""
    place = os.path.realpath(folder)
    if place in above:  # a link that goes round in a circle
        return
    try:
        with os.scandir(folder) as entries:
            inside = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(
            f"cannot list the folder {folder} ({error.strerror or error}): make it readable, or"
            " take it out of the videos"
        ) from error
    for entry in inside:
        if os.path.isdir(entry.path):
            yield from _videos(entry.path, f"{name}{entry.name}/", (*above, place))
        elif os.path.splitext(entry.name)[1].lower() in VIDEO_SUFFIXES:
            yield f"{name}{entry.name}"


def read_video_list(path: str | Path, root: str | Path) -> tuple[list[str], list[str]]:
    """Read a list of videos: a path a line, relative to a folder; a label may follow, and is cut.

    Args:
        path: Text file.
        root: The folder.

    Returns:
        Those that are there, each once, in order; and those that are not.

    Raises:
        InputFileNotFoundError: There is no such list, or none of its videos is there.
    """
    path, root = Path(path), Path(root)
    if not path.is_file():
        raise InputFileNotFoundError(f"no list of videos at {path}: {describe_folder(path.parent)}")
    found: dict[str, None] = {}
    missing: list[str] = []
    for _, line in text_lines(path):
        name = line.strip()
        without_label = name.rpartition(" ")[0].rstrip()
        there = next((n for n in (name, without_label) if n and os.path.isfile(root / n)), None)
        if there is None:
            missing.append(name)
        else:
            found[Path(there).as_posix()] = None
    if not found:
        raise InputFileNotFoundError(
            f"none of the {len(missing):,} videos of {path} ({listed(missing, 3)}) is in {root}:"
            f" {describe_folder(root)}"
        )
    return list(found), missing
