"""What was found for a split, in one line, and whether its labels fit its classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.errors import InputError, listed

__all__ = ["check_labels", "describe_rows", "images_with_captions"]

_SHOWN = 3


def describe_rows(rows: Rows, class_names: Sequence[str], inputs: str, total: int) -> str | None:
    """Say what a split has: ``1,200 images of 12 classes in data/train``.

    Args:
        rows: The split.
        class_names: Names of the classes; empty where there are none.
        inputs: What rows are, such as "images".
        total: Rows of the set that they were chosen from.

    Returns:
        The text; None where the rows do not come from a folder.
    """
    folder = getattr(rows.source, "folder", None)
    if folder is None:
        return None
    count = f"{len(rows):,}" if len(rows) == total else f"{len(rows):,} of {total:,}"
    text = f"{count} {inputs if total != 1 else _one(inputs)}"
    present = np.unique(rows.labels[rows.labels >= 0])
    unknown = int((rows.labels < 0).sum())
    if not len(present):
        text += " without labels"
    elif class_names:
        absent = np.setdiff1d(np.arange(len(class_names)), present)
        lacking = [class_names[label] for label in absent]
        of_all = f" of {len(class_names):,}" if lacking else ""
        text += f" of {len(present):,}{of_all} class{'es' * (len(class_names) > 1)}"
        text += f" (none of {listed(lacking, _SHOWN)})" if lacking else ""
        text += f", {unknown:,} of them without a label," if unknown else ""
    return f"{text} in {folder}"


def check_labels(rows: Rows, num_classes: int | None, split: str) -> None:
    """Raise unless all labels are numbers of classes, or −1.

    Args:
        rows: A split.
        num_classes: Number of classes; None where it is not known, below 2 where nothing is
            learnt from labels.
        split: Its name, for the message.

    Raises:
        InputError: Labels are no integers, below −1, or not below the number of classes.
    """
    labels = rows.labels
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise InputError(
            f"the labels of the {split} split are {labels.dtype} {list(labels.shape)}: expected one"
            " integer per row, the number of its class from 0, or -1 where it is not known"
        )
    if num_classes is None or num_classes < 2 or not len(labels):  # no one learns from them
        return
    low, high = int(labels.min()), int(labels.max())
    if low < -1 or high >= num_classes:
        from_one = low == 1 and high == num_classes
        mend = "subtract 1" if from_one else "number the classes from 0, or mend class_names"
        raise InputError(
            f"the labels of the {split} split go from {low} to {high}, but {num_classes} classes"
            f" have the numbers 0 to {num_classes - 1} (-1: not known): {mend}"
        )


def images_with_captions(image_numbers: np.ndarray) -> str:
    """Say how many there are: ``2 images with 10 captions``.

    Args:
        image_numbers: int64 ``[N]``: the image of each caption.
    """
    images, captions = len(np.unique(image_numbers)), len(image_numbers)
    return f"{images:,} image{'s' * (images != 1)} with {captions:,} caption{'s' * (captions != 1)}"


def _one(inputs: str) -> str:
    return "hypothesis" if inputs == "hypotheses" else inputs.removesuffix("s")
