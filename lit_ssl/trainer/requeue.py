"""Jobs that SLURM ends: save at a point that all processes share, and go back into the queue."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from lit_ssl.trainer.private import defer_requeue, defer_sigterm

__all__ = ["SlurmRequeue", "requeue_of"]

_JOB = "lit_ssl.slurm_job"


class SlurmRequeue(pl.Callback):
    """Saves a checkpoint and requeues the job when SLURM announces its end (``--signal=USR1@90``).

    Lightning does so inside the signal's handler, where each process is somewhere else: processes
    would wait for each other until the timeout. Here the handlers of SIGUSR1 and SIGTERM only set a
    flag. All processes hear of it before the next batch, in the message that Lightning sends there
    anyway; with local steps, with the average at the end of the round. They save after the same
    step. Training goes on until SLURM ends the job; the next start of the same command continues
    from ``hpc_ckpt_N.ckpt`` in ``default_root_dir``.

    ``lit-ssl`` and the strategies with local steps always have this callback; other runs, made
    in Python, get it by ``Trainer(callbacks=[SlurmRequeue()])``. Outside of ``fit`` a job of
    several processes is not requeued.
    """

    def __init__(self) -> None:
        self.asked = False  # this process has got SIGUSR1
        self._agreed = False  # all know that one has
        self._terminated = False  # this process has got SIGTERM
        self._was_asked = False  # since the last save
        self._is_late = False  # the next signal is one that the others have acted upon
        self.within_epochs = True  # False: only at their ends all processes are at the same step
        self._signal = 0
        self._steps = 0
        self._handle: Callable[[int, Any], None] | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Take the place of Lightning's handlers, before they are registered."""
        self.asked = self._agreed = self._terminated = False
        self._was_asked = self._is_late = False
        self.within_epochs = True

        def note(signum: int, frame: Any) -> None:
            self._signal = signum
            if self._is_late:
                self._is_late = False
            else:
                self.asked = self._was_asked = True

        if stage == "fit":
            self._handle = defer_requeue(trainer, note)
            defer_sigterm(trainer, lambda: self._agree(trainer), lambda: self._stops(trainer))
        elif trainer.world_size > 1:
            defer_requeue(trainer, _tell_that_nothing_is_saved)

    def _stops(self, trainer: pl.Trainer) -> bool:
        """Whether a process that gets SIGTERM stops without the others."""
        self._terminated = trainer.world_size > 1 and not _is_local(trainer)
        return not self._terminated

    def _agree(self, trainer: pl.Trainer) -> None:
        """Hear of the signals of all processes; in local steps they are not at the same step."""
        if _is_local(trainer):
            return
        flags = [int(self._terminated), int(self.asked)]
        message = torch.tensor(flags, device=trainer.strategy.root_device)
        dist.all_reduce(message, op=dist.ReduceOp.MAX)
        terminated, asked = message.tolist()
        if terminated:
            raise SIGTERMException
        if asked:
            self.agree()

    def agree(self) -> None:
        """Save at the end of this batch; all processes are in the same one, and call it."""
        self.asked, self._agreed = False, True

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Count the steps before this batch."""
        self._steps = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Save and requeue, unless gradients are being accumulated, which no checkpoint holds."""
        if trainer.world_size == 1:
            self._agreed = self.asked
        if self._agreed and self.within_epochs and trainer.global_step > self._steps:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save and requeue if it could not be done within the epoch."""
        if self._agreed and not self.within_epochs:
            self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        self.asked = self._agreed = False  # also where the signal came meanwhile
        self._is_late, self._was_asked = not self._was_asked, False
        assert self._handle is not None
        rank_zero_info(f"Saving for SLURM after step {trainer.global_step}.")
        self._handle(self._signal, None)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note which job the checkpoint is of."""
        if job := os.environ.get("SLURM_JOB_ID"):
            checkpoint[_JOB] = job

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Say so where Lightning has chosen by itself to go on from what another job left."""
        path, job = str(trainer.ckpt_path or ""), os.environ.get("SLURM_JOB_ID")
        left_by = checkpoint.get(_JOB, job)
        if os.path.basename(path).startswith("hpc_ckpt_") and left_by != job:
            rank_zero_warn(
                f"This is job {job}, but it continues from {path}, which job {left_by} left. For "
                "a run that starts afresh, move that file away or use another default_root_dir."
            )


def requeue_of(trainer: pl.Trainer, module: pl.LightningModule) -> SlurmRequeue:
    """The callback of a fit; it is added where there is none."""
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    found = next((c for c in callbacks if isinstance(c, SlurmRequeue)), None)
    if found is None:
        found = SlurmRequeue()
        callbacks.append(found)
        found.setup(trainer, module, "fit")
    return found


def _is_local(trainer: pl.Trainer) -> bool:
    """Whether processes are in local steps, in which they do not communicate."""
    return bool(getattr(trainer.strategy, "is_local", False))


def _tell_that_nothing_is_saved(signum: int, frame: Any) -> None:
    rank_zero_warn("SLURM is going to end this job; an evaluation is not saved, nor requeued")
