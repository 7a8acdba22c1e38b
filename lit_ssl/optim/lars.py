"""LARS, timm's, with the learning rate inside the momentum buffer if wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.optim import Lars

__all__ = ["InnerLrLars", "make_lars"]


class InnerLrLars(Lars):
    """LARS whose momentum buffer adds up ``lr * gradient`` instead of gradients.

    A gradient then keeps the learning rate of the step it came in. At a constant learning rate this
    is timm's ``Lars``; under a schedule the buffers are multiplied by the ratio of the last
    learning rate to this one before each step, which comes to the same. A learning rate of 0 moves
    nothing and forgets the momentum.

    Args:
        params: parameters or parameter groups.
        kwargs: arguments of ``timm.optim.Lars``.

    Source: the LARS of PAWS' released code.
    """

    def __init__(self, params: Any, **kwargs: Any) -> None:
        super().__init__(params, **kwargs)

    @torch.no_grad()
    def step(  # type: ignore[override]
        self, closure: Callable[[], float] | None = None
    ) -> float | None:
        """Update the parameters once; ``closure`` recomputes and returns the loss if given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            last, now = group.get("last_lr"), group["lr"]
            if last is not None and now and last != now:
                states = (self.state[p] for p in group["params"] if p in self.state)
                buffers = [s["momentum_buffer"] for s in states if "momentum_buffer" in s]
                if buffers:
                    torch._foreach_mul_(buffers, last / now)
            group["last_lr"] = now
        super().step()
        return loss


def make_lars(
    groups: list[dict[str, Any]],
    lr: float,
    momentum: float = 0.9,
    trust_coefficient: float = 1e-3,
    lr_in_momentum: bool = True,
) -> Lars:
    """LARS on decayed and undecayed groups; undecayed parameters are not adapted either.

    Args:
        groups: of [`decay_groups`][lit_ssl.optim.decay_groups], changed in place. The decayed ones
            are adapted even where the weight decay is 0.
        lr: learning rate.
        momentum: in [0, 1).
        trust_coefficient: of the adapted learning rate.
        lr_in_momentum: [`InnerLrLars`][lit_ssl.optim.InnerLrLars] in place of timm's ``Lars``.
    """
    for group in groups:
        group["always_adapt"] = group["decay"]
    options: dict[str, Any] = {
        "lr": lr,
        "momentum": momentum,
        "trust_coeff": trust_coefficient,
        "eps": 1e-8,
    }
    return InnerLrLars(groups, **options) if lr_in_momentum else Lars(groups, **options)
