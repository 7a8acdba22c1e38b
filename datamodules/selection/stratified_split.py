"""Class-stratified choices that never change."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lit_ssl.datamodules.selection.by_class import rows_by_class
from lit_ssl.errors import InputError
from lit_ssl.seeding import keyed_permutation

__all__ = ["choose_per_class", "others", "proportional_counts", "stratified_split"]


def choose_per_class(labels: np.ndarray, count: Callable[[int], int], seed: int) -> np.ndarray:
    """Choose a number of samples from each class at random.

    Args:
        labels: int64 ``[N]``; −1 (unknown) counts as one more class.
        count: How many to choose, as a function of the class.
        seed: Seed of the choice.

    Returns:
        int64 indices of the chosen samples, ascending.
    """
    shuffled = keyed_permutation(len(labels), seed)
    order, classes, sizes = rows_by_class(labels[shuffled])
    wanted = np.array([count(name) for name in classes.tolist()], dtype=np.int64)
    place = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # in its class
    return np.sort(shuffled[order[place < np.repeat(wanted, sizes)]])


def proportional_counts(labels: np.ndarray, total: int) -> dict[int, int]:
    """Divide a number over the classes in proportion to their sizes (largest remainders).

    Args:
        labels: int64 ``[N]``.
        total: Number to divide, 0 ... N.

    Returns:
        Class → count; the counts sum to ``total`` and none exceeds the size of its class.
    """
    names, sizes = np.unique(labels, return_counts=True)
    exact = sizes * total / max(len(labels), 1)
    counts = np.floor(exact).astype(np.int64)
    missing = total - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:missing]] += 1
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def stratified_split(
    labels: np.ndarray, held_out: int, seed: int, inputs: str = "images"
) -> tuple[np.ndarray, np.ndarray]:
    """Split into a rest and a stratified held-out part.

    Args:
        labels: int64 ``[N]``.
        held_out: Size of the held-out part.
        seed: Seed of the split.
        inputs: What rows are, for messages.

    Returns:
        int64 indices of the rest and of the held-out part, both ascending.

    Raises:
        ValueError: Fewer than ``held_out + 1`` samples.
    """
    if not 0 <= held_out < max(len(labels), 1):
        raise InputError(
            f"Cannot hold out {held_out} of {len(labels)} training {inputs}: val_size must be at"
            f" least 0 and smaller than the number of training {inputs}"
        )
    counts = proportional_counts(labels, held_out)
    chosen = choose_per_class(labels, counts.__getitem__, seed)
    return others(len(labels), chosen), chosen


def others(count: int, rows: np.ndarray) -> np.ndarray:
    """Return all of ``0 ... count - 1`` that are not among some rows, ascending: int64.

    Args:
        count: how many there are, ≥ 0.
        rows: int64, in any order.
    """
    is_other = np.ones(count, dtype=bool)
    is_other[rows] = False
    return np.flatnonzero(is_other)
