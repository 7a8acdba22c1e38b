"""A checkpoint that a run can go on from, whatever is validated."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from lit_ssl.errors import InputError, by_name
from lit_ssl.trainer.background_io import finish_writing
from lit_ssl.trainer.private import (
    is_up_to_date,
    save_at_epoch_ends,
    saves_at_step,
    val_batches,
)
from lit_ssl.trainer.run import is_fast_dev_run

__all__ = ["LastCheckpoint"]


class LastCheckpoint(Checkpoint):
    """Keeps ``last.ckpt`` no older than the interval at which a run's ``ModelCheckpoint`` saves.

    Lightning's ``ModelCheckpoint`` writes its checkpoints, ``last.ckpt`` among them, after a
    validation and, with a ``monitor``, only where that improves. So a run that validates seldom,
    never, or without improving would lose more than ``every_n_epochs`` (or ``every_n_train_steps``)
    when it is killed, and its last epochs where it ends between two validations. With this callback

    - a ``ModelCheckpoint`` without ``monitor`` saves at the end of its epochs (unless the run
      validates within epochs, or ``save_on_train_epoch_end`` is given);
    - wherever one is due and saves nothing, ``last.ckpt`` is written, beside its other files;
    - the end of a fit is always saved, also one that SIGTERM brings, where ``SlurmRequeue`` is
      among the callbacks.

    ``lit-ssl`` adds it. In Python give it after the ``ModelCheckpoint`` that it completes:
    ``Trainer(callbacks=[ModelCheckpoint(), LastCheckpoint()])``. Callbacks that save weights only,
    or nothing, are left as they are.

    Raises:
        InputError: Without a ``ModelCheckpoint``; Lightning adds none beside this callback.
    """

    def __init__(self) -> None:
        self._step = -1  # of the last file written here

    @by_name
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check that there is something to complete."""
        if not any(isinstance(c, ModelCheckpoint) for c in trainer.checkpoint_callbacks):
            raise InputError("needs a ModelCheckpoint before it among the callbacks: add one")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Do not wait for validations that do not come."""
        self._step = -1
        for callback in _keepers(trainer):
            if callback.save_last == "link" and not callback.last_model_path:
                callback.last_model_path = _link_of(trainer, callback)
        whole_epochs = trainer.val_check_interval == 1.0 and trainer.check_val_every_n_epoch
        if whole_epochs or val_batches(trainer) == 0:
            for callback in _keepers(trainer):
                if callback.monitor is None:
                    save_at_epoch_ends(callback)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Save where a callback that counts steps was due and had nothing better."""
        step = trainer.global_step
        self._keep(trainer, [c for c in _keepers(trainer) if saves_at_step(c, step)])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save where a callback that counts epochs was due and had nothing better."""
        epoch = trainer.current_epoch + 1
        due = [c for c in _keepers(trainer) if c.every_n_epochs and epoch % c.every_n_epochs == 0]
        self._keep(trainer, due)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save what is out of date."""
        self._keep(trainer, _keepers(trainer))

    def on_termination(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save what is out of date, before SIGTERM ends the run.

        Args:
            trainer: the running trainer.
            pl_module: not used.
        """
        self._keep(trainer, _keepers(trainer))

    def _keep(self, trainer: pl.Trainer, due: Sequence[ModelCheckpoint]) -> None:
        """Write ``last.ckpt`` of those that keep one, or of one, if none has saved this step."""
        step = trainer.global_step
        if not due or step == self._step or is_fast_dev_run(trainer):
            return
        old = [c for c in due if _has_old_last(c, step)]
        if not old and not any(is_up_to_date(c, step) for c in _keepers(trainer)):
            old = list(due[:1])
        if old:
            finish_writing(trainer.strategy.checkpoint_io)  # it may end with a link of this name
        for callback in old:
            self._step = step
            path = _last_path(trainer, callback)
            if trainer.is_global_zero and os.path.islink(path):
                os.unlink(path)  # save_last="link": what it points to is another checkpoint
            trainer.save_checkpoint(path, weights_only=False)


def _keepers(trainer: pl.Trainer) -> list[ModelCheckpoint]:
    """The callbacks whose files a run can go on from."""
    return [
        callback
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, ModelCheckpoint)
        and not callback.save_weights_only
        and (callback.save_top_k != 0 or callback.save_last)
    ]


def _has_old_last(callback: ModelCheckpoint, step: int) -> bool:
    """Whether a callback has a ``last.ckpt`` and does not keep it up to date itself."""
    if callback.save_last:
        return not is_up_to_date(callback, step)
    return bool(callback.last_model_path)  # written here before


def _link_of(trainer: pl.Trainer, callback: ModelCheckpoint) -> str:
    """The link to the file that the run goes on from: the first such file does not know of it."""
    if not trainer.ckpt_path or callback.dirpath is None:
        return ""
    name = f"{callback.CHECKPOINT_NAME_LAST}*{callback.FILE_EXTENSION}"
    links = [path for path in Path(callback.dirpath).glob(name) if path.is_symlink()]
    start = os.path.realpath(trainer.ckpt_path)
    return next((str(path) for path in links if os.path.realpath(path) == start), "")


def _last_path(trainer: pl.Trainer, callback: ModelCheckpoint) -> str:
    """Where a callback has its ``last.ckpt``, or a free name beside its files."""
    number = callback.STARTING_VERSION - 1
    while not callback.last_model_path:
        name = callback.CHECKPOINT_NAME_LAST + (f"-v{number}" if number else "")
        path = os.path.join(str(callback.dirpath), name + callback.FILE_EXTENSION)
        if not callback.file_exists(path, trainer):
            callback.last_model_path = path  # in its state: a resumed run goes on with this file
        number += 1
    return callback.last_model_path
