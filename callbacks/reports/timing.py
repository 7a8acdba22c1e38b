"""Wall-clock time of networks."""

from __future__ import annotations

import copy
import platform
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

__all__ = ["device_name", "median_times", "on_ready_tokens", "rows_of"]

_WARM_UP = 2

Name = TypeVar("Name", bound=Hashable)


def median_times(
    calls: Mapping[Name, Callable[[], object]],
    device: torch.device,
    min_runs: int,
    seconds: float,
) -> dict[Name, float]:
    """Median of the seconds that each call takes, the wait for the device included.

    They take turns, so that what else the machine does meets all of them alike.

    Args:
        calls: By name.
        device: Where they compute.
        min_runs: Timed runs of each call at least.
        seconds: And at least so long, for each on average.
    """
    taken: dict[Name, list[float]] = {name: [] for name in calls}
    runs, spent = -_WARM_UP, 0.0
    while runs < min_runs or spent < seconds * len(calls):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if device.type != "cpu":
                torch.accelerator.synchronize(device)
            if runs >= 0:
                taken[name].append(time.perf_counter() - start)
                spent += taken[name][-1]
        runs += 1
    return {name: statistics.median(times) for name, times in taken.items()}


def on_ready_tokens(net: Any, tokens: Any) -> nn.Module:
    """A copy of a circuit whose tokenizer has done its work: it gives these tokens.

    Args:
        net: circuit with a ``tokenizer``; the tokenizer itself is not copied.
        tokens: what its tokenizer returned for the inputs that will be timed.
    """
    return copy.deepcopy(net, {id(net.tokenizer): _Ready(tokens)})


class _Ready(nn.Module):
    def __init__(self, tokens: Any) -> None:
        super().__init__()
        self.tokens = tokens

    def forward(self, inputs: Any) -> Any:
        return self.tokens


def rows_of(inputs: Any, count: int) -> Any:
    """So many rows of a batch, a tensor or a dictionary of tensors; repeated where it has fewer.

    Args:
        inputs: tensor ``[B, …]``, or a dictionary of them; B ≥ 1.
        count: how many rows.

    Returns:
        Of the form of ``inputs``, ``[count, …]``.
    """
    if isinstance(inputs, dict):
        return {name: rows_of(value, count) for name, value in inputs.items()}
    assert isinstance(inputs, Tensor)
    return inputs[torch.arange(count, device=inputs.device) % len(inputs)]


def device_name(device: torch.device) -> str:
    """What a device is called, for reports.

    Args:
        device: of any type; for CUDA it is the card's name, for a CPU the processor's.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine() if device.type == "cpu" else str(device)
