"""Exponential-moving-average copies of a network."""

from __future__ import annotations

from copy import deepcopy
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor, nn

from lit_ssl.errors import InputError
from lit_ssl.models.backbones.vit import without_drop_path
from lit_ssl.precision import widened_

__all__ = ["ema_state_update_", "ema_update_", "target_copy"]

M = TypeVar("M", bound=nn.Module)


def target_copy(module: M) -> M:
    """A frozen deep copy for use as target network; stochastic depth is off in it.

    It is float32 also where the network is of half precision, which would round away its small
    steps.

    Args:
        module: is left as it is.
    """
    copy = deepcopy(module).requires_grad_(False)
    widened_(copy)
    without_drop_path(copy)
    return copy


@torch.no_grad()
def ema_update_(target: nn.Module, online: nn.Module, decay: float) -> None:
    """``target = decay * target + (1 - decay) * online`` for all parameters, in place.

    Buffers are left alone: the target's BatchNorm statistics come from its own forwards.

    Args:
        target: the slow network; changed.
        online: the trained one, with the same parameters.
        decay: in [0, 1].
    """
    slow: list[Tensor] = [*target.parameters()]
    fast = [p.to(q.dtype) for p, q in zip(online.parameters(), slow, strict=True)]
    torch._foreach_lerp_(slow, fast, 1.0 - decay)


@torch.no_grad()
def ema_state_update_(target: nn.Module, online: nn.Module, decay: float) -> None:
    """``ema_update_`` for all floating state, parameters and buffers, in place.

    Buffers of whole numbers or bools are copied. A decay of 0 copies everything exactly.

    Args:
        target: the slow copy.
        online: the network that trains, of the same form.
        decay: in [0, 1].

    Raises:
        ValueError: if the two have different parameters or buffers.
    """
    slow = dict(chain(target.named_parameters(), target.named_buffers()))
    fast = dict(chain(online.named_parameters(), online.named_buffers()))
    if slow.keys() != fast.keys():
        names = ", ".join(sorted(slow.keys() ^ fast.keys())[:3])
        raise InputError(f"an average needs two networks of one form; they differ in {names}")
    floats = [name for name, tensor in slow.items() if tensor.is_floating_point()]
    torch._foreach_lerp_(
        [slow[name] for name in floats],
        [fast[name].to(slow[name].dtype) for name in floats],
        1.0 - decay,
    )
    for name in slow.keys() - set(floats):
        slow[name].copy_(fast[name])
