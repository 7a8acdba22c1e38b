"""Which folders below a root are splits, and which are classes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lit_ssl.datamodules.reading.walking import (
    LeftOut,
    find_images,
    holds_image,
    lost_folders,
    visible_folders,
)
from lit_ssl.errors import InputError, listed

__all__ = ["SPLIT_NAMES", "Layout", "split_folder", "split_folders"]

Layout = Literal["auto", "splits", "classes"]

SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


def split_folder(root: Path, split: str) -> Path:
    """Return the folder of a split, which need not exist, in small or capital letters.

    Args:
        root: Folder that holds the splits.
        split: "train", "val" (also ``valid``, ``validation``) or "test".

    Raises:
        InputError: Several folders have such a name, or it is a link that leads nowhere.
    """
    lost = lost_folders(root) if root.is_dir() else []
    if lost := [name for name in lost if name.lower() in SPLIT_NAMES[split]]:
        raise InputError(
            f"{root / lost[0]} is a link that leads nowhere: make its target available, or remove"
            f" the link if there is no {split} split"
        )
    found = [name for name in visible_folders(root) if name.lower() in SPLIT_NAMES[split]]
    if len(found) > 1:
        raise InputError(
            f"{root} has several folders for the {split} split, {' and '.join(found)}: keep one, or"
            " move the other out of it"
        )
    return root / (found[0] if found else split)


def split_folders(root: Path, layout: Layout, data_set: str) -> dict[str, Path]:
    """Return the folders of "train", which need not exist, and of "val" and "test", if they do.

    Args:
        root: Folder of the data set.
        layout: "splits": the folders below it are splits; "classes": they are classes of training
            images; "auto": what they hold tells.
        data_set: Name of the data set, for messages.

    Raises:
        InputError: Several folders have the name of one split, one is a link that leads nowhere, or
            nothing tells what they are.
    """
    if layout == "classes":
        return {"train": root}
    found = {split: split_folder(root, split) for split in SPLIT_NAMES}
    found = {split: folder for split, folder in found.items() if folder.is_dir()}
    if layout == "splits":
        return {"train": root / "train", **found}
    if not found:
        return {"train": root}
    names = {folder.name for folder in found.values()}
    others = [name for name in visible_folders(root) if name not in names]
    others = [name for name in others if holds_image(root / name)]
    if others:
        return _beside_others(root, found, others, data_set)
    return {"train": root / "train", **found}


def _beside_others(
    root: Path, found: dict[str, Path], others: list[str], data_set: str
) -> dict[str, Path]:
    """Tell splits from classes that have the name of a split."""
    beside = f"{listed(others)} beside {'it' if len(found) == 1 else 'them'}"
    names = " and ".join(folder.name for folder in found.values())
    train = found.get("train")
    if train is not None and any(holds_image(train / name) for name in visible_folders(train)):
        rank_zero_warn(
            f"{data_set}: the folders of {root} are taken for splits ({names}), so that the images"
            f" of {beside} are left out. If they are classes, set layout: classes"
        )
        return found
    if list(found) == ["train"] and find_images(found["train"], LeftOut(root), deep=False):
        rank_zero_warn(
            f"{data_set}: {train} is taken for a class, as {beside} hold images too. If it holds"
            " all training images, set layout: splits"
        )
        return {"train": root}
    raise InputError(
        f"{data_set}: {root} has folders that may be splits ({names}), and images in {beside}. Set"
        " layout: classes if they are all classes, or layout: splits if the first are splits"
    )
