"""Wall-clock time of networks."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Clock", "device_name", "rows_of"]

_WARM_UP = 2


class Clock:
    """Measures how long calls take, the wait for the device included.

    Args:
        device: Where the calls compute.
        min_runs: Timed runs of each call at least.
        seconds: And at least so long.
    """

    def __init__(self, device: torch.device, min_runs: int, seconds: float) -> None:
        self.device = device
        self.min_runs = min_runs
        self.seconds = seconds

    def __call__(self, call: Callable[[], object]) -> float:
        """Median of the seconds that a call takes."""
        for _ in range(_WARM_UP):
            call()
        self._wait()
        taken: list[float] = []
        while len(taken) < self.min_runs or sum(taken) < self.seconds:
            start = time.perf_counter()
            call()
            self._wait()
            taken.append(time.perf_counter() - start)
        return statistics.median(taken)

    def network_and_circuit(self, net: Any, inputs: Any) -> tuple[float, float]:
        """Seconds of a circuit with its tokenizer, and of the circuit on tokens that are there."""
        whole = self(lambda: net(inputs))
        tokenizer = net.tokenizer
        net.tokenizer = _Ready(tokenizer(inputs))
        try:
            return whole, self(lambda: net(inputs))
        finally:
            net.tokenizer = tokenizer

    def _wait(self) -> None:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)


class _Ready(nn.Module):
    """Stands for a tokenizer that has done its work."""

    def __init__(self, tokens: Any) -> None:
        super().__init__()
        self.tokens = tokens

    def forward(self, inputs: Any) -> Any:
        """The tokens."""
        return self.tokens


def rows_of(inputs: Any, count: int) -> Any:
    """So many rows of a batch, a tensor or a dictionary of tensors; repeated where it has fewer."""
    if isinstance(inputs, dict):
        return {name: rows_of(value, count) for name, value in inputs.items()}
    assert isinstance(inputs, Tensor)
    return inputs[torch.arange(count, device=inputs.device) % len(inputs)]


def device_name(device: torch.device) -> str:
    """What a device is called, for reports."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine() if device.type == "cpu" else str(device)
