"""Data modules with several sets to evaluate on: their names and the classes that may win."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor

from lit_ssl.errors import InputError

__all__ = ["EvaluationSet", "check_several_sets", "evaluation_sets", "mask_classes"]


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
    """The sets of a split (``val`` or ``test``), as a data module names them; else one.

    Args:
        data: a data module.
        split: ``val`` or ``test``.
    """
    named = getattr(data, "evaluation_sets", None)
    return list(named(split)) if callable(named) else [EvaluationSet()]


def check_several_sets(trainer: pl.Trainer | None, otherwise: str) -> None:
    """Refuse a module whose steps do not tell several loaders apart.

    Args:
        trainer: The trainer that sets up its data module; None outside of one.
        otherwise: How to go without several sets, for the message.

    Raises:
        InputError: A step takes no ``dataloader_idx``.
    """
    module = None if trainer is None else trainer.lightning_module
    if trainer is None or module is None:
        return
    name = "test_step" if trainer.state.fn == "test" else "validation_step"
    taken = inspect.signature(getattr(module, name)).parameters
    if "dataloader_idx" not in taken:
        raise InputError(
            f"{type(module).__name__} evaluates on one set (its {name} takes no dataloader_idx):"
            f" {otherwise}, or take a method that knows several, such as NAC"
        )


def mask_classes(logits: Tensor, classes: tuple[int, ...] | None) -> Tensor:
    """Scores ``[B, K]`` of which only those of some classes may win: the others are -inf.

    Args:
        logits: ``[B, K]``.
        classes: those that may win, each in [0, K); None: all, and the scores come back as they
            are.
    """
    if classes is None:
        return logits
    allowed = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
    allowed[list(classes)] = True
    return logits.masked_fill(~allowed, -torch.inf)
