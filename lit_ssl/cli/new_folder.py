"""A folder for what a command writes, in which nothing lies yet."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path

from lit_ssl.errors import InputError

__all__ = ["new_folder"]


def new_folder(given: str | None, usual: str, images: Path | None = None) -> Path:
    """Return the folder that a command writes; it is made with the first file.

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
        folder = Path(given).expanduser()
        if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
            raise InputError(f"--output {given} is there already: give a new or an empty folder")
    inside = Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(images or folder))
    if images is not None and images.is_dir() and inside:
        raise InputError(
            f"{folder} would lie in {images} and count as images of it: give an --output outside of"
            " that folder"
        )
    return folder
