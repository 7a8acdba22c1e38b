"""Inner optimizers at the start of a round: their buffers, and the loss scale."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lit_ssl.errors import InputError
from lit_ssl.strategies.options import BufferPolicy
from lit_ssl.trainer.private import lower_loss_scale

__all__ = ["averaged_states", "choose_policy", "loss_scale", "reset_", "share_loss_scale"]

# What these remember of a parameter is its step count and tensors of its shape, zero at first.
_BEGIN_WITH_ZEROS = (
    torch.optim.Adadelta, torch.optim.Adam, torch.optim.Adamax, torch.optim.AdamW,
    torch.optim.RAdam, torch.optim.RMSprop, torch.optim.SGD,
)  # fmt: skip


def choose_policy(policy: BufferPolicy, optimizer: Optimizer, sync_every: int) -> BufferPolicy:
    """Resolve ``auto``: reset the momentum of SGD in rounds of 8 steps or more, else maintain.

    Warns where a reset momentum would have no time to build up again.

    Args:
        policy: what the user asked for.
        optimizer: inner optimizer.
        sync_every: steps of a round.

    Raises:
        ValueError: if the optimizer cannot be reset.
    """
    momentum = max(float(group.get("momentum") or 0) for group in optimizer.param_groups)
    if policy == "auto":
        plain_sgd = isinstance(optimizer, torch.optim.SGD) and momentum > 0
        return "reset" if plain_sgd and sync_every >= 8 else "maintain"
    known = (*_BEGIN_WITH_ZEROS, torch.optim.Adagrad)
    if policy == "reset" and optimizer.state and type(optimizer) not in known:
        raise InputError(
            f"buffers='reset': {type(optimizer).__name__} has a state before its first step, and "
            "what a fresh one has is not known; use buffers='maintain'"
        )
    if policy == "reset" and sync_every < 8 and momentum >= 0.9:
        warnings.warn(
            f"buffers='reset' with sync_every={sync_every} and momentum {momentum} leaves the "
            "momentum no time to build up; use buffers='maintain', or rounds of 8 steps or more",
            stacklevel=2,
        )
    return policy


def averaged_states(optimizer: Optimizer, parameters: Iterable[Tensor]) -> list[Tensor]:
    """State tensors that have the shape of their parameter, in a fixed order.

    Args:
        optimizer: of these parameters.
        parameters: some or all of its own.

    Returns:
        Those of floating-point type: momentum and moments, by parameter and then by name.
    """
    found = []
    for parameter in parameters:
        for key, value in sorted(optimizer.state.get(parameter, {}).items()):
            like = isinstance(value, Tensor) and value.shape == parameter.shape
            if like and value.is_floating_point() and key != "step":  # that of a scalar parameter
                found.append(value)
    return found


@torch.no_grad()
def reset_(optimizer: Optimizer, parameters: Iterable[Tensor]) -> None:
    """Bring what an optimizer remembers of some parameters to what a new one knows.

    Where that is zeros, momentum, moments and step counts are zeroed in place; other state is
    dropped, and made anew in the next step.

    Args:
        optimizer: of these parameters; it is changed.
        parameters: some or all of its own.
    """
    parameters = list(parameters)
    reset = {id(p) for p in parameters}
    for group in optimizer.param_groups:
        if "step" in group and all(id(p) in reset for p in group["params"]):
            group["step"] = 0 * group["step"]  # timm's optimizers count there
    # with dampening, momentum of zero is not that of the first step
    dampened = any(group.get("dampening") for group in optimizer.param_groups)
    if type(optimizer) is torch.optim.Adagrad:
        _reset_sums(optimizer, reset)
    elif type(optimizer) not in _BEGIN_WITH_ZEROS or dampened:
        for parameter in parameters:
            optimizer.state.pop(parameter, None)
    else:
        for state in averaged_states(optimizer, parameters):
            state.zero_()
    for parameter in parameters:
        step = optimizer.state.get(parameter, {}).get("step")
        if isinstance(step, Tensor):
            step.zero_()
        elif step is not None:
            optimizer.state[parameter]["step"] = 0


def _reset_sums(optimizer: Optimizer, reset: set[int]) -> None:
    """Adagrad makes its state when it is made itself, and needs it there."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if id(parameter) in reset and parameter in optimizer.state:
                optimizer.state[parameter]["sum"].fill_(group["initial_accumulator_value"])


def loss_scale(precision: Any) -> float:
    """Loss scale of a precision plugin; 0 if it has none.

    Args:
        precision: of the Trainer.
    """
    scaler = getattr(precision, "scaler", None)
    return 0.0 if scaler is None else float(scaler.get_scale())


def share_loss_scale(precision: Any, scales: Sequence[float]) -> None:
    """Take the smallest loss scale: with a GradScaler, processes skip steps by themselves.

    Args:
        precision: precision plugin.
        scales: of all processes; 0 without one.
    """
    scaler = getattr(precision, "scaler", None)
    if scaler is not None and min(scales) > 0:
        lower_loss_scale(scaler, min(scales))
