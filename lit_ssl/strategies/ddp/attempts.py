"""Process groups that survive a restart by torchrun, and signals that need no communication."""

from __future__ import annotations

import atexit
import os
import signal
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import Any

import lightning.pytorch as pl
import torch.distributed as dist

__all__ = ["agent_store", "attempt_store", "keep_signals_local", "leave_group_at_exit"]


def agent_store(timeout: timedelta) -> dist.Store | None:
    """Connect to the store that torchrun's agent keeps over restarts; None without one."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return dist.TCPStore(address, port, is_master=False, timeout=timeout)


def attempt_store(
    store: dist.Store, rank: int, world_size: int, timeout: timedelta, namespace: str = "lit_ssl"
) -> dist.Store:
    """A part of a shared store that only the processes of this attempt write to.

    After a restart the store still holds the addresses of processes that are dead, and gloo would
    try to reach them. The number of restarts does not tell attempts apart, since agents on
    different nodes may have counted differently. So every process leaves a new name, and rank 0
    answers with the name of the attempt until all have confirmed.

    Args:
        store: shared by all processes and attempts.
        rank: number of this process.
        world_size: number of processes.
        timeout: how long to wait for the others.
        namespace: beginning of the keys.

    Raises:
        RuntimeError: if some process does not show up.
    """
    name = uuid.uuid4().hex
    if rank == 0:
        _answer_all(store, name, world_size, timeout, namespace)
        return dist.PrefixStore(f"{namespace}/{name}", store)
    store.set(f"{namespace}/hello/{rank}", name)
    answer = f"{namespace}/attempt/{name}"
    store.wait([answer], timeout)
    attempt = store.get(answer).decode()
    store.set(f"{namespace}/ready/{attempt}/{rank}", "1")
    return dist.PrefixStore(f"{namespace}/{attempt}", store)


def _answer_all(
    store: dist.Store, attempt: str, world_size: int, timeout: timedelta, namespace: str
) -> None:
    answered: dict[int, str] = {}
    missing = set(range(1, world_size))
    deadline = time.monotonic() + timeout.total_seconds()
    while missing:
        for rank in sorted(missing):
            hello = f"{namespace}/hello/{rank}"
            if store.check([hello]) and answered.get(rank) != (name := store.get(hello).decode()):
                answered[rank] = name  # may be that of a dead process; then a new one will follow
                store.set(f"{namespace}/attempt/{name}", attempt)
            if store.check([f"{namespace}/ready/{attempt}/{rank}"]):
                missing.discard(rank)
        if missing and time.monotonic() > deadline:
            raise RuntimeError(
                f"rank(s) {sorted(missing)} of {world_size} did not join within "
                f"{timeout.total_seconds():.0f} s after (re)start"
            )
        time.sleep(0.02)


@cache
def leave_group_at_exit() -> None:
    """Close the process group before the interpreter ends.

    Gloo's threads may otherwise abort the process, or keep it from ending, after all is done;
    torchrun would then start the run again. Lightning does the same for NCCL.
    """

    def leave() -> None:
        if dist.is_initialized():
            dist.destroy_process_group()

    atexit.register(leave)


def keep_signals_local(trainer: pl.Trainer, is_local: Callable[[], bool]) -> None:
    """Spare local steps the communication by which Lightning agrees on SIGTERM.

    Lightning broadcasts a flag before every batch, and once more inside its signal handler. In
    local steps neither may happen: processes are at different steps then. A process that gets
    SIGTERM stops by itself at the end of its batch.

    Args:
        trainer: before its signal handlers are registered.
        is_local: whether local steps are running.
    """
    loop, connector = trainer.fit_loop.epoch_loop, trainer._signal_connector
    broadcast = getattr(type(loop), "_broadcast_sigterm_tensor", None)
    if broadcast is not None:  # since Lightning 2.6

        def broadcast_unless_local() -> None:
            if not is_local():
                broadcast(loop)

        loop._broadcast_sigterm_tensor = broadcast_unless_local  # type: ignore[method-assign]

    notify = type(connector)._sigterm_notifier_fn

    def notify_locally(signum: signal.Signals | int, frame: Any) -> None:
        if not is_local():
            notify(connector, signum, frame)
            return
        launcher = trainer.strategy.launcher
        if launcher is not None and not connector.received_sigterm:
            launcher.kill(signum)
        connector.received_sigterm = True

    connector._sigterm_notifier_fn = notify_locally  # type: ignore[method-assign, assignment]
