"""Evaluation in which a process has more batches than another."""

from __future__ import annotations

from collections.abc import Callable

import lightning.pytorch as pl
from torch.nn.parallel import DistributedDataParallel

__all__ = ["hold_buffers"]


def hold_buffers(trainer: pl.Trainer) -> Callable[[], None]:
    """Keep DDP's wrapper from sending the buffers of rank zero around before each batch.

    It does so in evaluation too, where a process without a further batch would leave the others
    waiting for ever. They do not change there, so nothing is lost.

    Args:
        trainer: The running trainer, at the beginning of an evaluation.

    Returns:
        A function that lets the wrapper do as before, for its end.
    """
    wrapper = trainer.strategy.model
    if not isinstance(wrapper, DistributedDataParallel):
        return lambda: None
    before, wrapper.broadcast_buffers = wrapper.broadcast_buffers, False

    def release() -> None:
        wrapper.broadcast_buffers = before

    return release
