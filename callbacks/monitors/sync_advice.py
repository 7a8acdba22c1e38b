"""Compute against communication: how many local steps would pay."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass, field
from typing import NamedTuple

import lightning.pytorch as pl
import torch
import torch.distributed as dist

__all__ = ["Advice", "StepClock", "time_all_reduce", "wait_for"]

_REPEATS = 3
_LONG_ENOUGH = 1.0  # seconds after which an all-reduce is not repeated


class Advice(NamedTuple):
    """What a step and an average cost, and the period H that follows from it.

    Attributes:
        compute: seconds of an optimiser step without communication.
        backward: seconds of its backward pass, behind which DDP can hide communication.
        all_reduce: seconds of one average of the model.
        overhead: share of the time that communication may take, in (0, 1).
        parameters: numbers that are averaged.
    """

    compute: float
    backward: float
    all_reduce: float
    overhead: float
    parameters: int

    @property
    def period(self) -> int:
        """Smallest H at which communication takes at most ``overhead`` of the time."""
        allowed = self.overhead / (1 - self.overhead) * self.compute
        return max(1, math.ceil(self.all_reduce / allowed - 1e-9))

    def share(self, period: int) -> float:
        """Share of the time that communication takes with H local steps.

        Args:
            period: H, the optimiser steps between two averages, ≥ 1.

        Returns:
            In [0, 1].
        """
        return self.all_reduce / (self.all_reduce + period * self.compute)

    def line(self, current: int) -> str:
        """One line for people.

        Args:
            current: H of the run.
        """
        text = (
            f"a step computes for {1e3 * self.compute:.3g} ms and averaging "
            f"{self.parameters / 1e6:.3g} M parameters takes {1e3 * self.all_reduce:.3g} ms: "
        )
        if self.period == 1:
            return text + "even DDP would communicate too little to be worth avoiding"
        text += (
            f"sync_every={self.period} keeps communication at {self.share(self.period):.0%} of the "
            f"time (sync_every={current}: {self.share(current):.0%})"
        )
        if self.all_reduce < self.backward:
            text += "; but DDP can hide this much behind the backward pass"
        elif self.period > max(32, current):
            text += "; accuracy falls with long rounds, so lengthen them in steps"
        return text


def wait_for(device: torch.device) -> None:
    """Let the host wait until a CUDA device is done; nothing on a CPU.

    Args:
        device: a CUDA device, or any other.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_all_reduce(numel: int, device: torch.device) -> float:
    """Seconds of an all-reduce of float32 numbers; all processes must call it together.

    Args:
        numel: how many numbers are reduced, ≥ 1.
        device: where they lie.

    Returns:
        The shortest of a few times; of each, that of the slowest process.
    """
    buffer = torch.zeros(numel, device=device)
    dist.all_reduce(buffer[:1])  # opens the connections
    times: list[float] = []
    for _ in range(_REPEATS):
        wait_for(device)
        start = time.perf_counter()
        dist.all_reduce(buffer)
        wait_for(device)
        took = torch.tensor([time.perf_counter() - start], device=device)
        dist.all_reduce(took, op=dist.ReduceOp.MAX)  # so that all stop together
        times.append(took.item())
        if took > _LONG_ENOUGH:
            break
    return min(times)


@dataclass
class StepClock:
    """Times training batches and their parts: forward, backward, and everything else.

    Where gradients are averaged during the backward pass, what is longer than twice the forward
    pass counts as communication: backward passes of common networks do not take longer by
    themselves.

    Args:
        skip: batches at the start that do not count.
        count: batches to time.
    """

    skip: int
    count: int
    compute: list[float] = field(default_factory=list)
    backward: list[float] = field(default_factory=list)
    _begin: float | None = None  # of the batch: the end of the one before it
    _mark: float = 0.0
    _forward_time: float = 0.0
    _backward_time: float = 0.0
    _outside: float = 0.0

    @property
    def is_running(self) -> bool:
        """Whether there is still something to time."""
        return len(self.compute) < self.count

    def pause(self) -> None:
        """Leave out the batch that is under way."""
        self._begin = None

    def leave_out(self, seconds: float) -> None:
        """Time of this batch that was no computation.

        Args:
            seconds: to take off what this batch took.
        """
        self._outside += seconds

    def start_batch(self, device: torch.device) -> None:
        """The batch is on the device.

        Args:
            device: of the module; it is waited for.
        """
        self._mark = self._now(device)
        self._forward_time = self._backward_time = self._outside = 0.0

    def end_forward(self, device: torch.device) -> None:
        """The loss is there.

        Args:
            device: of the module; it is waited for.
        """
        now = self._now(device)
        self._forward_time += now - self._mark
        self._mark = now

    def end_backward(self, device: torch.device) -> None:
        """The gradients are there.

        Args:
            device: of the module; it is waited for.
        """
        now = self._now(device)
        self._backward_time += now - self._mark
        self._mark = now

    def end_batch(self, device: torch.device, communicates: bool) -> None:
        """The batch is done.

        Args:
            device: that it ran on.
            communicates: whether gradients were averaged in it.
        """
        now = self._now(device)
        begin, self._begin = self._begin, now
        if self.skip > 0:
            self.skip -= 1
        elif begin is not None:
            backward = self._backward_time
            if communicates:
                backward = min(backward, 2 * self._forward_time)
            rest = now - begin - self._outside - self._backward_time
            self.compute.append(rest + backward)
            self.backward.append(backward)

    @staticmethod
    def _now(device: torch.device) -> float:
        wait_for(device)
        return time.perf_counter()

    def advice(self, trainer: pl.Trainer, all_reduce: float, numel: int, share: float) -> Advice:
        """What follows from the times.

        Args:
            trainer: knows how many batches make a step.
            all_reduce: seconds of one average.
            numel: numbers in it.
            share: of the time that communication may take.
        """
        batches = trainer.accumulate_grad_batches
        compute = statistics.median(self.compute) * batches
        backward = statistics.median(self.backward)  # DDP communicates in the last one only
        return Advice(compute, backward, all_reduce, share, numel)
