"""What a run may know about the attributes of its training rows."""

from __future__ import annotations

import numpy as np

from lit_ssl.errors import InputError
from lit_ssl.groups.label_files import GroupLabels, read_group_labels
from lit_ssl.seeding import Stream, keyed_permutation

__all__ = ["choose_labelled", "from_file"]


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
