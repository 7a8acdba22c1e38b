"""UCF101 in its official layout."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.video.files_module import VideoFilesModule
from lit_ssl.datamodules.video.matching import (
    by_stem,
    check_found,
    check_fraction,
    matched,
    missing_list,
)
from lit_ssl.errors import InputError, check_choice, quoted
from lit_ssl.files import text_lines

__all__ = ["UCF101DataModule"]

_NAME = "UCF101"
_FOLDERS = ("ucfTrainTestlist", "UCF101TrainTestSplits-RecognitionTask/ucfTrainTestlist")


class UCF101DataModule(VideoFilesModule):
    """UCF101 (arXiv 1212.0402): 13,320 videos of 101 actions, in three folds.

    Expected: videos ``<class>/v_<class>_gNN_cNN.avi`` at any depth below ``root``, or all flat in
    it; and the lists ``classInd.txt``, ``trainlist0F.txt`` and ``testlist0F.txt``. Files are found
    by their names, in small or capital letters (the lists and the archive do not agree on
    HandstandPushups), and with any ending of a video. Class i is line i + 1 of ``classInd.txt``.

    There is no official validation split: the test videos stand in unless ``val_size`` holds some
    out. Clips of one group (``gNN``) show the same scene, so that held-out videos are easier than
    test videos.

    Args:
        root: Folder of the videos.
        annotation_dir: Folder of the lists; None: ``root``, or ``ucfTrainTestlist`` in it or beside
            it.
        fold: 1, 2 or 3.
        train_on: "train" is the training list of the fold; "all", usual for generative models, is
            all videos of both its lists, so that there are no test videos.
        min_found_fraction: Share of the listed videos of a split that must be there.
        kwargs: Arguments of ``VideoFilesModule`` and ``VideoDataModule``.
    """

    def __init__(
        self,
        *,
        root: str,
        annotation_dir: str | None = None,
        fold: Literal[1, 2, 3] = 1,
        train_on: Literal["train", "all"] = "train",
        min_found_fraction: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(root=root, **kwargs)
        check_choice("fold", fold, (1, 2, 3))
        check_choice("train_on", train_on, ("train", "all"))
        check_fraction(min_found_fraction)
        self.annotation_dir = None if annotation_dir is None else Path(annotation_dir).expanduser()
        self.fold = fold
        self.train_on = train_on
        self.min_found_fraction = min_found_fraction

    @cached_property
    def class_names(self) -> Sequence[str]:
        """Names of the classes, in the order of ``classInd.txt``."""
        path = self._lists / "classInd.txt"
        names: list[str] = []
        for number, line in text_lines(path):
            entry = re.fullmatch(r"([0-9]{1,9})\s+(\S+)", line.strip())
            if entry is None or int(entry[1]) != len(names) + 1:
                raise InputError(
                    f"{_NAME}: line {number} of {path} is {quoted(line)}: expected"
                    f" '{len(names) + 1} <class>'"
                )
            names.append(entry[2])
        if not names:
            raise InputError(f"{_NAME}: {path} is empty: expected lines '<number> <class>'")
        return names

    def load_rows(self, split: Split) -> Rows | None:
        """Return the videos of a list of the fold; there is no own validation split."""
        if split == "val" or (split == "test" and self.train_on == "all"):
            return None
        lists: Sequence[str] = ("train", "test") if self.train_on == "all" else (split,)
        entries = [entry for name in lists for entry in self._entries(name)]
        where = f"{self.root}" if self.cache is None else f"{self.cache}"
        found = matched(entries, self._files, fold_case=True)
        source = " and ".join(f"{name}list{self.fold:02}.txt" for name in lists)
        check_found(found, self.min_found_fraction, f"{_NAME}, {split}", where, source)
        return self.rows_of(found.names, found.labels)

    @cached_property
    def _files(self) -> dict[str, str]:
        names = self.store.names()
        if not names:
            raise self.missing(_NAME, f"videos v_<class>_gNN_cNN.avi in {self.root}/<class>/")
        return by_stem(names, _NAME, fold_case=True)

    @cached_property
    def _lists(self) -> Path:
        if self.annotation_dir is not None:
            places = [self.annotation_dir]
        else:
            beside = [above / name for above in (self.root, self.root.parent) for name in _FOLDERS]
            places = [self.root, *beside]
        for place in places:
            if (place / "classInd.txt").is_file():
                return place
        expected = f"classInd.txt, trainlist0{self.fold}.txt and testlist0{self.fold}.txt"
        if self.annotation_dir is None:
            expected += f" in {self.root}, or in {_FOLDERS[0]}/ in it or beside it"
        raise missing_list(_NAME, places[0], expected)

    def _entries(self, name: str) -> list[tuple[str, int]]:
        """Pairs (path, label) of a list, whose lines are ``<class>/<file>`` and, or not, a number.

        The number is checked against the class.
        """
        path = self._lists / f"{name}list{self.fold:02}.txt"
        if not path.is_file():
            raise missing_list(_NAME, self._lists, path.name)
        number_of = {known.casefold(): label for label, known in enumerate(self.class_names)}
        entries = []
        for number, line in text_lines(path):
            entry = re.fullmatch(r"(\S+?)(?:\s+([0-9]{1,9}))?", line.strip())
            label = entry and number_of.get(PurePosixPath(entry[1]).parent.name.casefold())
            if entry is None or label is None or (entry[2] and int(entry[2]) != label + 1):
                raise InputError(
                    f"{_NAME}: line {number} of {path} is {quoted(line)}: expected"
                    " '<class>/<file>', with a class of classInd.txt, and its number or nothing"
                    " behind it"
                )
            entries.append((entry[1], label))
        if not entries:
            raise InputError(f"{_NAME}: {path} is empty: expected lines '<class>/<file>'")
        return entries
