"""Strategies under which no method of this library would train what it says."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

from lit_ssl.errors import InputError
from lit_ssl.trainer.private import trainer_of

__all__ = ["refuse_sharding"]


def refuse_sharding(module: Any, stage: str) -> None:
    """Refuse strategies that divide the parameters among processes.

    FSDP and DeepSpeed cut them into flat pieces before the optimizer is made. Pieces are 1-D like
    biases: they would lose their weight decay, LARS would not adapt them, norms and clipping would
    be those of a piece, and a target network could not follow. ``ModelParallelStrategy`` (FSDP2,
    tensor parallel) divides nothing by itself: a module says how in ``configure_model``, which none
    here has, and target networks, guards and checkpoints would have to follow.

    Args:
        module: the LightningModule.
        stage: ``fit``, ``validate``, ``test`` or ``predict``; FSDP and DeepSpeed may evaluate.

    Raises:
        InputError: if it has such a strategy.
    """
    trainer = trainer_of(module)
    strategy = None if trainer is None else trainer.strategy
    if isinstance(strategy, ModelParallelStrategy):
        raise InputError(
            f"{type(module).__name__} cannot be divided among processes by ModelParallelStrategy "
            "(FSDP2): use --trainer.strategy ddp, with activation_checkpointing and a smaller "
            "batch per device where memory is short"
        )
    if stage == "fit" and isinstance(strategy, FSDPStrategy | DeepSpeedStrategy):
        raise InputError(
            f"{type(module).__name__} cannot be trained with {type(strategy).__name__}, "
            "which cuts weights into flat pieces that weight decay, LARS and clipping would take "
            "for biases: use --trainer.strategy ddp, or a strategy of lit_ssl.strategies"
        )
