"""Classes of the training videos: how often each comes, and what it is called."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from lit_ssl.errors import InputError, listed

__all__ = ["check_same_classes", "counted_classes", "names_of_data", "stored_names"]

_LONGEST = 100  # letters of a name


def counted_classes(source: Any, num_classes: int) -> Tensor | None:
    """How often each class comes among the training videos.

    Args:
        source: the data module.
        num_classes: number of classes, > 1.

    Returns:
        float64 ``[num_classes]``; None, with a warning, where the data do not tell.

    Raises:
        InputError: if videos have no label.
    """
    labels = getattr(source, "labels", None)
    if labels is None:
        rank_zero_warn(
            "The data do not tell their labels (no method labels(split)): classes of generated"
            " videos are drawn equally often, which shifts distances where the true ones are"
            " not equally many"
        )
        return None
    known = torch.as_tensor(labels("train"))
    if (known < 0).any():
        raise InputError(
            f"{int((known < 0).sum())} training videos have no label: a conditional model needs"
            " all; leave them out, or train with --model.num_classes 1"
        )
    counts = torch.bincount(known.long(), minlength=num_classes).double()
    return counts[:num_classes]


def names_of_data(source: Any, num_classes: int) -> tuple[str, ...]:
    """What a data module calls the classes; () where there is one, or they are not known.

    Args:
        source: data module, which may have ``class_names``.
        num_classes: of the model.
    """
    if num_classes == 1:
        return ()
    names = getattr(source, "class_names", None)
    if not names or len(names) != num_classes:
        return ()
    return tuple(_plain(str(name)) for name in names)


def stored_names(entry: Any, num_classes: int, source: str) -> tuple[str, ...]:
    """Names of the classes in a checkpoint; () in older ones, which have none.

    Args:
        entry: what it holds: nothing in it is trusted.
        num_classes: number of its classes.
        source: what it was read from, for the message.

    Raises:
        InputError: if they are no names of so many classes.
    """
    if not entry and (entry is None or isinstance(entry, list)):
        return ()
    is_whole = isinstance(entry, list) and all(type(name) is str for name in entry)
    if not is_whole or len(entry) != num_classes:
        raise InputError(
            f"{source} does not hold names of its {num_classes} classes, but something else in"
            " their place: it is damaged"
        )
    return tuple(map(_plain, entry))


def check_same_classes(known: Sequence[str], given: Sequence[str], what: str) -> None:
    """Raise if two sources name classes, and name other ones or in another order.

    Small and capital letters are alike, and so are spaces, hyphens and underscores.

    Args:
        known: names in the order of the labels, or none.
        given: names of the data, or none.
        what: whose the known names are, for the message.

    Raises:
        InputError: which differ first.
    """
    if not known or not given:
        return
    for number, (own, other) in enumerate(zip(known, given, strict=True)):
        if _spelled_alike(own) != _spelled_alike(other):
            raise InputError(
                f"{what} knows class {number} as {own!r}, and the data have {other!r} in its place"
                f" (classes of the data: {listed(given)}): give data of the same classes in the"
                " same order"
            )


def _plain(name: str) -> str:
    """A name that can be printed anywhere: nothing in it moves a cursor or lacks a code."""
    return "".join(c if c.isprintable() else "\ufffd" for c in name[:_LONGEST])


def _spelled_alike(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()
