"""Cells (y, a) of a class and an attribute: group ``y * A + a``, −1 where it is unknown."""

from __future__ import annotations

from typing import Any

import numpy as np

from lit_ssl.errors import InputError

__all__ = ["attributes_of", "cells_of", "checked_groups", "group_counts", "group_shares"]


def cells_of(labels: np.ndarray, attributes: np.ndarray, num_attributes: int) -> np.ndarray:
    """Groups of rows, int64 ``[N]``, from their classes and attributes (−1 unknown).

    Args:
        labels: int ``[N]``, classes from 0.
        attributes: int ``[N]``, in [0, A); below 0 where unknown.
        num_attributes: A.
    """
    return np.where(attributes < 0, -1, labels * num_attributes + attributes)


def attributes_of(groups: Any, num_attributes: int) -> Any:
    """Attributes of rows, −1 where unknown, from their groups ``[N]``, of NumPy or torch.

    Args:
        groups: int ``[N]``, below 0 where unknown; it is not changed.
        num_attributes: A, of each class.

    Returns:
        int ``[N]``, of the same kind.
    """
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


def checked_groups(
    groups: np.ndarray, labels: np.ndarray, num_classes: int, num_attributes: int
) -> np.ndarray:
    """A copy in the right type of groups that can belong to rows with these labels.

    Args:
        groups: integers ``[N]``, −1 unknown, or probabilities ``[N, G]``.
        labels: classes, int64 ``[N]``.
        num_classes: number C of classes.
        num_attributes: number A of attributes; G = C · A.

    Returns:
        int64 ``[N]`` or float32 ``[N, G]``.

    Raises:
        InputError: if they cannot.
    """
    shapes = [(len(labels),), (len(labels), num_classes * num_attributes)]
    if groups.shape not in shapes:
        raise InputError(
            f"Groups must be {list(shapes[0])}, one for each training row, or probabilities"
            f" {list(shapes[1])}, got {list(groups.shape)}"
        )
    if groups.ndim == 1:
        groups = np.array(groups, dtype=np.int64)
        wrong = (groups != -1) & (groups // num_attributes != labels)
    else:
        groups = np.array(groups, dtype=np.float32)
        cells = groups.reshape(len(labels), num_classes, num_attributes)
        own = cells[np.arange(len(labels)), labels]
        wrong = (groups < 0).any(axis=1)
        wrong |= ~(abs(own.sum(axis=1) - 1) < 1e-3) | ~(abs(groups.sum(axis=1) - 1) < 1e-3)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(
            f"The groups of {int(wrong.sum()):,} rows do not fit their classes, first row {row}:"
            f" {groups[row].tolist()} with the label {labels[row]}. Group y * {num_attributes} + a"
            " belongs to label y; give the groups in the order of the training rows"
        )
    return groups
