"""Parameter groups with and without weight decay."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

__all__ = ["decay_groups", "is_bias_or_norm"]


def is_bias_or_norm(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is usually not decayed: 1-D tensors (biases, norms, layer scales)."""
    return parameter.ndim <= 1


def decay_groups(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    weight_decay: float,
    exclude: Callable[[str, nn.Parameter], bool] = is_bias_or_norm,
) -> list[dict[str, Any]]:
    """Split trainable parameters into a decayed and an undecayed group.

    Args:
        named_parameters: from ``module.named_parameters()``; frozen ones are left out.
        weight_decay: of the decayed group.
        exclude: which parameters are not decayed, by name and tensor.

    Returns:
        Groups named ``decay`` and ``no_decay`` (empty ones left out); ``group["decay"]`` tells them
        apart for :func:`lit_ssl.optim.set_schedules`.
    """
    split: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            split[not exclude(name, parameter)].append(parameter)
    groups = [
        {"params": split[True], "name": "decay", "decay": True, "weight_decay": weight_decay},
        {"params": split[False], "name": "no_decay", "decay": False, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
