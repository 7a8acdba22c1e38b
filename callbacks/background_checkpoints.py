"""Checkpoints that do not stop the training."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_ssl.errors import InputError, OutputError, by_name
from lit_ssl.trainer.background_io import BackgroundCheckpointIO
from lit_ssl.trainer.checkpoint_io import WholeCheckpointIO, write_whole
from lit_ssl.trainer.private import chosen_checkpoint_io, link_by

__all__ = ["BackgroundCheckpoints"]


class BackgroundCheckpoints(pl.Callback):
    """Writes the checkpoints of a fit in a thread, as whole as they are without it.

    The state is copied to the memory of the host when it is saved, for which training stops, and
    written while training goes on: rank zero needs the room of one checkpoint more. The step at
    which a write has failed is the last one but one: its error ends the run after the next batch.
    The end of a fit, and what SIGTERM or SLURM make a run save, is written before the run goes on;
    older files are removed, and links made, when the newer one is whole.

    Which files there are is only known some seconds later: a ``ModelCheckpoint`` needs names of its
    own (``filename``) where two of them save in one folder at the same step, and loggers that send
    checkpoints away see each at the next one. Evaluations write nothing in the background.

    Raises:
        InputError: beside another ``CheckpointIO`` among the plugins.
    """

    @by_name
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Take the place of what writes checkpoints."""
        chosen = chosen_checkpoint_io(trainer.strategy)
        if stage != "fit" or isinstance(chosen, BackgroundCheckpointIO):
            return
        write_whole(trainer.strategy)
        if type(trainer.strategy.checkpoint_io) is not WholeCheckpointIO:
            other = type(trainer.strategy if chosen is None else chosen).__name__
            raise InputError(
                f"writes checkpoints by itself, and {other} does as well: leave out one of them"
            )
        trainer.strategy.checkpoint_io = BackgroundCheckpointIO()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on nothing waits for a file, and links are made when it is whole."""
        io = _io(trainer)
        io.in_background = True

        def link(file: str, name: str) -> None:
            io.when_whole(lambda: _link(file, name))

        for callback in _keepers(trainer):
            link_by(callback, link)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Raise what the thread has met."""
        _io(trainer).check()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let no process go on before all is on the disk, the end included."""
        self.on_termination(trainer, pl_module)

    def on_termination(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what follows at once: the process is about to end.

        Args:
            trainer: the running trainer.
            pl_module: not used.
        """
        io = _io(trainer)
        io.in_background = False
        _link_at_once(trainer)
        io.wait()
        trainer.strategy.barrier()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Write what is saved because of it at once."""
        if isinstance(trainer.strategy.checkpoint_io, BackgroundCheckpointIO):
            trainer.strategy.checkpoint_io.in_background = False
            _link_at_once(trainer)


def _io(trainer: pl.Trainer) -> BackgroundCheckpointIO:
    io = trainer.strategy.checkpoint_io
    assert isinstance(io, BackgroundCheckpointIO)
    return io


def _keepers(trainer: pl.Trainer) -> list[ModelCheckpoint]:
    return [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]


def _link_at_once(trainer: pl.Trainer) -> None:
    for callback in _keepers(trainer):
        link_by(callback, None)


def _link(file: str, name: str) -> None:
    """Put a link in the place of what has its name, in one step."""
    folder, last = os.path.split(os.path.abspath(name))
    if os.path.abspath(file) == os.path.join(folder, last):
        return
    new = os.path.join(folder, f".{last}.link")
    try:
        with suppress(FileNotFoundError):
            os.unlink(new)  # of a run that was killed between these lines
        os.symlink(os.path.relpath(file, folder), new)
        os.replace(new, name)
    except OSError as error:
        raise OutputError(f"cannot link {name}: {error.strerror or error}") from error
