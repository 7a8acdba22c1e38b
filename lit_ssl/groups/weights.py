"""How often to draw each training row, from its group."""

from __future__ import annotations

import numpy as np

from lit_ssl.groups.cells import group_counts

__all__ = ["balanced_weights", "drawn_groups", "subsample_weights"]


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


def drawn_groups(groups: np.ndarray, num_groups: int, weights: np.ndarray | None) -> np.ndarray:
    """How often rows of each group are drawn, to a common factor.

    Args:
        groups: int64 ``[N]``, −1 where unknown; or shares ``[N, G]``.
        num_groups: number G of groups.
        weights: of the rows, ``[N]``; None: all alike.

    Returns:
        float64 ``[G]``.
    """
    weights = np.ones(len(groups)) if weights is None else weights
    if groups.ndim == 2:
        return weights @ groups.astype(np.float64)
    known = groups >= 0
    return np.bincount(groups[known], weights=weights[known], minlength=num_groups)
