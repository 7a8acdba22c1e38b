"""Samples grouped by class, in one sort."""

from __future__ import annotations

import numpy as np

__all__ = ["rows_by_class"]


def rows_by_class(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Group samples by class.

    Args:
        labels: Integers ``[N]``; −1 (unknown) is one more class.

    Returns:
        ``order``, int64 ``[N]``: samples of the first class, then those of the second, …; those of
        one class in their order. ``classes``, ``[C]``: the classes that occur, ascending.
        ``sizes``, int64 ``[C]``: how many samples each has.
    """
    keys = labels
    if len(labels):
        low, high = int(labels.min()), int(labels.max())
        if low >= -(2**15) and high < 2**15:
            keys = labels.astype(np.int16)  # which NumPy sorts by its digits, in linear time
    order = np.argsort(keys, kind="stable").astype(np.int64, copy=False)
    grouped = labels[order]
    starts = np.flatnonzero(np.concatenate([[True], grouped[1:] != grouped[:-1]])[: len(labels)])
    return order, grouped[starts], np.diff(starts, append=len(labels)).astype(np.int64)
