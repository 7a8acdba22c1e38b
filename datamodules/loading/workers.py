"""Workers of a loader: how far they read ahead, and what each does first."""

from __future__ import annotations

import os
import signal
from typing import Any

from lightning.fabric.utilities.seed import pl_worker_init_function

from lit_ssl.errors import InputError

__all__ = ["begin_worker", "check_prefetch"]

_GRACE = 60  # seconds


def begin_worker(worker: int) -> None:
    """Seed a worker as Lightning does, and let it outlive the SIGTERM that ends the run.

    Schedulers send SIGTERM to all processes of a job. The training then ends its step and saves,
    for which it may need another batch; a worker that went at once would end it with an error. So
    it goes a minute after the first SIGTERM, if it is still there, and at once after a second one,
    which is that of the loader.

    Args:
        worker: Its number.
    """
    if int(os.environ.get("PL_SEED_WORKERS", 0)):
        pl_worker_init_function(worker)
    signal.signal(signal.SIGTERM, _go_later)


def check_prefetch(prefetch_factor: int, num_workers: int) -> None:
    """Refuse a number of batches to read ahead that no loader could keep.

    Args:
        prefetch_factor: Batches per worker.
        num_workers: Workers of a loader.

    Raises:
        InputError: It is below 1, or there are no workers.
    """
    if prefetch_factor < 1:
        raise InputError(f"prefetch_factor must be at least 1, got {prefetch_factor}")
    if num_workers < 1:
        raise InputError(
            f"prefetch_factor: {prefetch_factor} is for workers, and num_workers is {num_workers}:"
            " set num_workers to at least 1, or prefetch_factor to null"
        )


def _go_later(signum: int, frame: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.alarm(_GRACE)
