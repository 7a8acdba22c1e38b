"""Find image files in folders, and say clearly what is wrong with a layout."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lit_ssl.datamodules.reading.images import FileImages
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.errors import InputFileNotFoundError, listed
from lit_ssl.files import layout_error

__all__ = [
    "class_folders",
    "find_file",
    "images_by_class",
    "images_in",
    "missing_images",
]

_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


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


def missing_images(folder: Path, names: Sequence[str], source: Path, data_set: str) -> None:
    """Check that image files are there, by listing their folders.

    Args:
        folder: Where they should be.
        names: Paths below it, with ``/``.
        source: The file that names them.
        data_set: Name of the data set, for messages.

    Raises:
        FileNotFoundError: Some are not; it says which and how many.
    """
    by_parent: dict[str, set[str]] = {}
    missing = []
    for name in names:
        parent, _, file = name.rpartition("/")
        if parent not in by_parent:
            inside = folder / parent
            by_parent[parent] = {p.name for p in inside.iterdir()} if inside.is_dir() else set()
        if file not in by_parent[parent]:
            missing.append(name)
    if len(missing) == len(names):
        raise layout_error(data_set, folder, f"the images that {source} names, such as {names[0]}")
    if missing:
        raise InputFileNotFoundError(
            f"{data_set}: {len(missing):,} of the {len(names):,} images that {source} names are not"
            f" in {folder}: {listed(missing)}. Complete the folder, or take their rows out of the"
            " file"
        )


def class_folders(folder: Path) -> list[str]:
    """Return the sorted names of the folders inside a folder, except hidden ones; [] without it."""
    if not folder.is_dir():
        return []
    return sorted(
        entry.name
        for entry in os.scandir(folder)
        if entry.is_dir() and not entry.name.startswith(".")
    )


def images_in(folder: Path, deep: bool = True) -> list[str]:
    """Return the image files of a folder: paths below it, with ``/``, in sorted order.

    Args:
        folder: Folder to search.
        deep: Whether to search the folders inside it too.
    """
    names = sorted(_walk(str(folder), deep))
    return [name.replace(os.sep, "/") for name in names]


def images_by_class(folder: Path, classes: Sequence[str], data_set: str) -> Rows:
    """Return the images of a split with one folder per class.

    Args:
        folder: Folder of the split.
        classes: Names of the classes, in the order of the labels.
        data_set: Name of the data set, for messages.

    Raises:
        FileNotFoundError: No images, or a class folder that the training split does not have.
    """
    unknown = sorted(set(class_folders(folder)) - set(classes))
    if unknown:
        raise InputFileNotFoundError(
            f"{data_set}: {folder} has {len(unknown)} class folders that the training images do"
            f" not have: {listed(unknown)}. Both splits need the same classes"
        )
    names: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        if (folder / name).is_dir():
            found = images_in(folder / name)
            names += (f"{name}/{file}" for file in found)
            labels += [label] * len(found)
    if not names:
        raise layout_error(data_set, folder, f"image files in {folder}/<class>/")
    return Rows(FileImages(folder, names), {"label": np.asarray(labels)})


def _walk(folder: str, deep: bool) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.name.lower().endswith(_EXTENSIONS):
                yield entry.name
            elif deep and entry.is_dir():
                yield from (os.path.join(entry.name, name) for name in _walk(entry.path, deep))
