"""NLVR2 in its official layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lit_ssl.datamodules.reading.images import PackedStrings
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.vision_language.image_pairs import ImagePairs, ImagePairTextModule
from lit_ssl.datamodules.vision_language.tasks.nlvr2_files import (
    NAME,
    Statements,
    images_root,
    images_there,
    read_statements,
    statement_file,
)
from lit_ssl.errors import InputError, InputFileNotFoundError, check_choice, listed, shortened
from lit_ssl.files import layout_error
from lit_ssl.text.corpus_wordpiece import CorpusWordPiece

__all__ = ["NLVR2DataModule"]


class NLVR2DataModule(ImagePairTextModule):
    """NLVR2: is a statement true of two photographs?

    Expected: ``train.json``, ``dev.json``, ``test1.json`` of the official repository (JSON lines)
    in ``root`` or its folder ``data/``, and the images below ``images/`` or ``root`` itself:
    ``train/<directory>/train-10171-0-img0.png``, ``dev/dev-0-0-img0.png``, …; img0 is the left one.
    Validation is on dev, the test on the public test1. Most statements stand with several pairs;
    the column ``statement`` (int64, equal for rows with the same statement), which batches carry
    after the labels, and ``identifiers`` serve the consistency metric: a statement counts where all
    its rows are right.

    Args:
        root: Folder with the files.
        tokenizer: "bytes", a folder with a tokenizer, a ``vocab.txt``, or a ``CorpusWordPiece``;
            see ``ImagePairTextModule``.
        evaluate_on: Part of dev and test1: "full"; or "balanced" or "unbalanced", which are the
            files ``balanced/balanced_dev.json`` and so on.
        test_split: "test1" or, where you have its labels or only predict, "test2".
        val_directories: Directories of the training images (0 to 99) held out to validate on, in
            place of dev; sets of pairs that were searched together never cross directories.
        missing_images: "error" stops where images are not there; "skip" leaves out the rows of
            theirs, and a warning says how many. Some addresses of NLVR2's images are dead.
        num_workers: Worker processes per loader.
        kwargs: Arguments of ``ImagePairTextModule``.

    Raises:
        InputError: ``test2`` is asked for a part of it.
    """

    carried: ClassVar[tuple[str, ...]] = ("label", "statement")
    class_names = ("False", "True")

    def __init__(
        self,
        *,
        root: str,
        tokenizer: str | CorpusWordPiece,
        evaluate_on: Literal["full", "balanced", "unbalanced"] = "full",
        test_split: Literal["test1", "test2"] = "test1",
        val_directories: Sequence[int] = (),
        missing_images: Literal["error", "skip"] = "error",
        num_workers: int = 8,
        **kwargs: Any,
    ) -> None:
        super().__init__(tokenizer=tokenizer, num_workers=num_workers, **kwargs)
        check_choice("evaluate_on", evaluate_on, ("full", "balanced", "unbalanced"))
        check_choice("test_split", test_split, ("test1", "test2"))
        check_choice("missing_images", missing_images, ("error", "skip"))
        if test_split == "test2" and evaluate_on != "full":
            raise InputError(f"test2 has no {evaluate_on} part: set evaluate_on to full")
        self.root = Path(root).expanduser()
        self.evaluate_on = evaluate_on
        self.test_split = test_split
        self.val_directories = sorted(set(val_directories))
        self.missing_images = missing_images

    def identifiers(self, split: Split) -> list[str]:
        """Return the official identifiers of a split as it is used, ``split-set-pair-sentence``.

        Args:
            split: which split; there are none without it.
        """
        rows = self.rows(split)
        return [str(rows.name(row)) for row in range(len(rows))] if rows else []

    def load_rows(self, split: Split) -> Rows:
        """Return the rows of a split whose images are there."""
        official = {"train": "train", "val": "dev", "test": self.test_split}[split]
        if split == "val" and self.val_directories:
            official = "train"
        part = self.evaluate_on if official in ("dev", "test1") else "full"
        path = statement_file(self.root, official, part)
        found = read_statements(path, official)
        kept = np.arange(len(found.sentences))
        if official == "train" and self.val_directories:
            held_out = self._held_out(found, path)
            kept = np.flatnonzero(held_out if split == "val" else ~held_out)
        folder = images_root(self.root, official)
        kept = kept[self._complete(found, kept, folder, path)]
        # Only now: rows that are equal in it are those of the split.
        statements = np.array(found.statements)[kept]
        columns = {
            "label": found.labels[kept],
            "statement": np.unique(statements, return_inverse=True)[1],
        }
        pairs = [found.pairs[row] for row in kept]
        source = ImagePairs(
            str(folder),
            PackedStrings(f"{pair}-img0.png" for pair in pairs),
            PackedStrings(f"{pair}-img1.png" for pair in pairs),
            [found.sentences[row] for row in kept],
            PackedStrings(found.identifiers[row] for row in kept),
        )
        return Rows(source, columns)

    def _held_out(self, found: Statements, path: Path) -> np.ndarray:
        """Which training rows are held out, bool ``[N]``."""
        if absent := sorted(set(self.val_directories) - set(found.directories.tolist())):
            raise InputError(
                f"val_directories: {path} has no directory {listed(absent)}; it has"
                f" {found.directories.min()} to {found.directories.max()}"
            )
        held_out = np.isin(found.directories, self.val_directories)
        if held_out.all():
            raise InputError("val_directories holds out all training rows: leave some to train on")
        both = np.intersect1d(found.sets[held_out], found.sets[~held_out])
        if len(both):
            raise InputError(
                f"val_directories: the set {both[0]} of {path} lies in directories that are held"
                f" out and in others ({len(both):,} such sets): hold out all of them, or none"
            )
        return held_out

    def _complete(
        self, found: Statements, rows: np.ndarray, folder: Path, path: Path
    ) -> np.ndarray:
        """Which of some rows have both images, bool ``[n]``."""
        pairs = [found.pairs[row] for row in rows]
        names = [f"{pair}-img{side}.png" for pair in pairs for side in (0, 1)]
        there = images_there(folder, names)
        complete = there[::2] & there[1::2]
        if complete.all():
            return complete
        # Several rows have the same pair.
        missing = list(dict.fromkeys(names[row] for row in np.flatnonzero(~there)))
        if not complete.any():
            raise layout_error(
                NAME, folder, f"the images that {path} names, such as {shortened(missing[0])}"
            )
        lost = int((~complete).sum())
        what = (
            f"{len(missing):,} images that {path} names are not in {folder} ({listed(missing, 3)})"
        )
        if self.missing_images == "error":
            raise InputFileNotFoundError(
                f"{NAME}: {what}. Fetch them, or set missing_images: skip to leave out their"
                f" {lost:,} of {len(rows):,} rows"
            )
        rank_zero_warn(
            f"{NAME}: {what}; their {lost:,} of {len(rows):,} rows are left out, so that results"
            " are not quite those of the whole set"
        )
        return complete
