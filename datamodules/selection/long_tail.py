"""Sizes of classes that form a long tail."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lit_ssl.errors import InputError
from lit_ssl.seeding import Stream, keyed_permutation

__all__ = ["long_tail_counts"]


def long_tail_counts(
    labels: np.ndarray,
    factor: float | None = None,
    exponent: float | None = None,
    min_per_class: int = 1,
    permutation_seed: int | None = None,
    class_name: Callable[[int], str] = str,
    inputs: str = "images",
) -> dict[int, int]:
    """Number of samples to keep of each class, so that their sizes form a long tail.

    Exponential: ``n_c = n_max · f^(−c / (C − 1))``; power law: ``n_c = n_max · (c + 1)^(−α)``, for
    the classes c = 0 … C − 1 that occur; both rounded down, and never below ``min_per_class``.
    ``n_max`` is as large as the data allow: the size of the classes where all have one size.

    Args:
        labels: int64 ``[N]``, all known.
        factor: f >= 1, largest by smallest class. Exactly one of ``factor`` and ``exponent``.
        exponent: α >= 0.
        min_per_class: At least so many of each class, >= 1.
        permutation_seed: Shuffles which class has which size; None: in the order of the labels.
        class_name: Name of a class, for messages.
        inputs: What rows are, for messages.

    Returns:
        Class → count.

    Raises:
        ValueError: Labels are not known, or a class has fewer than ``min_per_class`` samples.
    """
    names, sizes = np.unique(labels, return_counts=True)
    if len(names) == 0 or names[0] < 0:
        unknown = int((labels < 0).sum())
        raise InputError(
            f"A long-tailed subset needs the classes of all training {inputs}, but {unknown} of"
            f" {len(labels)} have no label. Use subset.fraction or subset.file"
        )
    small = np.flatnonzero(sizes < min_per_class)
    if len(small):
        first = small[0]
        raise InputError(
            f"subset.min_per_class={min_per_class}, but {len(small)} classes have fewer training"
            f" {inputs}, for example {class_name(int(names[first]))} ({sizes[first]}). Lower it"
        )
    shares = _shares(len(names), factor, exponent)
    if permutation_seed is not None:
        shares = shares[keyed_permutation(len(names), permutation_seed, Stream.TAIL_ORDER)]
    largest = (sizes / shares).min()
    # The small offset undoes float error: 5000 * 100 ** -1 may be 49.99..., but 50 are meant.
    counts = np.floor(largest * shares + 1e-9).astype(np.int64).clip(min_per_class)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def _shares(classes: int, factor: float | None, exponent: float | None) -> np.ndarray:
    """Sizes in relation to the largest class, float64 ``[C]``, descending from 1."""
    ranks = np.arange(classes, dtype=np.float64)
    if factor is not None:
        return factor ** -(ranks / max(classes - 1, 1))
    assert exponent is not None
    return (ranks + 1) ** -exponent
