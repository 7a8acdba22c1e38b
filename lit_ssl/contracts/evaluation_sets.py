"""Data modules with several sets to evaluate on: their names and the classes that may win."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["EvaluationSet", "evaluation_sets", "mask_classes"]


class EvaluationSet(NamedTuple):
    """One of the loaders that a data module evaluates with.

    A data module with several gives ``evaluation_sets(split)``, in the order of the loaders.

    Attributes:
        name: What its metrics are called, as in ``val/NAME_acc1``; empty for the set itself, whose
            metrics have no name in between (``val/acc1``).
        classes: The classes that an answer may be, ascending; None: all of them.
    """

    name: str = ""
    classes: tuple[int, ...] | None = None


def evaluation_sets(data: Any, split: str) -> list[EvaluationSet]:
    """The sets of a split (``val`` or ``test``), as a data module names them; else one."""
    named = getattr(data, "evaluation_sets", None)
    return list(named(split)) if callable(named) else [EvaluationSet()]


def mask_classes(logits: Tensor, classes: tuple[int, ...] | None) -> Tensor:
    """Scores ``[B, K]`` of which only those of some classes may win: the others are -inf."""
    if classes is None:
        return logits
    allowed = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
    allowed[list(classes)] = True
    return logits.masked_fill(~allowed, -torch.inf)
