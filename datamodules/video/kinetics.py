"""Kinetics-400, -600 and -700 in their usual layouts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.video.files_module import VideoFilesModule
from lit_ssl.datamodules.video.kinetics_lists import (
    Entry,
    find_list,
    is_table,
    read_list,
    read_table,
    split_names,
)
from lit_ssl.datamodules.video.matching import (
    Matched,
    by_stem,
    check_found,
    check_fraction,
    matched,
    missing_list,
)
from lit_ssl.errors import InputError, check_choice, listed

__all__ = ["KineticsDataModule"]

Layout = Literal["auto", "table", "list", "folders"]


class KineticsDataModule(VideoFilesModule):
    """Kinetics (arXiv 1705.06950, 1808.01340, 1907.06987): clips of 10 s, one action each.

    Videos lie in a folder for each split: ``train``, ``val`` (or ``validate``, ``validation``) and
    ``test``. What they are is told by one of these:

    - "table": the official table of the split (``train.csv``, ``validate.csv`` …): files
      ``<split>/<id>_<start>_<end>.mp4``, or the same in folders below; classes are sorted by name;
    - "list": lines ``<path> <number of the class>`` (``train.txt``, ``train.csv``,
      ``kinetics400_train_list_videos.txt`` …), with paths below ``root`` or below the folder of the
      split;
    - "folders": ``<split>/<class>/*.mp4``; classes are the sorted folders of ``train``.

    No copy of Kinetics is complete, since videos vanish from the web: a line says how many of those
    listed are there. Papers report the validation videos; they stand in for the test split where it
    is not there. Test videos have the label −1 where their table has none.

    Args:
        root: Folder that holds the splits.
        version: 400, 600 or 700, the number of classes.
        annotation_dir: Folder of tables or lists; None: ``root``, or ``annotations`` in it.
        layout: Which of the three; "auto" takes a table or a list where there is one of the
            training split, else folders.
        min_found_fraction: Share of the listed videos of a split that must be there.
        kwargs: Arguments of ``VideoFilesModule`` and ``VideoDataModule``.
    """

    reported: ClassVar[Split] = "val"

    def __init__(
        self,
        *,
        root: str,
        version: Literal[400, 600, 700] = 600,
        annotation_dir: str | None = None,
        layout: Layout = "auto",
        min_found_fraction: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(root=root, **kwargs)
        check_choice("version", version, (400, 600, 700))
        check_choice("layout", layout, ("auto", "table", "list", "folders"))
        check_fraction(min_found_fraction)
        self.version = version
        self.data_set = f"Kinetics-{version}"
        self.annotation_dir = None if annotation_dir is None else Path(annotation_dir).expanduser()
        self.layout = layout
        self.min_found_fraction = min_found_fraction

    @cached_property
    def class_names(self) -> Sequence[str]:
        """Names of the classes in the order of the labels; of lists of numbers, these numbers."""
        if self._kind == "list":
            return [str(number) for number in range(self.version)]
        if self._kind == "table":
            labels = {entry.label for entry in self._read("train")}
            if None in labels:
                raise InputError(
                    f"{self.data_set}: {self._list('train')} has videos without a label: complete"
                    " the column label"
                )
            names = sorted(map(str, labels))
        else:
            folder = self._folder("train")
            names = sorted({_class(folder, name) for name in self.store.names(folder)} - {""})
            if not names:
                raise self.missing(self.data_set, self._expected("train"))
        if len(names) != self.version:
            rank_zero_warn(
                f"{self.data_set} has {self.version} classes; {self.root} has {len(names)}"
            )
        return names

    def load_rows(self, split: Split) -> Rows | None:
        """Return the videos of a split; None for test videos that are not there."""
        folder = self._folder(split)
        names = self.store.names(folder)
        there = bool(names) or (self._kind == "list" and self._list(split) is not None)
        if not there and split != "train":
            rank_zero_info(f"{self.data_set}: there are no {split} videos in {self.root / folder}")
            return None
        if not there:
            raise self.missing(self.data_set, self._expected(split))
        if self._kind == "folders":
            return self._of_folders(split, folder, names)
        entries = self._read(split)
        listed_in = f"{self._list(split)}"
        if self._kind == "table":
            found = self._of_table(entries, names, listed_in)
        else:
            found = self._of_list(entries, folder, listed_in)
        where = str(self.root / folder if self.cache is None else self.cache)
        check_found(found, self.min_found_fraction, f"{self.data_set}, {split}", where, listed_in)
        return self.rows_of(found.names, found.labels)

    def _of_folders(self, split: Split, folder: str, names: Sequence[str]) -> Rows:
        number = {name: label for label, name in enumerate(self.class_names)}
        inside = [name for name in names if _class(folder, name)]
        unknown = sorted({_class(folder, name) for name in inside} - set(number))
        if unknown:
            raise InputError(
                f"{self.data_set}: {self.root / folder} has {len(unknown)} class folders that the"
                f" training videos do not have: {listed(unknown)}. All splits need the same classes"
            )
        if not inside:
            raise self.missing(self.data_set, self._expected(split))
        self.store.warn_left_out()
        return self.rows_of(inside, [number[_class(folder, name)] for name in inside], folder)

    def _of_table(self, entries: Sequence[Entry], names: Sequence[str], source: str) -> Matched:
        number: dict[str | None, int] = {name: label for label, name in enumerate(self.class_names)}
        number[None] = -1
        unknown = sorted({str(entry.label) for entry in entries if entry.label not in number})
        if unknown:
            raise InputError(
                f"{self.data_set}: {source} has {len(unknown)} classes that the training table does"
                f" not have: {listed(unknown)}. Are both tables of {self.data_set}?"
            )
        pairs = [(entry.name, number[entry.label]) for entry in entries]
        return matched(pairs, by_stem(names, self.data_set))

    def _of_list(self, entries: Sequence[Entry], folder: str, source: str) -> Matched:
        there = set(self.store.names())
        names, labels, missing = [], [], []
        for entry in entries:
            label = int(str(entry.label))
            if label >= self.version:
                raise InputError(
                    f"{self.data_set}: {source} has the class {label} of {entry.name}: expected"
                    f" numbers from 0 to {self.version - 1}; set version to 400, 600 or 700"
                )
            name = next((n for n in (entry.name, f"{folder}/{entry.name}") if n in there), None)
            if name is None:
                missing.append(entry.name)
            else:
                names.append(name)
                labels.append(label)
        return Matched(names, labels, len(entries), missing)

    @cached_property
    def _kind(self) -> Layout:
        if self.layout == "folders":
            return "folders"
        path = self._list("train")
        if path is None:
            if self.layout == "auto" and self.annotation_dir is None:
                return "folders"
            raise missing_list(self.data_set, self._list_folders[0], "train.csv or another list")
        kind: Layout = "table" if is_table(path) else "list"
        if self.layout not in ("auto", kind):
            raise InputError(f"{self.data_set}: {path} is a {kind}, and layout is {self.layout}")
        return kind

    @property
    def _list_folders(self) -> list[Path]:
        if self.annotation_dir is not None:
            return [self.annotation_dir]
        return [self.root, self.root / "annotations"]

    def _list(self, split: Split) -> Path | None:
        return find_list(self._list_folders, self.version, split)

    def _read(self, split: Split) -> list[Entry]:
        path = self._list(split)
        if path is None:
            raise missing_list(self.data_set, self._list_folders[0], f"a {self._kind} {split}.csv")
        entries = read_table(path) if self._kind == "table" else read_list(path)
        if not entries:
            raise InputError(f"{self.data_set}: {path} lists no video")
        return entries

    def _folder(self, split: Split) -> str:
        folders = set(self.store.folders())
        return next((name for name in split_names(split) if name in folders), split)

    def _expected(self, split: Split) -> str:
        folder = self.root / self._folder(split)
        inside = "<id>_<start>_<end>.mp4" if self._kind == "table" else "<class>/*.mp4"
        return f"{folder}/{inside}"


def _class(folder: str, name: str) -> str:
    """The folder just below that of its split that a video is in; "" for none."""
    below = name[len(folder) + 1 :]
    return below.partition("/")[0] if "/" in below else ""
