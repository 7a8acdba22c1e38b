"""What a training step logs, without making the host wait for the device in every step."""

from __future__ import annotations

from collections.abc import Mapping

import lightning.pytorch as pl
import torch
from torch import Tensor

from lit_ssl.trainer.private import trainer_of
from lit_ssl.trainer.run import logging_interval

__all__ = ["log_loss", "log_values"]


def log_loss(
    module: pl.LightningModule, loss: Tensor, batch_size: int, name: str = "train/loss"
) -> None:
    """Log the loss of a training step, for callbacks in each step, and show it on the bar.

    ``log(…, prog_bar=True)`` makes Lightning read the value in every step, with any bar and with
    none, and the device then runs dry. Here the bar gets it in the steps that the loggers write,
    which is when the host waits anyway (every 50 steps where they write none), and in the first
    step of a fit; in others it shows the last one. The value stays the module's ``log`` in all
    other respects.

    Args:
        module: in its training step.
        loss: a scalar; its gradient is not kept.
        batch_size: number of samples that it is the mean of.
        name: under which it is logged.
    """
    module.log(name, loss.detach(), batch_size=batch_size)
    trainer = trainer_of(module)
    if trainer is None:  # a step that is tried by itself
        return
    bar = trainer.progress_bar_callback
    is_on = bar is not None and getattr(bar, "is_enabled", True)  # a user's own may not say
    is_shown = is_on and trainer.is_global_zero
    is_due = (trainer.global_step + 1) % logging_interval(trainer) == 0
    if is_shown and (is_due or trainer.global_step == 0):
        trainer.progress_bar_metrics[name] = loss.detach().item()


def log_values(
    module: pl.LightningModule, values: Mapping[str, Tensor | float], batch_size: int
) -> None:
    """Log values of a training step. What is costly to compute asks ``is_logged`` first.

    Numbers become tensors of the host: Lightning would upload each, and wait.

    Args:
        module: in its training step.
        values: scalars by name.
        batch_size: number of samples of the batch.
    """
    tensors = {
        name: value.detach() if isinstance(value, Tensor) else torch.tensor(float(value))
        for name, value in values.items()
    }
    module.log_dict(tensors, batch_size=batch_size)
