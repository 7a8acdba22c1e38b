"""What the three releases of ModelNet40 list: classes, shapes of a split, arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lit_ssl.datamodules.points.clouds import ArrayClouds
from lit_ssl.datamodules.reading.folders import missing_images
from lit_ssl.datamodules.reading.walking import visible_folders
from lit_ssl.errors import InputError, InputImportError, listed
from lit_ssl.files import layout_error, read_text

__all__ = [
    "NAME",
    "listed_shapes",
    "mesh_classes",
    "mesh_files",
    "read_clouds",
    "read_names",
]

NAME = "ModelNet40"
_SMALL, _RATIO = 1 << 26, 50  # bytes that any array may take; by how much one shrinks at most


def read_names(path: Path) -> list[str]:
    """Return the lines of a list, without empty ones.

    Args:
        path: of the list, a text file.

    Raises:
        InputError: It is not there, empty, or has a line twice.
    """
    if not path.is_file():
        raise layout_error(NAME, path.parent, str(path))
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if len(set(names)) != len(names) or not names:
        twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        what = f"has {listed(twice)} more than once" if twice else "is empty"
        raise InputError(f"{path} {what}: unpack the official archive again")
    return names


# Meshes


def mesh_classes(folder: Path) -> list[str]:
    """Return the folders of meshes that have a ``train`` or a ``test`` in them, sorted.

    Args:
        folder: of the release of meshes.

    Raises:
        InputError: There are none.
    """
    found = [
        name
        for name in visible_folders(folder)
        if any((folder / name / split).is_dir() for split in ("train", "test"))
    ]
    if not found:
        raise layout_error(NAME, folder, f"<class>/train/*.off and <class>/test/*.off in {folder}")
    return found


def mesh_files(folder: Path, split: str, classes: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Return the mesh files of a split, sorted within the classes, and their labels.

    Args:
        folder: of the release of meshes.
        split: ``train`` or ``test``.
        classes: their folders, in the order of the labels.

    Returns:
        N paths below ``folder``; int64 ``[N]``.

    Raises:
        InputError: A class has none.
    """
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        inside = folder / name / split
        found = sorted(p.name for p in inside.iterdir()) if inside.is_dir() else []
        meshes = [file for file in found if file.lower().endswith(".off") and file[0] != "."]
        if not meshes:
            raise layout_error(NAME, inside, f"meshes of the class {name}, *.off, in {inside}")
        files += [f"{name}/{split}/{file}" for file in meshes]
        labels += [label] * len(meshes)
    return files, np.array(labels, dtype=np.int64)


# Text files of resampled points


def listed_shapes(folder: Path, split: str, classes: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Return the files of the shapes that the list of a split names, in its order, and labels.

    Args:
        folder: of the release of text files.
        split: ``train`` or ``test``.
        classes: their names, in the order of the labels.

    Returns:
        N paths below ``folder``; int64 ``[N]``.

    Raises:
        InputError: The list names no class, or a file that is not there.
    """
    path = folder / f"modelnet40_{split}.txt"
    shapes = read_names(path)
    numbers = {name: number for number, name in enumerate(classes)}
    owners = [shape.rpartition("_")[0] for shape in shapes]  # night_stand_0001
    if unknown := [s for s, owner in zip(shapes, owners, strict=True) if owner not in numbers]:
        raise InputError(
            f"{path} names {len(unknown):,} shapes of unknown classes ({listed(unknown, 3)}):"
            " expected lines of <class>_<number>, with the classes of modelnet40_shape_names.txt"
        )
    other = folder / f"modelnet40_{'test' if split == 'train' else 'train'}.txt"
    if other.is_file() and (both := sorted(set(shapes) & set(read_names(other)))):
        raise InputError(
            f"{path} and {other.name} both name {len(both):,} shapes ({listed(both, 3)}): a shape"
            " is trained on or tested on; unpack the official archive again"
        )
    files = [f"{owner}/{shape}.txt" for owner, shape in zip(owners, shapes, strict=True)]
    missing_images(folder, files, path, NAME, "shapes")
    return files, np.array([numbers[owner] for owner in owners], dtype=np.int64)


# HDF5


def read_clouds(folder: Path, split: str, num_classes: int) -> tuple[ArrayClouds, np.ndarray]:
    """Return the clouds of a split in the order of its files, and their labels.

    Args:
        folder: of the release of HDF5 files.
        split: ``train`` or ``test``.
        num_classes: how many; labels beyond are refused.

    Returns:
        N clouds; int64 ``[N]``.

    Raises:
        InputError: A file is not there or holds something else.
        ImportError: h5py is not installed.
    """
    listing = folder / f"{split}_files.txt"
    # The list has data/modelnet40_ply_hdf5_2048/ before each name.
    files = [folder / name.replace("\\", "/").rpartition("/")[2] for name in read_names(listing)]
    parts = [_read_hdf5(file, num_classes) for file in files]
    points = np.concatenate([data for data, _ in parts])
    per_cloud = {data.shape[1] for data, _ in parts}
    if len(per_cloud) > 1:
        raise InputError(f"the files of {listing} have clouds of {sorted(per_cloud)} points")
    starts = np.arange(len(points) + 1, dtype=np.int64) * per_cloud.pop()
    clouds = ArrayClouds(points.reshape(-1, 3), starts, str(folder))
    return clouds, np.concatenate([labels for _, labels in parts])


def _read_hdf5(path: Path, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        import h5py
    except ImportError as error:
        raise InputImportError(
            f"{path} needs the package h5py: pip install 'lit-ssl[points]'; or read another release"
            " of ModelNet40 (layout)"
        ) from error
    if not path.is_file():
        raise layout_error(NAME, path.parent, str(path))
    try:
        with h5py.File(path, "r") as file:
            most = max(_SMALL, _RATIO * path.stat().st_size)
            data, labels = (_array(h5py, file, name, most) for name in ("data", "label"))
    except (OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise InputError(
            f"{path} is no HDF5 file of {NAME} ({error}): expected arrays data [N, 2048, 3] and"
            " label [N, 1]. Unpack the official archive again"
        ) from error
    labels = labels.reshape(-1)
    fits = data.ndim == 3 and data.shape[2] == 3 and len(data) == len(labels) and data.size > 0
    if not fits or data.dtype.kind != "f" or labels.dtype.kind not in "iu":
        raise InputError(
            f"{path}: expected data, float [N, 2048, 3], and label, whole numbers [N, 1], found"
            f" {data.dtype} {list(data.shape)} and {labels.dtype} {list(labels.shape)}"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise InputError(
            f"{path} has labels from {labels.min()} to {labels.max()}, but shape_names.txt has"
            f" {num_classes} names"
        )
    with np.errstate(over="ignore"):
        points = data.astype(np.float32)
    if not np.isfinite(points).all():
        raise InputError(
            f"{path} has points that are no finite numbers in float32: unpack the official archive"
            " again"
        )
    return points, labels.astype(np.int64)


def _array(h5py: Any, file: Any, name: str, most: int) -> np.ndarray:
    """Return an array that lies in this file itself: no links, no data of other files.

    What a file does not store is read as zeros, as many as it likes: at most ``most`` bytes.
    """
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise KeyError(f"no array {name} in it")
    item = file[name]
    if not isinstance(item, h5py.Dataset) or item.is_virtual or item.external:
        raise KeyError(f"{name} is no array in it")
    if item.nbytes > most:
        raise ValueError(f"{name} would take {item.nbytes:,} bytes, many times its file")
    return np.asarray(item[()])
