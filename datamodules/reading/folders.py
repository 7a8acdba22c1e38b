"""Find image files in folders, and say clearly what is wrong with a layout."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lit_ssl.datamodules.reading.images import FileImages
from lit_ssl.datamodules.reading.listing import FolderListing
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.reading.walking import (
    LeftOut,
    find_images,
    holds_image,
    lost_folders,
    visible_folders,
)
from lit_ssl.errors import InputError, InputFileNotFoundError, listed, shortened
from lit_ssl.files import layout_error

__all__ = [
    "class_folders",
    "find_file",
    "images_by_class",
    "images_in",
    "missing_images",
    "posix_name",
]


def find_file(root: Path, names: Sequence[str], data_set: str, folders: Sequence[str] = ()) -> Path:
    """Return the first of some files or folders that is there.

    Args:
        root: Folder to look in.
        names: Names to look for, the best first.
        data_set: Name of the data set, for messages.
        folders: Folders inside ``root`` to look in after it.

    Raises:
        FileNotFoundError: None is there.
    """
    for folder in (root, *(root / inside for inside in folders)):
        for name in names:
            if (folder / name).exists():
                return folder / name
    inside = f" (or in its folder {' or '.join(folders)})" if folders else ""
    raise layout_error(data_set, root, f"{' or '.join(names)} in {root}{inside}")


def posix_name(folder: Path, name: str) -> str:
    """Return a path below a folder as a table names it, with ``/`` for Windows' backslashes.

    Args:
        folder: below which the name counts.
        name: as the table has it; where such a file is there, it stays as it is.
    """
    if "\\" not in name or os.path.exists(folder / name):
        return name
    return name.replace("\\", "/")


def missing_images(
    folder: Path, names: Sequence[str], source: Path, data_set: str, inputs: str = "images"
) -> None:
    """Check that image files are there, by listing their folders.

    Args:
        folder: Where they should be.
        names: Paths below it, with ``/``.
        source: The file that names them.
        data_set: Name of the data set, for messages.
        inputs: What the files are.

    Raises:
        FileNotFoundError: Some are not; it says which and how many.
    """
    listing = FolderListing(folder)
    missing = [name for name in names if name not in listing]
    if names and len(missing) == len(names):
        raise layout_error(
            data_set, folder, f"the {inputs} that {source} names, such as {shortened(names[0])}"
        )
    if missing:
        raise InputFileNotFoundError(
            f"{data_set}: {len(missing):,} of the {len(names):,} {inputs} that {source} names are"
            f" not in {folder}: {listed(missing)}. Complete the folder, or take their rows out of"
            " the file"
        )


def class_folders(folder: Path, allow_empty: bool = False) -> list[str]:
    """Return the sorted names of the class folders in a folder; [] where images lie in it alone.

    Hidden folders, and those that operating systems make, are none.

    Args:
        folder: Folder of a split.
        allow_empty: Keep folders without an image, as classes without images.

    Raises:
        InputError: Some hold no image, and that is not allowed; or a link leads nowhere.
    """
    if not folder.is_dir():
        return []
    names = visible_folders(folder)
    if lost := lost_folders(folder):
        raise InputError(
            f"{len(lost):,} class folders in {folder} are links that lead nowhere:"
            f" {listed(lost)}. Make their targets available, or remove them"
        )
    empty = [name for name in names if not holds_image(folder / name)]
    if len(empty) == len(names):  # none is a class where the images lie beside them
        return [] if find_images(folder, LeftOut(folder), deep=False) else names
    if empty and not allow_empty:
        inside = LeftOut(folder)
        for name in empty:
            find_images(folder / name, inside)
        raise InputError(
            f"{len(empty):,} of the {len(names):,} class folders in {folder} hold no image:"
            f" {listed(empty)}{inside.among()}. Complete them, or remove them if they are no"
            " classes; allow_empty: true keeps them as classes without images"
        )
    return names


def images_by_class(folder: Path, classes: Sequence[str], data_set: str) -> Rows:
    """Return the images of a split with one folder per class, and warn of what is left out.

    Args:
        folder: Folder of the split.
        classes: Names of the classes, in the order of the labels.
        data_set: Name of the data set, for messages.

    Raises:
        FileNotFoundError: No images, or images of a class that the training split does not have.
    """
    left_out = LeftOut(folder)
    unknown = [name for name in visible_folders(folder, left_out) if name not in set(classes)]
    unknown = [name for name in unknown if holds_image(folder / name)]
    if unknown:
        raise InputFileNotFoundError(
            f"{data_set}: {folder} has {len(unknown)} class folders that the training images do"
            f" not have: {listed(unknown)}. Both splits need the same classes"
        )
    names: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        if (folder / name).is_dir():
            found = find_images(folder / name, left_out)
            names += (f"{name}/{file}" for file in found)
            labels += [label] * len(found)
    if not names:
        expected = f"image files in {folder}/<class>/{left_out.among()}"
        raise layout_error(data_set, folder, expected)
    left_out.add_outside(find_images(folder, left_out, deep=False))
    left_out.warn()
    return Rows(FileImages(folder, names), {"label": np.asarray(labels)})


def images_in(folder: Path, deep: bool = True) -> list[str]:
    """Return the image files of a folder, and warn of what is left out.

    Args:
        folder: Folder to search.
        deep: Whether to search the folders inside it too.

    Returns:
        Paths below it, with ``/``, in sorted order.
    """
    left_out = LeftOut(folder)
    names = find_images(folder, left_out, deep)
    left_out.warn()
    return names
