"""Choices of labelled images that a report measures: official lists, or shares of the data."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from lit_ssl.contracts.data import data_source
from lit_ssl.errors import InputAttributeError, InputError


@dataclass
class LabelledSet:
    """Training images that have a label, in one or several draws; exactly one of the first two.

    Args:
        files: Lists of training images, one for each draw, as in ``subset.file`` of the data
            modules: file names or indices, one a line; or names of packaged lists.
        fraction: Share of the bank, in (0, 1], from each class in proportion to its size and at
            least one image.
        l2: Regularisation x ([`fit_low_shot`][lit_ssl.metrics.fit_low_shot]), > 0.

    Raises:
        ValueError: If a value lies outside its range.
    """

    files: Sequence[str] | None = None
    fraction: float | None = None
    l2: float = 0.0025

    def __post_init__(self) -> None:
        if (self.files is None) == (self.fraction is None):
            raise InputError(
                "a labelled set needs either files or fraction, got "
                f"files={self.files}, fraction={self.fraction}"
            )
        if isinstance(self.files, str) or (self.files is not None and len(self.files) == 0):
            raise InputError(f"files of a labelled set must be a list of names, got {self.files!r}")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise InputError(f"fraction of a labelled set must be in (0, 1], got {self.fraction}")
        if self.l2 <= 0:
            raise InputError(f"l2 of a labelled set must be > 0, got {self.l2}")


def check_names(sets: Mapping[str, LabelledSet], taken: Collection[str]) -> None:
    """Raise ValueError if a set has a name that its column cannot have.

    Args:
        sets: Sets by name.
        taken: Names of other columns.

    Raises:
        InputError: for such a name.
    """
    for name in sets:
        if not re.fullmatch(r"\w+", name) or name in taken:
            raise InputError(
                f"a labelled set cannot be called {name!r}: use letters, digits and _, and "
                f"none of the names {sorted(taken)} of the shots"
            )


def find_positions(
    trainer: pl.Trainer, sets: Mapping[str, LabelledSet], draws: int
) -> dict[str, list[Tensor]]:
    """Places in the bank of the images of each set and draw.

    Args:
        trainer: A trainer whose data module is set up.
        sets: Sets by name.
        draws: Draws of a fraction, seeded 0, 1, ….

    Returns:
        For each set int64 positions, one tensor per draw.

    Raises:
        AttributeError: If the data module cannot look up images.
        FileNotFoundError: If there is no such list.
        ValueError: If a list names images that are not among the training images.
    """
    if not sets:
        return {}
    source = data_source(trainer)
    if not callable(getattr(source, "positions", None)):
        raise InputAttributeError(
            f"data module {type(source).__name__} has no positions(subset), which finds the "
            "images of label_sets in the bank: use a data module of lit_ssl, add it, or leave out "
            "label_sets"
        )
    found = {}
    for name, chosen in sets.items():
        wanted: list[dict[str, Any]]
        if chosen.files is not None:
            wanted = [{"file": file} for file in chosen.files]
        else:
            wanted = [{"fraction": chosen.fraction, "seed": seed} for seed in range(draws)]
        found[name] = [torch.as_tensor(source.positions(subset)) for subset in wanted]
    return found


def rows_of(positions: Tensor, labels: Tensor, name: str) -> Tensor:
    """Rows of the labelled part of the bank at some positions of the whole bank.

    Args:
        positions: int64, in the bank.
        labels: Of the whole bank, int64 ``[N]``, −1 where unknown.
        name: Of the set, for messages.

    Returns:
        int64, rows of what is left when rows without a label are dropped.

    Raises:
        ValueError: If the bank is not all training images, or an image has no label.
    """
    if len(positions) and int(positions.max()) >= len(labels):
        raise InputError(
            f"the labelled set {name!r} holds training image {int(positions.max())}, but "
            f"bank_dataloader() served only {len(labels)}: it must serve all, in order"
        )
    known = labels >= 0
    if not known[positions].all():
        raise InputError(f"the labelled set {name!r} holds images whose label is not known")
    return known.cumsum(0)[positions] - 1
