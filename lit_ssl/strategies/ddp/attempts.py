"""Process groups that survive a restart by torchrun."""

from __future__ import annotations

import atexit
import os
import time
import uuid
from datetime import timedelta
from functools import cache

import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy

from lit_ssl.trainer.private import backend_of, timeout_of

__all__ = ["attempt_store", "join_attempt", "leave_group_at_exit"]


def join_attempt(strategy: DDPStrategy) -> None:
    """Under torchrun, create the process group in the store that its agent keeps.

    Args:
        strategy: whose process group is about to be made.
    """
    timeout = timeout_of(strategy)
    under_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if timeout is None or dist.is_initialized() or not under_agent:
        return
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(address, port, is_master=False, timeout=timeout)
    strategy.set_world_ranks()
    rank, world_size, device = strategy.global_rank, strategy.world_size, strategy.root_device
    dist.init_process_group(
        backend_of(strategy),
        store=attempt_store(store, rank, world_size, timeout),
        rank=rank,
        world_size=world_size,
        timeout=timeout,
        device_id=device if device.type != "cpu" else None,
    )


def attempt_store(store: dist.Store, rank: int, world_size: int, timeout: timedelta) -> dist.Store:
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

    Raises:
        RuntimeError: if some process does not show up.
    """
    name = uuid.uuid4().hex
    if rank == 0:
        _answer_all(store, name, world_size, timeout)
        return dist.PrefixStore(f"lit_ssl/{name}", store)
    store.set(f"lit_ssl/hello/{rank}", name)
    answer = f"lit_ssl/attempt/{name}"
    store.wait([answer], timeout)
    attempt = store.get(answer).decode()
    store.set(f"lit_ssl/ready/{attempt}/{rank}", "1")
    return dist.PrefixStore(f"lit_ssl/{attempt}", store)


def _answer_all(store: dist.Store, attempt: str, world_size: int, timeout: timedelta) -> None:
    answered: dict[int, str] = {}
    missing = set(range(1, world_size))
    deadline = time.monotonic() + timeout.total_seconds()
    while missing:
        for rank in sorted(missing):
            hello = f"lit_ssl/hello/{rank}"
            if store.check([hello]) and answered.get(rank) != (name := store.get(hello).decode()):
                answered[rank] = name  # may be that of a dead process; then a new one will follow
                store.set(f"lit_ssl/attempt/{name}", attempt)
            if store.check([f"lit_ssl/ready/{attempt}/{rank}"]):
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
