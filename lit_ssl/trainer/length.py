"""Length of a run and of its epochs in optimiser steps, for schedules."""

from __future__ import annotations

import math
from typing import Any

from lit_ssl.errors import InputError

__all__ = ["epochs_to_steps", "total_steps"]


def total_steps(trainer: Any) -> int:
    """Optimiser steps of the whole run.

    Args:
        trainer: the Trainer, which knows its data.

    Raises:
        ValueError: if the run has no known end.
    """
    steps = trainer.estimated_stepping_batches
    if not math.isfinite(steps) or steps < 0:  # Lightning says -1 for an endless loader
        raise InputError(
            f"the schedules of {type(trainer.lightning_module).__name__} need the length of the "
            "run: set max_epochs, or max_steps when the training loader has no length"
        )
    return int(steps)


def epochs_to_steps(trainer: Any, epochs: float, name: str) -> float:
    """Optimiser steps of some epochs.

    Args:
        trainer: the Trainer, after its training data were set up (``total_steps`` does that).
        epochs: number of epochs, fractions allowed.
        name: the argument that counts in epochs, for the message.

    Raises:
        ValueError: if the length of an epoch is not known.
    """
    if not epochs:
        return 0.0
    if not math.isfinite(trainer.num_training_batches):  # with max_steps, nobody has asked yet
        trainer.fit_loop.setup_data()
    per_epoch = trainer.num_training_batches / trainer.accumulate_grad_batches
    if not math.isfinite(per_epoch):
        raise InputError(f"{name} counts epochs and needs a training loader with a length")
    return epochs * math.ceil(per_epoch)
