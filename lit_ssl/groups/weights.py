"""How often to draw each training row, from its group."""

from __future__ import annotations

import numpy as np

from lit_ssl.groups.cells import group_counts

__all__ = ["balanced_weights", "subsample_weights"]


def balanced_weights(groups: np.ndarray, num_groups: int) -> np.ndarray:
    """Weights under which all groups that have rows are drawn equally often.

    Args:
        groups: int64 ``[N]``, −1 where unknown.
        num_groups: number G of groups.

    Returns:
        float64 ``[N]``: the number of rows by that of the row's group; 0 where it is unknown.
    """
    counts = group_counts(groups, num_groups)
    per_group = len(groups) / np.maximum(counts, 1)
    return np.where(groups >= 0, per_group[groups], 0.0)


def subsample_weights(groups: np.ndarray, num_groups: int, seed: int) -> np.ndarray:
    """Weights of a random subset with equally many rows of each group that has any.

    Args:
        groups: int64 ``[N]``, −1 where unknown.
        num_groups: number G of groups.
        seed: of the subset.

    Returns:
        float64 ``[N]``: 1 for rows of the subset, else 0.
    """
    counts = group_counts(groups, num_groups)
    smallest = counts[counts > 0].min(initial=len(groups))
    generator = np.random.default_rng(seed)
    weights = np.zeros(len(groups))
    for group in np.flatnonzero(counts):
        rows = np.flatnonzero(groups == group)
        weights[generator.choice(rows, smallest, replace=False)] = 1.0
    return weights
