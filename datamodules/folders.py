"""Find image files in folders, and say clearly what is wrong with a layout."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lit_ssl.datamodules.images import FileImages

__all__ = ["class_folders", "describe_folder", "images_by_class", "images_in", "layout_error"]

_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_SHOWN = 6


def describe_folder(folder: Path) -> str:
    """Return what is at a path: its first entries, or those of the nearest existing parent."""
    if folder.is_dir():
        entries = sorted(entry.name + "/" * entry.is_dir() for entry in os.scandir(folder))
        if not entries:
            return f"{folder} is empty"
        more = f", ... ({len(entries)} entries)" if len(entries) > _SHOWN else ""
        return f"{folder} holds {', '.join(entries[:_SHOWN])}{more}"
    if folder.exists():
        return f"{folder} is not a folder"
    parent = next((path for path in folder.absolute().parents if path.is_dir()), Path("/"))
    return f"{folder} does not exist; {describe_folder(parent)}"


def layout_error(data_set: str, folder: Path, expected: str) -> FileNotFoundError:
    """Return the error for a folder that is not laid out as its data set is.

    Args:
        data_set: Name of the data set.
        folder: Folder that was looked at.
        expected: What should be there.
    """
    return FileNotFoundError(
        f"{data_set}: expected {expected}. Found: {describe_folder(folder)}. Set root to the"
        " folder that has this layout."
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
    """Return the image files of a folder: paths below it, with `/`, in sorted order.

    Args:
        folder: Folder to search.
        deep: Whether to search the folders inside it too.
    """
    names = sorted(_walk(str(folder), deep))
    return [name.replace(os.sep, "/") for name in names]


def images_by_class(folder: Path, classes: Sequence[str], data_set: str) -> FileImages:
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
        raise FileNotFoundError(
            f"{data_set}: {folder} has {len(unknown)} class folders that the training images do"
            f" not have: {', '.join(unknown[:_SHOWN])}. Both splits need the same classes."
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
    return FileImages(str(folder), names, np.asarray(labels, dtype=np.int64))


def _walk(folder: str, deep: bool) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.name.lower().endswith(_EXTENSIONS):
                yield entry.name
            elif deep and entry.is_dir():
                yield from (os.path.join(entry.name, name) for name in _walk(entry.path, deep))
