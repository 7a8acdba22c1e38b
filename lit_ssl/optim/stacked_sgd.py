"""Momentum SGD for many models at once, each with its own learning rate and weight decay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from lit_ssl.errors import InputError

__all__ = ["StackedSGD"]


class StackedSGD(Optimizer):
    """Nesterov SGD on parameters stacked along their first axis, in one operation for all models.

    Slice i of every parameter belongs to model i, which moves as it would alone:

        g = gradient + weight_decays[i] * p
        v = momentum * v + learning_rates[i] * g          # the learning rate inside the buffer
        p = p - learning_rates[i] * g - momentum * v

    At a constant learning rate this is ``torch.optim.SGD``. Under a schedule it differs: a gradient
    keeps the learning rate of the step it came in.

    In the parameter groups, ``lr`` multiplies all learning rates and ``weight_decay`` all weight
    decays: 1 at first; a schedule changes them.

    Args:
        params: Parameters ``[models, …]`` or parameter groups of them.
        learning_rates: One for each model, >= 0.
        weight_decays: One for each model, >= 0.
        momentum: In (0, 1).

    Raises:
        ValueError: If a value lies outside its range, or the numbers of models differ.

    Source: the SGD of MSN's linear evaluation (arXiv 2204.07141, appendix A.3, released code).
    """

    def __init__(
        self,
        params: ParamsT,
        learning_rates: Sequence[float],
        weight_decays: Sequence[float],
        momentum: float = 0.9,
    ) -> None:
        if not learning_rates or len(learning_rates) != len(weight_decays):
            raise InputError(
                "StackedSGD needs one learning rate and one weight decay per model, got "
                f"{len(learning_rates)} and {len(weight_decays)}"
            )
        if min(*learning_rates, *weight_decays) < 0 or not 0 < momentum < 1:
            raise InputError(
                "StackedSGD needs learning rates and weight decays >= 0, momentum in (0, 1), got "
                f"{list(learning_rates)}, {list(weight_decays)} and {momentum}"
            )
        self.learning_rates = [float(value) for value in learning_rates]
        self.weight_decays = [float(value) for value in weight_decays]
        self._vectors: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}
        super().__init__(params, {"lr": 1.0, "weight_decay": 1.0, "momentum": momentum})
        sizes = {p.shape[0] if p.ndim else 0 for g in self.param_groups for p in g["params"]}
        if sizes != {len(learning_rates)}:
            raise InputError(
                f"StackedSGD has {len(learning_rates)} learning rates for parameters of "
                f"{sorted(sizes)} models"
            )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update the parameters once; ``closure`` recomputes and returns the loss if given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        rates, decays = self._on(parameter)
        shape = (-1, *[1] * (parameter.ndim - 1))
        if group["weight_decay"] and any(self.weight_decays):
            gradient = gradient.addcmul(decays.view(shape), parameter, value=group["weight_decay"])
        step = gradient * (rates * group["lr"]).view(shape)
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        momentum, buffer = group["momentum"], state["momentum_buffer"]
        buffer.mul_(momentum).add_(step)
        parameter.sub_(step.add_(buffer, alpha=momentum))

    def _on(self, parameter: Tensor) -> tuple[Tensor, Tensor]:
        """Learning rates and weight decays beside the parameter; copied there only once."""
        key = parameter.device, parameter.dtype
        if key not in self._vectors:
            both = self.learning_rates, self.weight_decays
            rates, decays = (torch.tensor(v, device=key[0], dtype=key[1]) for v in both)
            self._vectors[key] = rates, decays
        return self._vectors[key]
