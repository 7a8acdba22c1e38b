"""SIGTERM: how a process ends that cannot, or need not, save anything first."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import active_children
from subprocess import Popen, TimeoutExpired
from typing import Any, NoReturn
from weakref import WeakKeyDictionary

import lightning.pytorch as pl
from lightning.pytorch.utilities.exceptions import SIGTERMException

__all__ = [
    "STATUS",
    "die",
    "end_children",
    "end_workers",
    "leave",
    "leave_children",
    "leaves_at_once",
    "terminated",
]

STATUS = 128 + signal.SIGTERM  # what a shell says of a process that SIGTERM has ended
_PATIENCE = 5.0  # seconds for processes that were told to end
_left: WeakKeyDictionary[pl.Trainer, list[Popen[bytes]]] = WeakKeyDictionary()


def terminated() -> SIGTERMException:
    """The exception that ends this process with exit status 143."""
    return SIGTERMException(STATUS)


def leave(signum: int, frame: Any) -> None:
    """End this process from inside a signal handler, at the line where it is.

    Lightning's handler calls the one that was there before it; then this does nothing.

    Args:
        signum: the signal's number; not used.
        frame: where the process was; not used.

    Raises:
        SIGTERMException: with exit status 143.
    """
    if signal.getsignal(signal.SIGTERM) is leave:
        raise terminated()


@contextmanager
def leaves_at_once() -> Iterator[None]:
    """Let SIGTERM end this process with exit status 143, after all that stands in ``finally``."""
    if threading.current_thread() is not threading.main_thread():  # only there signals arrive
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def die(trainer: pl.Trainer) -> NoReturn:
    """End this process, and those that it has started, and save nothing.

    Args:
        trainer: of the run.

    Raises:
        SIGTERMException: with exit status 143, if the signal is blocked.
    """
    for child in _children(trainer):
        child.kill()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
    raise terminated()  # where the signal is blocked


def leave_children(trainer: pl.Trainer) -> None:
    """Let the processes that Lightning has started end by themselves.

    Lightning watches them, and kills this process as soon as one of them has ended with another
    exit status than 0.

    Args:
        trainer: The running trainer; without effect where something else has started the processes,
            as torchrun does.
    """
    children = _children(trainer)
    _left.setdefault(trainer, []).extend(children)
    children.clear()  # it is the list at which Lightning looks


def end_children(trainer: pl.Trainer) -> None:
    """Wait a few seconds until the processes that Lightning has started have ended; kill the rest.

    Those that do not end by themselves get SIGTERM first.

    Args:
        trainer: of the run.
    """
    for child in _children(trainer):
        child.send_signal(signal.SIGTERM)
    leave_children(trainer)
    for child in _left.pop(trainer):
        try:
            child.wait(_PATIENCE)
        except TimeoutExpired:  # it waits for a process that is not there any more
            child.kill()
            child.wait()


def end_workers() -> None:
    """Kill the workers of loaders, which nobody is going to ask for another batch.

    They take a first SIGTERM for that of a scheduler (``begin_worker`` of the data modules), so
    that torch, where a worker does not go by itself, would wait for some seconds for each loader.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's tells that a worker was killed
        for child in active_children():
            if child.daemon:
                child.kill()


def _children(trainer: pl.Trainer) -> list[Popen[bytes]]:
    return getattr(trainer.strategy.launcher, "procs", [])
