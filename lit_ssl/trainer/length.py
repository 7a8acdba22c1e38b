"""Length of a run and of its epochs in optimiser steps, for schedules.

It is asked anew in each step and never kept: finders of batch sizes, schedulers of gradient
accumulation and reloaded data change it after the optimizers were made.
"""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch.callbacks import GradientAccumulationScheduler

from lit_ssl.errors import InputError
from lit_ssl.trainer.private import is_finding_lr, max_epochs_of

__all__ = ["epochs_to_steps", "finished_batches", "total_steps"]


def finished_batches(trainer: Any) -> int:
    """Training batches that are done, over all epochs and restarts: what random numbers count by.

    Neither the number of the epoch nor that of the step: after some restarts Lightning counts an
    epoch or a begun batch twice. Finished batches it counts right after all of them.

    Args:
        trainer: the running Trainer.
    """
    return int(trainer.fit_loop.epoch_loop.batch_progress.total.processed)


def total_steps(trainer: Any) -> int:
    """Optimiser steps of the whole run.

    While a learning rate is searched for, the steps of the run that it is meant for, where its
    epochs tell them, not those of the search.

    Args:
        trainer: the Trainer, which knows its data.

    Raises:
        ValueError: if the run has no known end.
    """
    steps, epochs = math.inf, max_epochs_of(trainer)
    if epochs is not None and epochs != -1:
        steps = _steps(trainer, max(epochs, 1))
    if trainer.max_steps != -1 and not (is_finding_lr(trainer) and math.isfinite(steps)):
        steps = min(steps, trainer.max_steps)
    if not math.isfinite(steps):
        raise InputError(
            f"the schedules of {type(trainer.lightning_module).__name__} need the length of the "
            "run: set max_epochs, or max_steps when the training loader has no length"
        )
    return int(steps)


def epochs_to_steps(trainer: Any, epochs: float, name: str) -> float:
    """Optimiser steps of the first epochs.

    Args:
        trainer: the Trainer, which knows its data.
        epochs: number of epochs, fractions allowed.
        name: the argument that counts in epochs, for the message.

    Raises:
        ValueError: if the length of an epoch is not known.
    """
    if not epochs:
        return 0.0
    steps = _steps(trainer, epochs)
    if not math.isfinite(steps):
        raise InputError(f"{name} counts epochs and needs a training loader with a length")
    return steps


def _steps(trainer: Any, epochs: float) -> float:
    """Optimiser steps of the first epochs; infinite if an epoch has no known length."""
    if trainer.train_dataloader is None:  # nobody has asked yet
        trainer.fit_loop.setup_data()
    batches = trainer.num_training_batches
    if not math.isfinite(batches):
        return math.inf
    schedule = _accumulation(trainer)
    starts = sorted(schedule)
    steps = 0.0
    for start, end in zip(starts, [*starts[1:], math.inf], strict=True):
        if epochs > start:
            steps += (min(epochs, end) - start) * math.ceil(batches / schedule[start])
    return steps


def _accumulation(trainer: Any) -> dict[int, int]:
    """Batches of an optimiser step, by the epoch from which on there are so many."""
    for callback in trainer.callbacks:
        if isinstance(callback, GradientAccumulationScheduler):
            return callback.scheduling
    return {0: trainer.accumulate_grad_batches}
