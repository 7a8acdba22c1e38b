"""Processes whose data ends at different times."""

from __future__ import annotations

import math

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import IterableDataset

from lit_ssl.errors import InputError, InputRuntimeError
from lit_ssl.trainer.private import loaders_of, saves_within_epochs

__all__ = ["FINISHED", "LOOKS", "UnevenData"]

FINISHED = 0  # in place of the number of a unit that a process wants to synchronise
LOOKS = -1  # … and of one that validates, saves, or has ended its training
_DOES = {FINISHED: "ended its epoch", LOOKS: "validates, saves or has ended"}


class UnevenData:
    """Lets processes tell each other what they are about to do, if their data may be unequal.

    Args:
        join: processes that finish an epoch wait for the others; else they complain.
        world_size: number of processes.
        device: where to communicate.
    """

    def __init__(self, join: bool, world_size: int, device: torch.device) -> None:
        self.join, self.world_size, self.device = join, world_size, device
        self.is_possible = False

    def look_at(self, trainer: pl.Trainer) -> None:
        """Find out whether processes may have different numbers of batches in an epoch.

        Args:
            trainer: its training loaders are set up.

        Raises:
            InputRuntimeError: if the loaders' lengths are known to differ and that is not wanted.
            ValueError: if it is wanted, but something needs processes that have finished.
        """
        loaders = loaders_of(trainer.fit_loop) or []
        streams = any(isinstance(getattr(d, "dataset", None), IterableDataset) for d in loaders)
        known = math.isfinite(trainer.num_training_batches) and not streams
        length = int(trainer.num_training_batches) if known else -1
        lengths = [count for count, _ in self.exchange(length, 0)]
        if len(set(lengths)) > 1 and not self.join:
            raise InputRuntimeError(
                f"the ranks have different numbers of training batches: {lengths}; give all the "
                "same, or let those that finish wait for the others with uneven='join'"
            )
        reloads = bool(trainer.reload_dataloaders_every_n_epochs)  # type: ignore[attr-defined]
        # There, some processes may leave out a step that others make.
        manual = not trainer.lightning_module.automatic_optimization
        self.is_possible = min(lengths) < 0 or len(set(lengths)) > 1 or reloads
        self.is_possible = self.is_possible or (manual and not self.join)
        if self.is_possible and self.join:
            _check_join(trainer)

    def exchange(self, code: int, steps: int) -> list[list[int]]:
        """Tell all processes two numbers; returns those of every process.

        Args:
            code: see ``announce``.
            steps: see ``announce``.

        Returns:
            ``[code, steps]`` of each rank, in their order.
        """
        message = torch.tensor([code, steps], device=self.device)
        answers = [torch.empty_like(message) for _ in range(self.world_size)]
        dist.all_gather(answers, message)
        return torch.stack(answers).tolist()

    def announce(self, code: int, steps: int) -> int:
        """Say what comes next here.

        Args:
            code: number of the unit to synchronise, from 1; or ``FINISHED``, or ``LOOKS``.
            steps: optimizer steps that this process has done.

        Returns:
            The code of the processes that go on.

        Raises:
            InputRuntimeError: on every process, if they are about to do different things.
        """
        answers = self.exchange(code, steps)
        codes = {c for c, _ in answers}
        if len(codes - {FINISHED}) > 1 or (len(codes) > 1 and not self.join):
            what = [
                f"rank {rank} {_DOES.get(c, 'goes on')} after {n} steps"
                for rank, (c, n) in enumerate(answers)
            ]
            raise InputRuntimeError(
                f"the processes have unequal data or steps: {', '.join(what)}; give all the same "
                "number of batches (with manual optimization, of optimizer steps), or let those "
                "that finish wait for the others with uneven='join'"
            )
        return max(codes)


def _check_join(trainer: pl.Trainer) -> None:
    """Refuse what would need processes that have finished their epoch already."""
    at_epoch_end = trainer.val_check_interval == 1.0 and trainer.check_val_every_n_epoch is not None
    found = None
    if trainer.max_steps != -1:
        found = "max_steps (use max_epochs)"
    elif trainer.enable_validation and not at_epoch_end:
        found = f"val_check_interval={trainer.val_check_interval} (validate at the end of epochs)"
    elif any(isinstance(m, nn.SyncBatchNorm) for m in trainer.lightning_module.modules()):
        found = "SyncBatchNorm (set sync_batchnorm=False)"
    elif any(map(saves_within_epochs, trainer.callbacks)):  # type: ignore[attr-defined]
        found = "ModelCheckpoint within an epoch (save at the end of epochs)"
    if found:
        raise InputError(f"uneven='join' cannot be combined with {found}")
