"""Any folder of videos."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lit_ssl.datamodules.reading.layout import SPLIT_NAMES, Layout
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.video.files_module import VideoFilesModule
from lit_ssl.errors import InputError, check_choice, listed

__all__ = ["VideoFolderDataModule"]

_NAME = "Video folder"
_ONE_CLASS = "videos"


class VideoFolderDataModule(VideoFilesModule):
    """Your own videos, with or without classes: .mp4, .avi, .mov, .mkv, .webm and others.

    The training videos are in ``root/train``, or in ``root`` itself if there is no such folder;
    validation and test videos in ``root/val`` (or ``valid``, ``validation``) and ``root/test``,
    both optional; capital letters do not matter. Each folder inside is a class (searched to any
    depth). Training videos without folders have no classes: they are one class, with label 0.

    What is left out (files of other formats, hidden ones, broken links) is told in a warning.

    Args:
        root: The folder.
        labelled: False ignores the folders: all videos are of one class.
        layout: Whether the folders in ``root`` are "splits" or "classes" of training videos;
            "auto" goes by their names.
        val_size: Number of training videos held out for validation. 0 uses ``root/val``, else
            ``root/test``, else there is no validation.
        kwargs: Arguments of ``VideoFilesModule`` and ``VideoDataModule``.
    """

    def __init__(
        self,
        *,
        root: str,
        labelled: bool = True,
        layout: Layout = "auto",
        val_size: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(root=root, val_size=val_size, **kwargs)
        check_choice("layout", layout, ("auto", "splits", "classes"))
        self.labelled = labelled
        self.layout = layout

    @cached_property
    def class_names(self) -> Sequence[str]:
        """Names of the class folders, sorted; one name if the videos have no classes."""
        if not self._has_classes:
            return [_ONE_CLASS]
        names = self._classes_of("train")
        folder = self._folders["train"]
        if empty := sorted(set(self.store.folders(folder)) - set(names)):
            raise InputError(
                f"{len(empty):,} class folders in {self.root / folder} hold no video:"
                f" {listed(empty)}. Complete them, or remove them if they are no classes"
            )
        return names

    @property
    def _has_classes(self) -> bool:
        return self.labelled and bool(self._classes_of("train"))

    def load_rows(self, split: Split) -> Rows | None:
        """Return the videos of a split, None if it has no folder."""
        if split not in self._folders:
            return None
        folder, names = self._folders[split], self._names[split]
        self.store.warn_left_out()
        classes = self.class_names
        if not self._has_classes:
            return self.rows_of(names, [0] * len(names), folder)
        if not self._classes_of(split):
            rank_zero_warn(
                f"{self.root / folder} has no class folders: its videos have the label -1"
            )
            return self.rows_of(names, [-1] * len(names), folder)
        number = {name: label for label, name in enumerate(classes)}
        inside = [name for name in names if _class(folder, name)]
        if len(inside) < len(names):
            outside = sorted(set(names) - set(inside))
            rank_zero_warn(
                f"left out of {self.root / folder}: {len(outside):,} videos outside of the class"
                f" folders ({listed(outside, 3)})"
            )
        if unknown := sorted(set(self._classes_of(split)) - set(number)):
            raise InputError(
                f"{_NAME}: {self.root / folder} has {len(unknown)} class folders that the training"
                f" videos do not have: {listed(unknown)}. Both splits need the same classes"
            )
        return self.rows_of(inside, [number[_class(folder, name)] for name in inside], folder)

    def _classes_of(self, split: Split) -> list[str]:
        """Sorted names of the class folders of a split; [] where it has none."""
        folder = self._folders[split]
        return sorted({_class(folder, name) for name in self._names[split]} - {""})

    @cached_property
    def _folders(self) -> dict[Split, str]:
        """The folder of each split below ``root``; "" is ``root`` itself."""
        tops = {name.partition("/")[0] for name in self._all if "/" in name}
        if self.layout == "classes":
            return {"train": ""}
        found: dict[Split, str] = {}
        splits: tuple[Split, ...] = ("train", "val", "test")
        for split in splits:
            named = sorted(name for name in tops if name.lower() in SPLIT_NAMES[split])
            if len(named) > 1:
                raise InputError(
                    f"{self.root} has several folders for the {split} split,"
                    f" {' and '.join(named)}: keep one, or move the other out of it"
                )
            if named:
                found[split] = named[0]
        if not found and self.layout == "auto":
            return {"train": ""}
        others = sorted({name.partition("/")[0] for name in self._all} - set(found.values()))
        if others and self.layout == "auto":
            raise InputError(
                f"{_NAME}: {self.root} has folders that may be splits"
                f" ({listed(list(found.values()))}), and videos in {listed(others)} too. Set"
                " layout: classes if all are classes, layout: splits to leave these out"
            )
        return {"train": "train", **found}

    @cached_property
    def _all(self) -> list[str]:
        names = self.store.names()
        if not names:
            raise self.missing(_NAME, f"videos (.mp4, .avi, .mov, …) in {self.root}")
        return names

    @cached_property
    def _names(self) -> dict[Split, list[str]]:
        """The names of the videos of each split."""
        names = {
            split: [name for name in self._all if not folder or name.startswith(f"{folder}/")]
            for split, folder in self._folders.items()
        }
        if not names["train"]:
            where = self.root / self._folders["train"]
            raise self.missing(
                _NAME, f"training videos in {where}/<class>/, or in {where} where they have none"
            )
        return names


def _class(folder: str, name: str) -> str:
    """The folder of a class, just below that of its split, that a video is in; "" for none."""
    below = name[len(folder) + 1 :] if folder else name
    return below.partition("/")[0] if "/" in below else ""
