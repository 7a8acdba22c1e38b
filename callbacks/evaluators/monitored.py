"""ModelCheckpoint and EarlyStopping wait for the evaluators whose values they monitor."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

__all__ = ["let_monitors_wait"]

_HOOKS = ("on_validation_end", "on_train_epoch_end")  # where Lightning's callbacks look at a value


def let_monitors_wait(trainer: pl.Trainer) -> None:
    """Let callbacks pass over the validations in which what they monitor was not measured.

    Lightning would end the run where there is no value yet, and judge later weights by an old one:
    it would count towards ``patience``, and give a file of ``save_top_k`` a score of other weights.
    ``ModelCheckpoint`` and ``EarlyStopping`` that monitor a value of an evaluator
    (``_is_waiting``) act only after it was measured. Calling it again is free.

    Args:
        trainer: whose callbacks wait; their hooks are wrapped in place.
    """
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        if not isinstance(callback, ModelCheckpoint | EarlyStopping) or not callback.monitor:
            continue
        for name in _HOOKS:
            if name not in vars(callback):
                waiting = partial(_unless_waiting, callback.monitor, getattr(callback, name))
                setattr(callback, name, waiting)


def _unless_waiting(
    monitor: str, hook: Callable[..., None], trainer: pl.Trainer, pl_module: pl.LightningModule
) -> None:
    if not _is_waiting(trainer, monitor):
        hook(trainer, pl_module)


def _is_waiting(trainer: pl.Trainer, monitor: str) -> bool:
    """Whether a value is one of an evaluator's, and not of the present weights.

    Before its first measurement an evaluator may bring any value that nobody has logged.
    """
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    for evaluator in callbacks:
        measured = getattr(evaluator, "measured", None)  # {logged name: step}, of evaluators only
        if measured is None or evaluator.is_off or trainer.state.fn != "fit":
            continue
        if monitor in measured:
            return measured[monitor] != trainer.global_step
        is_first = evaluator.last_step == -1
        if is_first and monitor.startswith("val") and monitor not in trainer.callback_metrics:
            return True
    return False
