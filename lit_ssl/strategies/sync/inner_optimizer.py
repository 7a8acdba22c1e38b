"""Buffers of the inner optimizers (momentum, Adam's moments) at the start of a round."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["BufferPolicy", "averaged_states", "choose_policy", "reset_"]

BufferPolicy = Literal["auto", "maintain", "reset", "average"]


def choose_policy(policy: BufferPolicy, optimizer: Optimizer, sync_every: int) -> BufferPolicy:
    """Resolve ``auto``: reset the momentum of SGD in rounds of 8 steps or more, else maintain.

    Warns where a reset momentum would have no time to build up again.

    Args:
        policy: what the user asked for.
        optimizer: inner optimizer.
        sync_every: steps of a round.
    """
    momentum = max(float(group.get("momentum") or 0) for group in optimizer.param_groups)
    if policy == "auto":
        plain_sgd = isinstance(optimizer, torch.optim.SGD) and momentum > 0
        return "reset" if plain_sgd and sync_every >= 8 else "maintain"
    if policy == "reset" and sync_every < 8 and momentum >= 0.9:
        warnings.warn(
            f"buffers='reset' with sync_every={sync_every} and momentum {momentum} leaves the "
            "momentum no time to build up; use buffers='maintain', or rounds of 8 steps or more",
            stacklevel=2,
        )
    return policy


def averaged_states(optimizer: Optimizer, parameters: Iterable[Tensor]) -> list[Tensor]:
    """State tensors that have the shape of their parameter, in a fixed order."""
    found = []
    for parameter in parameters:
        state = optimizer.state.get(parameter, {})
        for key in sorted(state):
            value = state[key]
            if (
                isinstance(value, Tensor)
                and value.shape == parameter.shape
                and value.is_floating_point()
                and key != "step"  # has the shape of a parameter without dimensions
            ):
                found.append(value)
    return found


@torch.no_grad()
def reset_(optimizer: Optimizer, parameters: Iterable[Tensor]) -> None:
    """Zero momentum and moments in place, and Adam's step count with them."""
    parameters = list(parameters)
    for state in averaged_states(optimizer, parameters):
        state.zero_()
    for parameter in parameters:
        step = optimizer.state.get(parameter, {}).get("step")
        if isinstance(step, Tensor):
            step.zero_()
        elif step is not None:
            optimizer.state[parameter]["step"] = 0
