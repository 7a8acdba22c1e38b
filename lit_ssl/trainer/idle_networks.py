"""Networks that are trained in turn: DDP must not wait for gradients of the one that rests."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.strategies import DDPStrategy

from lit_ssl.errors import InputError
from lit_ssl.trainer.private import finds_unused_parameters

__all__ = ["allow_idle_network"]


def allow_idle_network(trainer: pl.Trainer, why: str) -> None:
    """Refuse a DDP that would wait for the gradients of a network that is not in use.

    Args:
        trainer: the running trainer.
        why: what is trained in turn, for the message.

    Raises:
        InputError: with what to do.
    """
    strategy: Any = trainer.strategy
    is_ddp = isinstance(strategy, DDPStrategy) and type(strategy).__module__.startswith("lightning")
    if is_ddp and not finds_unused_parameters(strategy):
        raise InputError(
            f"{why}: on several processes use --trainer.strategy ddp_find_unused_parameters_true"
        )
