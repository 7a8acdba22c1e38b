"""What is in a folder of images, and what ``ImageFolderDataModule`` makes of it."""

from __future__ import annotations

import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lit_ssl.datamodules.images.image_folder import ImageFolderDataModule
from lit_ssl.datamodules.reading.examined import ImageFacts, examine_files
from lit_ssl.datamodules.reading.found import describe_rows
from lit_ssl.datamodules.reading.layout import Layout
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.reading.walking import LeftOut, find_images
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.errors import InputError
from lit_ssl.files import layout_error

__all__ = ["FolderSurvey", "UsedSplit", "survey_folder"]

_NAME = "Image folder"
_SPLITS: tuple[Split, ...] = ("train", "val", "test")


class UsedSplit(NamedTuple):
    """What the data module uses for a purpose.

    Attributes:
        folder: Folder of its images, relative to the root.
        text: What there is, in one line.
        names: Paths of its images below the root.
        labels: int64 ``[N]``, −1 where unknown.
    """

    folder: str
    text: str
    names: list[str]
    labels: np.ndarray


class FolderSurvey:
    """All image files below a folder, what is in each, and which of them are used for what.

    Args:
        root: The folder.
        names: Paths of the image files below it, with ``/``, sorted.
        facts: What is in each.
        left_out: What lies there beside them, by reason.
        splits: What is used for "train", "val" and "test"; without those for which there is none.
        class_names: Names of the classes; empty without.
        notes: What the data module warns of.
        problem: What the data module refuses the folder for; empty where it does not.
    """

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        facts: Sequence[ImageFacts],
        left_out: dict[str, list[str]],
        splits: dict[Split, UsedSplit],
        class_names: Sequence[str],
        notes: Sequence[str],
        problem: str,
    ) -> None:
        self.root = root
        self.names = names
        self.facts = facts
        self.left_out = left_out
        self.splits = splits
        self.class_names = class_names
        self.notes = notes
        self.problem = problem

    @cached_property
    def unused(self) -> list[str]:
        """Image files that no split has."""
        used = {name for split in self.splits.values() for name in split.names}
        return [name for name in self.names if name not in used]

    @cached_property
    def unreadable(self) -> dict[str, str]:
        """Files that cannot be read, and why."""
        pairs = zip(self.names, self.facts, strict=True)
        return {name: facts.problem for name, facts in pairs if facts.problem}

    @cached_property
    def readable(self) -> list[ImageFacts]:
        """What is in the files that can be read."""
        return [facts for facts in self.facts if not facts.problem]

    @cached_property
    def duplicates(self) -> list[list[str]]:
        """Groups of files with the same bytes."""
        groups = defaultdict(list)
        for name, facts in zip(self.names, self.facts, strict=True):
            if facts.size:
                groups[facts.digest].append(name)
        return [group for group in groups.values() if len(group) > 1]

    @cached_property
    def shared(self) -> list[list[str]]:
        """Groups of files with the same bytes of which training has some, and another split too."""
        train = set(self.splits["train"].names) if "train" in self.splits else set()
        others = {name for split in self.splits.values() for name in split.names} - train
        return [
            group
            for group in self.duplicates
            if not train.isdisjoint(group) and not others.isdisjoint(group)
        ]

    @cached_property
    def contradictions(self) -> list[list[str]]:
        """Groups of files with the same bytes that lie in several classes."""
        label_of = {
            name: int(label)
            for split in self.splits.values()
            for name, label in zip(split.names, split.labels, strict=True)
        }
        return [g for g in self.duplicates if len({label_of[n] for n in g if n in label_of}) > 1]

    def per_class(self, split: Split) -> np.ndarray:
        """Return the number of images of each class, int64 ``[classes]``.

        Args:
            split: "train", "val" or "test".
        """
        if split not in self.splits:
            return np.zeros(len(self.class_names), dtype=np.int64)
        labels = self.splits[split].labels
        return np.bincount(labels[labels >= 0], minlength=len(self.class_names))

    def counts(self, field: str) -> dict[str, int]:
        """Count the readable images by a field of their facts, the most frequent first.

        Args:
            field: "format" or "mode".
        """
        found = Counter(getattr(facts, field) for facts in self.readable)
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    def sides(self) -> np.ndarray:
        """Return width and height of the readable images: int64 ``[N, 2]``."""
        sides = [(facts.width, facts.height) for facts in self.readable]
        return np.array(sides, dtype=np.int64).reshape(-1, 2)


def survey_folder(
    root: Path,
    layout: Layout = "auto",
    workers: int = 1,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> FolderSurvey:
    """Read all image files below a folder, wholly, and find out how they would be used.

    Args:
        root: The folder.
        layout: As of [`ImageFolderDataModule`][lit_ssl.datamodules.ImageFolderDataModule].
        workers: Processes that read, at least 1.
        progress: Called with how many files are done, of how many.

    Raises:
        InputError: There is no such folder, it has no image files, or it cannot be listed.
    """
    if not os.path.isdir(root):
        raise layout_error(_NAME, root, f"a folder with images at {root}")
    left_out = LeftOut(root)
    names = find_images(root, left_out)
    if not names:
        raise layout_error(_NAME, root, f"image files in {root}{left_out.among()}")
    notes, problem = [], ""
    splits: dict[Split, UsedSplit] = {}
    class_names: Sequence[str] = ()
    data = ImageFolderDataModule(root=str(root), layout=layout, batch_size=1, num_workers=0)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            class_names = data.class_names
            for split in _SPLITS:
                if rows := data.rows(split):
                    splits[split] = _used(root, rows, class_names)
        except InputError as error:
            problem = str(error)
    notes = list(dict.fromkeys(str(warning.message) for warning in said))
    facts = []
    for facts_of_one in examine_files(str(root), names, workers):
        facts.append(facts_of_one)
        progress(len(facts), len(names))
    return FolderSurvey(
        root, names, facts, left_out.by_reason(), splits, class_names, notes, problem
    )


def _used(root: Path, rows: Rows, class_names: Sequence[str]) -> UsedSplit:
    folder = os.path.relpath(getattr(rows.source, "folder", root), root).replace(os.sep, "/")
    prefix = "" if folder == "." else f"{folder}/"
    names = [f"{prefix}{rows.name(row)}" for row in range(len(rows))]
    text = describe_rows(rows, class_names, "images", len(rows)) or ""
    return UsedSplit(folder, text, names, rows.labels)
