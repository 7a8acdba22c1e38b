"""Processes whose data ends at different times."""

from __future__ import annotations

import math

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import IterableDataset

from lit_ssl.errors import InputError

__all__ = ["FINISHED", "check_join", "exchange", "may_be_uneven"]

FINISHED = 0  # in place of the number of a unit that a process wants to synchronise


def exchange(code: int, steps: int, world_size: int, device: torch.device) -> list[list[int]]:
    """Tell all processes what this one is about to do, and hear the same of them.

    Args:
        code: number of the unit to synchronise, from 1; or ``FINISHED``.
        steps: optimizer steps that this process has done.
        world_size: number of processes.
        device: where to communicate.

    Returns:
        ``[code, steps]`` of every process.
    """
    message = torch.tensor([code, steps], device=device)
    answers = [torch.empty_like(message) for _ in range(world_size)]
    dist.all_gather(answers, message)
    return torch.stack(answers).tolist()


def may_be_uneven(trainer: pl.Trainer, world_size: int, device: torch.device, join: bool) -> bool:
    """Whether processes may have different numbers of batches in an epoch.

    Args:
        trainer: its training loaders are set up.
        world_size: number of processes.
        device: where to communicate.
        join: whether that is wanted.

    Raises:
        RuntimeError: if the loaders' lengths are known to differ and that is not wanted.
    """
    loaders = trainer.fit_loop._combined_loader
    flattened = [] if loaders is None else loaders.flattened
    streams = any(isinstance(getattr(d, "dataset", None), IterableDataset) for d in flattened)
    known = math.isfinite(trainer.num_training_batches) and not streams
    length = int(trainer.num_training_batches) if known else -1
    lengths = [count for count, _ in exchange(length, 0, world_size, device)]
    if len(set(lengths)) > 1 and not join:
        raise RuntimeError(
            f"the ranks have different numbers of training batches: {lengths}; give all the same, "
            "or let those that finish wait for the others with uneven='join'"
        )
    reloads = bool(trainer.reload_dataloaders_every_n_epochs)  # type: ignore[attr-defined]
    return min(lengths) < 0 or len(set(lengths)) > 1 or reloads


def check_join(trainer: pl.Trainer) -> None:
    """Refuse what would need processes that have finished their epoch already.

    Raises:
        ValueError: with what was found and what to do.
    """
    found = None
    if trainer.max_steps != -1:
        found = "max_steps (use max_epochs)"
    elif trainer.enable_validation and not _validates_at_epoch_end(trainer):
        found = f"val_check_interval={trainer.val_check_interval} (validate at the end of epochs)"
    elif any(isinstance(m, nn.SyncBatchNorm) for m in trainer.lightning_module.modules()):
        found = "SyncBatchNorm (set sync_batchnorm=False)"
    elif any(
        isinstance(c, ModelCheckpoint) and (c._every_n_train_steps or c._train_time_interval)
        for c in trainer.callbacks  # type: ignore[attr-defined]
    ):
        found = "ModelCheckpoint within an epoch (save at the end of epochs)"
    if found:
        raise InputError(f"uneven='join' cannot be combined with {found}")


def _validates_at_epoch_end(trainer: pl.Trainer) -> bool:
    return trainer.val_check_interval == 1.0 and trainer.check_val_every_n_epoch is not None


def describe(answers: list[list[int]]) -> str:
    """Error message for processes that are about to do different things.

    Args:
        answers: ``[code, steps]`` of every process.
    """
    what = [
        f"rank {rank} {'ended its epoch' if code == FINISHED else 'goes on'} after {steps} steps"
        for rank, (code, steps) in enumerate(answers)
    ]
    return (
        f"the processes have unequal data: {', '.join(what)}; give all the same number of batches, "
        "or let those that finish wait for the others with uneven='join'"
    )
