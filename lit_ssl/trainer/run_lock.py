"""The folders of a run: claimed before it begins, held while it lives."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.plugins.environments import SLURMEnvironment

from lit_ssl.errors import InputError
from lit_ssl.trainer.claims import FolderLock, last_run_in, new_folder, new_run, new_version
from lit_ssl.trainer.private import keep_metrics, named_version, set_version
from lit_ssl.trainer.run import go_on_in, is_fast_dev_run

__all__ = ["RUN", "RunLock"]

RUN = "lit_ssl.run"  # the run's name, in its checkpoints


class RunLock(pl.Callback):
    """Keeps two runs that live at the same time out of one folder.

    A run holds a lock in the folder that TensorBoard's or the CSV logger keeps for it, and in each
    folder where a ``ModelCheckpoint`` writes. The kernel takes it back when the run is killed. A
    run that would write into such a folder of another one stops with a line, before its first step.

    ``lit-ssl`` always has this callback, and lets it claim a new ``version_N`` before the logger
    looks for one, so that of two runs that start together each gets its own. In Python, where a
    logger has chosen before any callback is asked, give it as ``Trainer(callbacks=[RunLock()])``:
    then the second of two such runs stops with the line. ``fast_dev_run`` takes no folders.
    """

    def __init__(self) -> None:
        self.run = new_run()
        self._locks: dict[Path, FolderLock] = {}
        self._versions: set[Path] = set()  # of loggers, which are this run's with all below
        self._for_good: set[Path] = set()  # until all commands are done

    def claim(self, trainer: pl.Trainer, home: Path | None = None, goes_on: bool = False) -> None:
        """Claim folders for the loggers, before they are used; on rank zero.

        Args:
            trainer: Its loggers have not looked for a folder.
            home: A folder to take besides, or to go on in.
            goes_on: The run is the earlier one of ``home``; its loggers go on with their files.

        Raises:
            InputError: If a run that is still going has one of them.
        """
        if not trainer.is_global_zero or is_fast_dev_run(trainer):
            return
        if home is not None and goes_on:
            self.run = last_run_in(home).get("run") or self.run
        try:
            self._claim(trainer, home, goes_on)
        finally:
            self._for_good = set(self._locks)
        if home is not None and goes_on:
            self._refuse_finished(home)

    def _claim(self, trainer: pl.Trainer, home: Path | None, goes_on: bool) -> None:
        for logger in filter(_has_own_folder, trainer.loggers):
            root = _root(logger)
            before = _folders_of(root, self.run, home) if home is not None and goes_on else []
            before = [folder for folder in before if folder not in self._versions]
            if before:
                set_version(logger, _version(before[0].name))
                go_on_in(trainer, before[0])
            elif (named := named_version(logger)) is None:
                set_version(logger, new_version(root, int(logger.version or 0)))
            elif _is_of_job(named) and not _goes_on_for_slurm(trainer):
                names = chain([f"version_{named}"], (f"version_{named}_{n}" for n in count(1)))
                set_version(logger, _version(new_folder(root, names).name))
            self._take_version(logger)
            if isinstance(logger, CSVLogger):
                keep_metrics(logger)
        if home is not None:
            self._take(home)

    def _refuse_finished(self, home: Path) -> None:
        """Stop where the run has ended between the choice of its checkpoint and the lock."""
        lock = self._locks.get(home.absolute())
        step = None if lock is None else lock.before.get("finished")
        if lock is not None and step is not None:
            lock.note(finished=step)
            raise InputError(f"the run in {home} has just finished, with step {step}")

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Tell all processes which folders those of the loggers are."""
        if is_fast_dev_run(trainer):
            return
        loggers = [logger for logger in trainer.loggers if _has_own_folder(logger)]
        versions: list[Any] = (
            [logger.version for logger in loggers] if trainer.is_global_zero else []
        )
        versions = trainer.strategy.broadcast(versions)
        for logger, version in zip(loggers, versions, strict=True):
            set_version(logger, version)
        self._together(trainer, self._take_version, loggers)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the folders of the checkpoints."""
        if is_fast_dev_run(trainer):
            return
        callbacks = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]
        folders = [str(c.dirpath) for c in callbacks if c.dirpath and "://" not in str(c.dirpath)]
        self._together(trainer, self._take, [Path(folder) for folder in folders])

    def _together(
        self, trainer: pl.Trainer, take: Callable[[Any], None], folders: Sequence[Any]
    ) -> None:
        """Take folders on rank zero; where it has to stop, all do."""
        refusal = ""
        if trainer.is_global_zero:
            try:
                for folder in folders:
                    take(folder)
            except InputError as error:
                refusal = str(error)
        refusal = trainer.strategy.broadcast(refusal)
        if refusal:
            raise InputError(refusal)

    def _take(self, folder: Path) -> None:
        folder = folder.absolute()
        is_ours = any(own in (folder, *folder.parents) for own in self._versions)
        if not is_ours and folder not in self._locks:
            self._locks[folder] = FolderLock(folder, self.run)

    def _take_version(self, logger: Logger) -> None:
        folder = _folder(logger)
        self._take(folder)
        self._versions.add(folder.absolute())

    def note_end(self, trainer: pl.Trainer) -> None:
        """Write down that the run has come to its end, and all that was to follow is done.

        Args:
            trainer: of the run.
        """
        for lock in self._locks.values():
            lock.note(finished=trainer.global_step)

    def release(self) -> None:
        """Give all folders back; those that were claimed keep the name of the run."""
        while self._locks:
            folder, lock = self._locks.popitem()
            lock.release(keep_note=folder in self._for_good)
        self._for_good, self._versions = set(), set()

    def _release_what_was_not_claimed(self) -> None:
        for folder in self._locks.keys() - self._for_good:
            self._locks.pop(folder).release()
        self._versions &= self._for_good

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the folders back that were not claimed before the run."""
        self._release_what_was_not_claimed()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Give the folders back that were not claimed before the run."""
        self._release_what_was_not_claimed()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note whose checkpoint it is."""
        checkpoint[RUN] = self.run


def _has_own_folder(logger: Logger) -> bool:
    """Whether a logger keeps a folder on this machine for each run."""
    own = isinstance(logger, TensorBoardLogger | CSVLogger)
    return own and "://" not in str(logger.save_dir)


def _is_of_job(version: int | str) -> bool:
    """Whether Lightning has named a version after the job, in which several commands may run."""
    return SLURMEnvironment.detect() and version == SLURMEnvironment.job_id()


def _goes_on_for_slurm(trainer: pl.Trainer) -> bool:
    """Whether Lightning will choose by itself to go on from what a job has left."""
    root = str(trainer.default_root_dir)
    return "://" not in root and any(Path(root).glob("hpc_ckpt_*.ckpt"))


def _version(name: str) -> int | str:
    number = name.removeprefix("version_")
    return int(number) if number.isdigit() else name


def _root(logger: Any) -> Path:
    """Folder of all runs of a logger."""
    return Path(os.path.expandvars(logger.root_dir)).expanduser()


def _folder(logger: Any) -> Path:
    """Where a logger has its version; TensorBoard's may write into a folder below."""
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    return _root(logger) / version


def _folders_of(root: Path, run: str, home: Path) -> list[Path]:
    """The folders that loggers of a run have below that of all runs, in the order of loggers."""
    root, home = root.absolute(), home.absolute()
    found = [path for path in root.glob("*/") if last_run_in(path).get("run") == run]
    found += [home] if home.parent == root and home not in found else []
    return sorted(found, key=lambda path: (path != home, len(path.name), path.name))
