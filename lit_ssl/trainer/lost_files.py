"""Files that a training can do without: a full disk costs them, and not what is trained.

A picture, a curve or a report that cannot be written is said in a warning, once for each kind, and
the run goes on. The program says so again at its end, and ends with an error.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import lightning.pytorch as pl

from lit_ssl.errors import listed, shortened

__all__ = ["LastingLogs", "lost_files", "may_be_lost", "quiet_writers"]

_WRITES = ("log_hyperparams", "log_metrics", "log_graph", "save", "finalize")

_lost: WeakKeyDictionary[pl.Trainer, dict[str, str]] = WeakKeyDictionary()


@contextmanager
def may_be_lost(trainer: pl.Trainer, what: str) -> Iterator[None]:
    """Write a file without which the training goes on.

    Args:
        trainer: The running trainer.
        what: The kind of file, in words: "the pictures of ViewLogger".
    """
    try:
        yield
    except Exception as failed:
        error = _of_the_disk(failed)
        if error is None:
            raise
        known = _lost.setdefault(trainer, {})
        if what not in known:
            known[what] = shortened(error)
            warnings.warn(
                f"{what} cannot be written, and the run goes on without: {known[what]}",
                stacklevel=3,
            )


def _of_the_disk(error: BaseException | None) -> OSError | None:
    """The error of the system that one comes from: loggers say others about it."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def lost_files(trainer: pl.Trainer) -> str | None:
    """Say in one line what this process could not write; None where all was written.

    Args:
        trainer: of the run.
    """
    known = _lost.get(trainer)
    if not known:
        return None
    each = [f"{what}: {why}" for what, why in known.items()]
    return f"not everything could be written: {listed(each, 5)}"


@contextmanager
def quiet_writers() -> Iterator[None]:
    """Keep the tracebacks of TensorBoard's threads, whose errors the caller gets as well.

    A logger opens its file before any callback is set up; what it meets there ends the run.
    """
    say = threading.excepthook
    threading.excepthook = lambda what: None if _is_of_a_writer(what) else say(what)
    try:
        yield
    finally:
        threading.excepthook = say


def _is_of_a_writer(what: threading.ExceptHookArgs) -> bool:
    """Whether TensorBoard, which writes in a thread and raises again what that met, failed so."""
    is_writer = type(what.thread).__module__.startswith("tensorboard.")
    return is_writer and isinstance(what.exc_value, OSError)


class LastingLogs(pl.Callback):
    """Lets a training go on where its loggers cannot write; ``lit-ssl`` always has it."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Stand between the trainer and what its loggers write."""
        if threading.excepthook != self._of_a_thread:
            self._say_of_threads = threading.excepthook
            threading.excepthook = self._of_a_thread
        for logger in trainer.loggers:
            for name in _WRITES:
                write = getattr(logger, name, None)
                if callable(write) and not isinstance(write, partial):
                    setattr(logger, name, partial(_write, trainer, logger, write))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Let errors of threads be said as before."""
        if threading.excepthook == self._of_a_thread:
            threading.excepthook = self._say_of_threads

    def _of_a_thread(self, what: threading.ExceptHookArgs) -> None:
        if not _is_of_a_writer(what):
            self._say_of_threads(what)


def _write(trainer: pl.Trainer, logger: Any, write: Any, *args: Any, **kwargs: Any) -> None:
    with may_be_lost(trainer, f"the logs of {type(logger).__name__}"):
        write(*args, **kwargs)
