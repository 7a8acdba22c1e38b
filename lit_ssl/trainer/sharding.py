"""Strategies under which no method of this library would train what it says."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy

from lit_ssl.errors import InputError
from lit_ssl.trainer.private import trainer_of

__all__ = ["refuse_sharding"]


def refuse_sharding(module: Any) -> None:
    """Refuse a fit whose strategy cuts parameters into flat pieces before the optimizer is made.

    Pieces are 1-D like biases: they would lose their weight decay, LARS would not adapt them, norms
    and clipping would be those of a piece, and a target network could not follow.

    Args:
        module: the LightningModule that is to be trained.

    Raises:
        InputError: if it does.
    """
    trainer = trainer_of(module)
    if trainer is not None and isinstance(trainer.strategy, FSDPStrategy | DeepSpeedStrategy):
        raise InputError(
            f"{type(module).__name__} cannot be trained with {type(trainer.strategy).__name__}, "
            "which cuts weights into flat pieces that weight decay, LARS and clipping would take "
            "for biases: use --trainer.strategy ddp, or a strategy of lit_ssl.strategies"
        )
