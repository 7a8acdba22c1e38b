"""Cells (y, a) of a class and an attribute: group ``y * A + a``, −1 where it is unknown."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["attributes_of", "cells_of", "group_counts", "group_shares"]


def cells_of(labels: np.ndarray, attributes: np.ndarray, num_attributes: int) -> np.ndarray:
    """Groups of rows, int64 ``[N]``, from their classes and attributes (−1 unknown)."""
    return np.where(attributes < 0, -1, labels * num_attributes + attributes)


def attributes_of(groups: Any, num_attributes: int) -> Any:
    """Attributes of rows, −1 where unknown, from their groups ``[N]``, of NumPy or torch."""
    attributes = groups % num_attributes
    attributes[groups < 0] = -1
    return attributes


def group_counts(groups: np.ndarray, num_groups: int) -> np.ndarray:
    """Rows of each group, int64 ``[G]``; rows of no known group (−1) do not count.

    Args:
        groups: int64 ``[N]``.
        num_groups: number G of groups.
    """
    return np.bincount(groups[groups >= 0], minlength=num_groups)


def group_shares(labels: np.ndarray, probabilities: np.ndarray, num_classes: int) -> np.ndarray:
    """Shares of rows in the groups of their known class.

    Args:
        labels: classes, int64 ``[N]``.
        probabilities: of the attributes, float32 ``[N, A]``.
        num_classes: C.

    Returns:
        float32 ``[N, C · A]``, 0 in the groups of the other classes.
    """
    shares = np.zeros((len(labels), num_classes, probabilities.shape[1]), dtype=np.float32)
    shares[np.arange(len(labels)), labels] = probabilities
    return shares.reshape(len(labels), -1)
