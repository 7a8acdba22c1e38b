"""A folder for what a command writes, in which nothing lies yet."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path

from lit_ssl.errors import InputError
from lit_ssl.opening import reading, writing

__all__ = ["made_folder", "new_folder"]


def new_folder(given: str | None, usual: str, images: Path | None = None) -> Path:
    """Return the folder that a command would write, early, before anything is computed.

    Args:
        given: What a person has chosen, new or empty; None: the next ``version_N`` below ``usual``.
        usual: Name of a folder in the working folder.
        images: Folder of images, which would later count what is written among them.

    Raises:
        InputError: It holds something, is no folder, or lies in that of the images.
    """
    if given is None:
        paths = (Path(usual) / f"version_{number}" for number in count())
        folder = next(path for path in paths if not os.path.lexists(path))
    else:
        folder = Path(os.path.expanduser(given))
        with reading(folder):
            is_free = not os.path.lexists(folder) or (folder.is_dir() and not os.listdir(folder))
        if not is_free:
            raise InputError(f"--output {given} is there already: give a new or an empty folder")
    inside = Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(images or folder))
    if images is not None and os.path.isdir(images) and inside:
        raise InputError(
            f"{folder} would lie in {images} and count as images of it: give an --output outside of"
            " that folder"
        )
    return folder


def made_folder(given: str | None, usual: str, images: Path | None = None) -> Path:
    """Make the folder of ``new_folder``, which no other command that runs beside makes, too.

    Args:
        given: See there.
        usual: See there.
        images: See there.

    Raises:
        InputError: As there, or it cannot be made.
    """
    while True:
        folder = new_folder(given, usual, images)
        with writing(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                folder.mkdir()
            except FileExistsError:
                if given is None or any(folder.iterdir()):
                    continue  # another command has just made it; a given one is then refused
            return folder
