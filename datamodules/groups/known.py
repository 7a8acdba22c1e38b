"""What a run may know about the attributes of its training rows."""

from __future__ import annotations

import numpy as np

from lit_ssl.errors import InputError
from lit_ssl.groups.label_files import GroupLabels, read_group_labels
from lit_ssl.seeding import Stream, keyed_permutation

__all__ = ["checked_groups", "choose_labelled", "from_file", "soft_groups"]


def choose_labelled(true: np.ndarray, fraction: float, seed: int) -> GroupLabels:
    """Choose rows, uniformly among those with an attribute, that keep it.

    Args:
        true: int64 ``[N]``, attributes in the data, −1 where they do not say.
        fraction: Share of the rows with an attribute, in (0, 1].
        seed: Seed of the choice. A larger fraction keeps the rows of a smaller one.

    Raises:
        InputError: No row would be left.
    """
    candidates = np.flatnonzero(true >= 0)
    count = round(fraction * len(candidates))
    if not count:
        raise InputError(
            f"group_label_fraction {fraction} of the {len(candidates):,} training rows with an"
            " attribute is none: give a larger fraction, or data with attributes"
        )
    order = keyed_permutation(len(candidates), seed, Stream.LABELLED_GROUPS)
    known = np.zeros(len(true), dtype=bool)
    known[candidates[order[:count]]] = True
    return GroupLabels(np.where(known, true, -1), known)


def from_file(path: str, true: np.ndarray, num_attributes: int) -> GroupLabels:
    """Read the attributes of all rows, predicted where they were not known.

    Args:
        path: CSV file, see ``lit_ssl.groups.label_files``.
        true: int64 ``[N]``, attributes in the data, −1 where they do not say.
        num_attributes: Number of values of the attribute.

    Raises:
        InputError: The file cannot be read or belongs to other rows.
    """
    found = read_group_labels(path, len(true), num_attributes)
    wrong = found.known & (true >= 0) & (found.attributes != true)
    if wrong.any():
        raise InputError(
            f"{path} gives {int(wrong.sum()):,} training rows another known attribute than the"
            f" data, first row {int(np.argmax(wrong))}: it belongs to other data, another subset or"
            " another order. Predict the groups again with this data module"
        )
    return found


def soft_groups(probabilities: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Put the probabilities of attributes into the cells of the known classes.

    Args:
        probabilities: float32 ``[N, A]``.
        labels: int64 ``[N]``.
        num_classes: Number C of classes.

    Returns:
        float32 ``[N, C · A]``, zero in the cells of the other classes.
    """
    groups = np.zeros((len(labels), num_classes, probabilities.shape[1]), dtype=np.float32)
    groups[np.arange(len(labels)), labels] = probabilities
    return groups.reshape(len(labels), -1)


def checked_groups(
    groups: np.ndarray, labels: np.ndarray, num_classes: int, num_attributes: int
) -> np.ndarray:
    """Return a copy in the right type of groups that can belong to rows with these labels.

    Args:
        groups: Integers ``[N]``, −1 unknown, or probabilities ``[N, G]``.
        labels: int64 ``[N]``.
        num_classes: Number C of classes.
        num_attributes: Number A of attributes; G = C · A.

    Returns:
        int64 ``[N]`` or float32 ``[N, G]``.

    Raises:
        ValueError: They cannot.
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
