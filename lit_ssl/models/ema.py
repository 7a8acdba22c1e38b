"""Exponential-moving-average copies of a network."""

from __future__ import annotations

from copy import deepcopy
from typing import TypeVar

import torch
from torch import Tensor, nn

from lit_ssl.models.backbones.vit import without_drop_path
from lit_ssl.precision import widened_

__all__ = ["ema_update_", "target_copy"]

M = TypeVar("M", bound=nn.Module)


def target_copy(module: M) -> M:
    """A frozen deep copy for use as target network; stochastic depth is off in it.

    It is float32 also where the network is of half precision, which would round away its small
    steps.
    """
    copy = deepcopy(module).requires_grad_(False)
    widened_(copy)
    without_drop_path(copy)
    return copy


@torch.no_grad()
def ema_update_(target: nn.Module, online: nn.Module, decay: float) -> None:
    """``target = decay * target + (1 - decay) * online`` for all parameters, in place.

    Buffers are left alone: the target's BatchNorm statistics come from its own forwards.
    """
    slow: list[Tensor] = [*target.parameters()]
    fast = [p.to(q.dtype) for p, q in zip(online.parameters(), slow, strict=True)]
    torch._foreach_lerp_(slow, fast, 1.0 - decay)
