"""Momentum SGD with the learning rate inside the momentum buffer: one model's StackedSGD."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from lit_ssl.errors import InputError


class InnerLrSGD(Optimizer):
    """SGD whose momentum buffer adds up ``lr * gradient`` instead of gradients.

    The buffer is ``v = momentum * v + lr * g`` and the update ``p -= v`` (Nesterov:
    ``p -= lr * g + momentum * v``). At a constant learning rate this is ``torch.optim.SGD``. Under
    a schedule it differs: a gradient keeps the learning rate of the step it came in.

    Args:
        params: Parameters or parameter groups.
        lr: Learning rate, >= 0.
        momentum: In [0, 1).
        weight_decay: Added to the gradient as ``weight_decay * p``, >= 0.
        nesterov: Use Nesterov momentum; needs ``momentum > 0``.

    Raises:
        ValueError: If a value lies outside its range.

    Source: the SGD of MSN's linear evaluation (arXiv 2204.07141, appendix A.3, released code).
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        if lr < 0 or not 0 <= momentum < 1 or weight_decay < 0:
            raise InputError(
                "InnerLrSGD needs lr >= 0, 0 <= momentum < 1 and weight_decay >= 0, got "
                f"lr={lr}, momentum={momentum}, weight_decay={weight_decay}"
            )
        if nesterov and momentum == 0:
            raise InputError("InnerLrSGD: nesterov=True needs momentum > 0")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update the parameters once; ``closure`` recomputes and returns the loss if given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._step_group(params, group)
        return loss

    def _step_group(self, params: list[Tensor], group: dict[str, Any]) -> None:
        momentum = group["momentum"]
        steps = [p.grad.clone() for p in params if p.grad is not None]
        if group["weight_decay"]:
            torch._foreach_add_(steps, params, alpha=group["weight_decay"])
        torch._foreach_mul_(steps, group["lr"])
        for p in params:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum_buffer"] for p in params]
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, steps)
        if group["nesterov"]:
            torch._foreach_add_(steps, buffers, alpha=momentum)
        torch._foreach_sub_(params, steps if group["nesterov"] else buffers)
