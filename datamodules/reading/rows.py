"""A split as a source of inputs and the columns that go with its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lit_ssl.errors import InputError

__all__ = ["Rows", "Source"]


class Source(Protocol):
    """Inputs by row: images, texts, …; it knows no labels.

    How inputs are read is a matter of their kind: images come one by one, tokens as a batch.
    """

    def __len__(self) -> int: ...

    def name(self, row: int) -> str | None:
        """Return what a list may call a row, such as a path below a folder; None: no name.

        Args:
            row: its number.
        """

    def select(self, rows: np.ndarray) -> Source:
        """Return the inputs of some rows, int64 ``[N]``, in that order.

        Args:
            rows: their numbers.
        """


@dataclass(eq=False)
class Rows:
    """The rows of a split: inputs, and what is known of each.

    Args:
        source: N inputs.
        columns: Name → array ``[N, …]``. ``label`` is int64, −1 where unknown; every other column,
            such as ``attribute`` or ``image_number``, is what a data module makes of it.
    """

    source: Source
    columns: dict[str, np.ndarray]

    def __post_init__(self) -> None:
        self.columns = {name: _wide(np.asarray(column)) for name, column in self.columns.items()}
        for name, column in self.columns.items():
            if len(column) != len(self.source):
                raise InputError(
                    f"the column {name!r} has {len(column)} values for {len(self.source)} rows:"
                    " give one for each"
                )

    def __len__(self) -> int:
        return len(self.source)

    @property
    def labels(self) -> np.ndarray:
        """Class of each row, int64 ``[N]``, −1 where unknown."""
        return self.columns["label"]

    def name(self, row: int) -> str | None:
        """Return the name of a row, None if it has none.

        Args:
            row: its number.
        """
        return self.source.name(row)

    def select(self, rows: np.ndarray) -> Rows:
        """Return some rows, int64 ``[N]``, in that order.

        Args:
            rows: their numbers.
        """
        columns = {name: column[rows] for name, column in self.columns.items()}
        return Rows(self.source.select(rows), columns)

    def outline(self) -> Rows:
        """Return names and labels alone, to choose from; inputs in memory are let go.

        A source that holds more than names says in a method ``outline()`` what is left of it.
        """
        named = len(self) > 0 and self.name(0) is not None
        source = getattr(self.source, "outline", lambda: self.source)()
        return Rows(source if named else _Nameless(len(self)), {"label": self.labels})


class _Nameless:
    """So many rows, without names and inputs."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def name(self, row: int) -> None:
        """Return None."""

    def select(self, rows: np.ndarray) -> _Nameless:
        """Return as many as ``rows``."""
        return _Nameless(len(rows))


def _wide(column: np.ndarray) -> np.ndarray:
    return column.astype(np.int64, copy=False) if column.dtype.kind in "iu" else column
