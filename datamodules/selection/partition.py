"""Which rows make up the splits that a run uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.lists import find_listed
from lit_ssl.datamodules.selection.stratified_split import others, stratified_split
from lit_ssl.datamodules.selection.subset import Subset
from lit_ssl.datamodules.selection.units import Units
from lit_ssl.errors import InputError

__all__ = ["Partition", "Split", "splits_of_stage"]

Split = Literal["train", "val", "test", "predict"]

# Which images are held out must not depend on the seed of a run, else runs cannot be compared.
_SPLIT_SEED = 0


def splits_of_stage(stage: str | None) -> tuple[Split, ...]:
    """Splits that a stage reads.

    Args:
        stage: "fit", "validate", "test", "predict" or None for all.
    """
    needed: dict[str | None, tuple[Split, ...]] = {
        "fit": ("train", "val"),
        "validate": ("val",),
        "test": ("test",),
        "predict": ("predict",),
    }
    return needed.get(stage, ("train", "val", "test"))


class Partition:
    """The splits of one run, loaded when they are first asked for.

    What is predicted are the test rows, else the validation rows, else all training rows.

    Args:
        load: Returns the rows of one of the data set's own splits, None if it has no such split.
        opened: Makes the chosen rows of a split ready to be read.
        usable: Says which of the chosen rows of a split can be read, bool ``[N]``; the others are
            left out of it. None: all can.
        val_size: Number of training rows held out as validation split. 0: the data set's own
            validation split, or its test split where it has none.
        val_file: List of the training rows held out as validation split, in place of ``val_size``.
        subset: Part of the remaining training rows to use.
        class_name: Name of a class, for messages.
        inputs: What rows are, for messages.
        chosen_by: Column, and what has one value of it, such as ("image_number", "images"): rows
            of one value are never divided, and ``val_size``, ``val_file`` and ``subset`` count
            values. None: each row by itself.

    Raises:
        ValueError: Both ``val_size`` and ``val_file`` are given.
    """

    def __init__(
        self,
        load: Callable[[Split], Rows | None],
        opened: Callable[[Rows, Split], Rows],
        *,
        val_size: int = 0,
        val_file: str | None = None,
        subset: Subset | None = None,
        class_name: Callable[[int], str] = str,
        inputs: str = "images",
        chosen_by: tuple[str, str] | None = None,
        usable: Callable[[Rows, Split], np.ndarray | None] | None = None,
    ) -> None:
        column, units = chosen_by or (None, inputs)
        if val_file is not None and val_size:
            raise InputError(
                f"val_file holds out the {units} of {val_file}: set val_size to 0, not {val_size}"
            )
        self._load = load
        self._opened = opened
        self._usable = usable
        self._val_size = val_size
        self._val_file = val_file
        self._subset = subset
        self._class_name = class_name
        self._inputs = inputs
        self._column, self._unit_name = column, units
        self._own: dict[Split, Rows | None] = {}
        self._divided: tuple[Rows, Rows | None] | None = None
        self._units: Units
        self._used_units: np.ndarray
        self._used: np.ndarray

    def __getitem__(self, split: Split) -> Rows | None:
        """Return the rows of a split as the run uses it, None if there are none."""
        if split == "train":
            return self._divide()[0]
        if split == "val":
            if self._val_size or self._val_file is not None:
                return self._divide()[1]
            return self._first_of("val", "test")
        rows = self._first_of("test", "val")
        if split == "predict" and rows is None:
            return self._first_of("train")  # all of it, whatever is held out or not chosen
        return rows

    @property
    def validation_source(self) -> Split | None:
        """The data set's own split whose rows are validated on, None if there are none."""
        if self._val_size or self._val_file is not None:
            return "train"
        rows = self["val"]
        if rows is None:
            return None
        return "test" if self._own["val"] is None else "val"

    def positions(self, subset: Subset) -> np.ndarray:
        """Return the positions in the training split, as it is used, of the rows of a subset.

        Args:
            subset: how many rows, or a list of them.

        Returns:
            int64, ascending.
        """
        self._divide()
        chosen = self._chosen(subset, self._used_units)
        picked = np.zeros(self._units.num_rows, dtype=bool)
        picked[self._units.rows_of(chosen)] = True
        return np.flatnonzero(picked[self._used])

    def size_before(self, split: Split) -> int:
        """Return how many rows a split was chosen from: all that the data set has of it.

        Args:
            split: which split; 0 where there is none.
        """
        from_train = split == "train" or (
            split == "val" and bool(self._val_size or self._val_file is not None)
        )
        return self._units.num_rows if from_train else len(self[split] or ())

    @property
    def read_so_far(self) -> list[Rows]:
        """The splits that were asked for until now."""
        rows = [*self._own.values(), *(self._divided or ())]
        return [part for part in rows if part is not None]

    def _first_of(self, *splits: Split) -> Rows | None:
        """The first split that the data set has, be it an empty one."""
        for split in splits:
            if split not in self._own:
                rows = self._load(split)
                self._own[split] = None if rows is None else self._ready(rows, split)[0]
            if self._own[split] is not None:
                return self._own[split]
        return None

    def _divide(self) -> tuple[Rows, Rows | None]:
        if self._divided is None:
            rows = self._load("train")
            if not rows:
                raise InputError(f"The training split has no {self._inputs}")
            self._units = Units.of(rows, self._column)
            rest, held_out = self._hold_out(self._units.outline)
            if self._subset is not None:
                rest = self._chosen(self._subset, rest)
            self._used_units, self._used = rest, self._units.rows_of(rest)
            # Selecting copies; the common case of all rows should not.
            train = rows if len(self._used) == len(rows) else rows.select(self._used)
            val = None
            if len(held_out):
                val, _ = self._ready(rows.select(self._units.rows_of(held_out)), "val")
            train, kept = self._ready(train, "train")
            if kept is not None:
                self._used = self._used[kept]
                self._used_units = self._units.units_of(self._used)
            self._divided = train, val
        return self._divided

    def _ready(self, rows: Rows, split: Split) -> tuple[Rows, np.ndarray | None]:
        """Rows ready to be read, without those that cannot be, and which are kept; None: all."""
        kept = None if self._usable is None else self._usable(rows, split)
        if kept is not None:
            rows = rows.select(np.flatnonzero(kept))
        return self._opened(rows, split), kept

    def _chosen(self, subset: Subset, allowed: np.ndarray) -> np.ndarray:
        return subset.select(self._units.outline, allowed, self._class_name, self._unit_name)

    def _hold_out(self, outline: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Indices of what is not held out for validation, and of what is."""
        if self._val_file is None:
            return stratified_split(outline.labels, self._val_size, _SPLIT_SEED, self._unit_name)
        listed = find_listed(self._val_file, outline, self._unit_name)
        return others(len(outline), listed), listed
