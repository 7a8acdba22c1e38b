"""What each worker of a loader does first."""

from __future__ import annotations

import os
import signal
from typing import Any

from lightning.fabric.utilities.seed import pl_worker_init_function

__all__ = ["begin_worker"]

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


def _go_later(signum: int, frame: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.alarm(_GRACE)
