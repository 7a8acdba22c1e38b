"""What is chosen from a split as one: a row, or all rows of an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lit_ssl.datamodules.reading.rows import Rows

__all__ = ["Units"]


@dataclass(eq=False)
class Units:
    """Units of a split, in the order in which they first occur.

    Attributes:
        outline: A row for each unit, its first: names and labels alone.
        unit_of: int64 ``[N]``: the unit of each row; None: each row is one.
        num_rows: N.
    """

    outline: Rows
    unit_of: np.ndarray | None
    num_rows: int

    @classmethod
    def of(cls, rows: Rows, column: str | None = None) -> Units:
        """Return the units of some rows.

        Args:
            rows: N rows.
            column: Rows with the same value in it are one unit; None: each row is one.
        """
        if column is None:
            return cls(rows.outline(), None, len(rows))
        _, first, unit = np.unique(rows.columns[column], return_index=True, return_inverse=True)
        order = np.argsort(first)
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        return cls(rows.outline().select(first[order]), place[unit], len(rows))

    def rows_of(self, units: np.ndarray) -> np.ndarray:
        """Return the rows of some units, ascending: int64.

        Args:
            units: int64, ascending.
        """
        if self.unit_of is None:
            return units
        chosen = np.zeros(len(self.outline), dtype=bool)
        chosen[units] = True
        return np.flatnonzero(chosen[self.unit_of])

    def units_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the units that some rows are of, ascending: int64.

        Args:
            rows: int64, ascending.
        """
        return rows if self.unit_of is None else np.unique(self.unit_of[rows])
