"""Jobs that a scheduler ends: save at a step that all processes share; requeue, or stop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from lit_ssl.trainer.background_io import written_at_once
from lit_ssl.trainer.private import around_batches, defer_requeue, on_sigterm
from lit_ssl.trainer.termination import die, leave_children, terminated

__all__ = ["SlurmRequeue", "requeue_of", "was_terminated"]

_JOB = "lit_ssl.slurm_job"
COPIES_WITHIN = 3.0  # seconds


class SlurmRequeue(pl.Callback):
    """Saves when a scheduler announces the end of a job, and ends the run on SIGTERM.

    Signals reach each process somewhere else, where it can neither save nor stop without the
    others. Here their handlers only set a flag. All processes hear of it before the next batch, in
    the message that Lightning sends there anyway; with local steps, with the average at the end of
    the round. They act after the same step, never between batches whose gradients are accumulated.

    - What SLURM sends before the end of a job (``--signal=USR1@90``): a checkpoint is saved and the
      job requeued. Training goes on until SLURM ends the job; the next start of the same command
      continues from ``hpc_ckpt_N.ckpt`` in ``default_root_dir``.
    - SIGTERM in a fit: callbacks with ``on_termination(trainer, pl_module)``, such as
      ``LastCheckpoint``, save; then the fit stops, and the process ends with exit status 143 (in
      Python: a ``SIGTERMException``, which is a SystemExit). With one process a validation is
      broken off, to be made again by a run that goes on; with several it is finished first. Before
      the first step there is nothing to save, and a fit stops as soon as all know.
    - SIGTERM in ``validate``, ``test`` and ``predict``: they stop at once, with the same status.
    - A second SIGTERM, three seconds or more after the first: the process ends at once. Earlier
      ones are taken for copies, since torchrun passes on what its workers may have got themselves.

    ``lit-ssl`` and the strategies with local steps always have this callback; other runs, made
    in Python, get it by ``callbacks=[ModelCheckpoint(), LastCheckpoint(), SlurmRequeue()]``.
    Outside of ``fit`` a job of several processes is not requeued.
    """

    def __init__(self) -> None:
        self.asked = False  # this process has got SIGUSR1
        self.terminated = False  # … SIGTERM
        self._agreed = False  # all know that one has got SIGUSR1
        self._ends = False  # … SIGTERM
        self.is_over = False  # the end was saved
        self._was_asked = False  # since the last save
        self._is_late = False  # the next signal is one that the others have acted upon
        self.within_epochs = True  # False: only at their ends all processes are at the same step
        self._signal = 0
        self._told = 0.0  # when SIGTERM came
        self._steps = self._first = 0  # before this batch, before the fit
        self._handle: Callable[[int, Any], None] | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Take the place of Lightning's handlers, before they are registered."""
        SlurmRequeue.__init__(self)

        def note(signum: int, frame: Any) -> None:
            self._signal = signum
            if self._is_late:
                self._is_late = False
            else:
                self.asked = self._was_asked = True

        if stage == "fit":
            self._handle = defer_requeue(trainer, note)
            on_sigterm(trainer, partial(self._note_sigterm, trainer))
            around_batches(trainer, partial(self._hear, trainer), self._stop)
        else:
            on_sigterm(trainer, _leave_evaluation)
            if trainer.world_size > 1:
                defer_requeue(trainer, _tell_that_nothing_is_saved)

    def _note_sigterm(self, trainer: pl.Trainer, signum: int, frame: Any) -> None:
        now = time.monotonic()
        if self.terminated and now - self._told >= COPIES_WITHIN:
            die(trainer)
        if trainer.sanity_checking and trainer.world_size == 1:
            raise terminated()
        if not self.terminated:
            self.terminated, self._told = True, now

    def _hear(self, trainer: pl.Trainer) -> None:
        """Hear of the signals of all processes; in local steps they are not at the same step."""
        self._stop()
        if _is_local(trainer):
            return
        flags = [int(self.terminated), int(self.asked)]
        message = torch.tensor(flags, device=trainer.strategy.root_device)
        dist.all_reduce(message, op=dist.ReduceOp.MAX)
        ends, asks = message.tolist()
        self.agree(asks=bool(asks), ends=bool(ends))
        self._stop_before_the_first_step(trainer)

    def agree(self, asks: bool, ends: bool) -> None:
        """Act at the end of this batch; all processes are in the same one, and call it.

        Args:
            asks: One of them was told that the job is about to end.
            ends: One of them has got SIGTERM.
        """
        if asks:
            self.asked, self._agreed = False, True
        self._ends = self._ends or ends

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Be the last of the callbacks, so that the others have done their part of a batch."""
        trainer.callbacks = [c for c in trainer.callbacks if c is not self] + [self]  # type: ignore[attr-defined]
        self._first = trainer.global_step

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Count the steps before this batch."""
        self._steps = trainer.global_step
        if trainer.world_size == 1:
            self.agree(asks=False, ends=self.terminated)
            self._stop_before_the_first_step(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Save and act, unless gradients are being accumulated, which no checkpoint holds."""
        if trainer.world_size == 1:
            self.agree(asks=self.asked, ends=self.terminated)
        if self.within_epochs and trainer.global_step > self._steps:
            self._act(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save and act if it could not be done within the epoch."""
        if not self.within_epochs:
            self._act(trainer)

    def on_validation_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Break off a validation, which a run that goes on makes again."""
        is_alone = trainer.world_size == 1 and trainer.state.fn == TrainerFn.FITTING
        if is_alone and self.terminated and not trainer.sanity_checking:
            self._ends = True
            self._act(trainer)
            self._stop()

    def _act(self, trainer: pl.Trainer) -> None:
        if self._agreed:
            self._save(trainer)
        if self._ends and not self.is_over:
            rank_zero_info(f"SIGTERM: the run ends after step {trainer.global_step}.")
            self.is_over = True
            hooks = [getattr(c, "on_termination", None) for c in trainer.callbacks]  # type: ignore[attr-defined]
            for hook in filter(callable, hooks):
                hook(trainer, trainer.lightning_module)
            if not any(hooks):
                rank_zero_warn("SIGTERM: nothing was saved, since there is no LastCheckpoint")
            leave_children(trainer)

    def _stop(self) -> None:
        """Stop where the end was saved."""
        if self.is_over:
            raise terminated()

    def _stop_before_the_first_step(self, trainer: pl.Trainer) -> None:
        if self._ends and trainer.global_step == self._first:
            leave_children(trainer)
            raise terminated()

    def _save(self, trainer: pl.Trainer) -> None:
        self.asked = self._agreed = False  # also where the signal came meanwhile
        self._is_late, self._was_asked = not self._was_asked, False
        assert self._handle is not None
        rank_zero_info(f"Saving for SLURM after step {trainer.global_step}.")
        with written_at_once(trainer.strategy.checkpoint_io):  # then the job is queued again
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
    """The callback of a fit; it is added where there is none.

    Args:
        trainer: of the fit.
        module: which is fitted.
    """
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    found = next((c for c in callbacks if isinstance(c, SlurmRequeue)), None)
    if found is None:
        found = SlurmRequeue()
        callbacks.append(found)
        found.setup(trainer, module, "fit")
    return found


def was_terminated(trainer: pl.Trainer) -> bool:
    """Whether this process has got SIGTERM in a fit that was about to end.

    Args:
        trainer: of the fit.
    """
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return any(isinstance(c, SlurmRequeue) and (c.terminated or c.is_over) for c in callbacks)


def _is_local(trainer: pl.Trainer) -> bool:
    """Whether processes are in local steps, in which they do not communicate."""
    return bool(getattr(trainer.strategy, "is_local", False))


def _leave_evaluation(signum: int, frame: Any) -> NoReturn:
    raise terminated()


def _tell_that_nothing_is_saved(signum: int, frame: Any) -> None:
    rank_zero_warn("SLURM is going to end this job; an evaluation is not saved, nor requeued")
