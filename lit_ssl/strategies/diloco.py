"""DiLoCo: an outer optimizer on the average change of many local steps (arXiv 2311.08105)."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from lit_ssl.errors import InputError
from lit_ssl.strategies.local_sgd import LocalSGDStrategy
from lit_ssl.strategies.options import Fragments
from lit_ssl.strategies.sync.averaging import views_of
from lit_ssl.strategies.sync.units import SyncUnit

__all__ = ["DiLoCoStrategy"]


class DiLoCoStrategy(LocalSGDStrategy):
    """Hundreds of local AdamW steps, then one Nesterov step along ``x0 − mean``.

    Guarantee: that of [`LocalSGDStrategy`][lit_ssl.LocalSGDStrategy], the outer optimizer included;
        with ``mix``, local
    parameters never become equal, and validation and checkpoints have their average. Price: the
    traffic of local SGD, in one piece every 500 steps or spread by ``fragments``; ``x0`` and the
    outer momentum are two float32 copies on ``outer_device``, and in checkpoints.

    Streaming (arXiv 2501.18512): with ``fragments``, one part of the parameters after the other is
    synchronised, every ``sync_every / fragments`` steps; with ``delay``, communication runs while
    training goes on; then ``p ← outer + mix (p − outer)``.

    Args:
        outer_optimizer: any optimizer; None: SGD with learning rate 0.7 and Nesterov momentum 0.9.
            Adam needs an ``eps`` of about 0.1 here.
        sync_every: local steps of a round.
        fragments: number of parts of about equal size; or name patterns, one or several for each.
        mix: share of the local parameters that is kept.
        outer_device: where ``x0`` and the outer optimizer live; None: with the parameters.
        **kwargs: see [`LocalSGDStrategy`][lit_ssl.LocalSGDStrategy].

    Raises:
        InputError: if ``mix`` does not lie in [0, 1), or there are fewer fragments than 1 or more
            than ``sync_every``.

    Source: arXiv 2311.08105, Algorithm 1 and section 3.1.
    """

    def __init__(
        self,
        outer_optimizer: OptimizerCallable | None = None,
        sync_every: int = 500,
        fragments: Fragments = 1,
        mix: float = 0.0,
        outer_device: str | None = "cpu",
        **kwargs: Any,
    ) -> None:
        super().__init__(sync_every=sync_every, **kwargs)
        if not 0 <= mix < 1:
            raise InputError(f"mix must lie in [0, 1), not {mix}")
        count = fragments if isinstance(fragments, int) else len(fragments)
        if not 1 <= count <= sync_every:
            raise InputError(
                f"fragments must be 1 to sync_every ({sync_every}) in number, not {count}"
            )
        self.options.fragments, self.options.mix = fragments, mix
        self.options.check_combinations()
        self.outer_optimizer = outer_optimizer
        self.outer_device = outer_device

    def slow_norm(self) -> float:
        """Norm of the outer momentum of all parameters."""
        buffers = [
            state["momentum_buffer"].norm()
            for unit in self.units
            if unit.outer_optimizer is not None
            for state in unit.outer_optimizer.state.values()
            if state.get("momentum_buffer") is not None
        ]
        return float(torch.stack(buffers).norm()) if buffers else 0.0

    def _prepare_unit(self, unit: SyncUnit) -> None:
        super()._prepare_unit(unit)
        assert unit.x0 is not None
        if self.outer_device is not None:
            unit.x0 = unit.x0.to(self.outer_device)
        self._make_outer_optimizer(unit)

    def _make_outer_optimizer(self, unit: SyncUnit) -> None:
        """Give the outer optimizer one parameter for each of the unit's; they share ``x0``."""
        assert unit.x0 is not None
        views = views_of(unit.x0, unit.parameters)
        unit.outer_parameters = {n: nn.Parameter(v) for n, v in zip(unit.names, views, strict=True)}
        parameters = list(unit.outer_parameters.values())
        if self.outer_optimizer is None:
            unit.outer_optimizer = torch.optim.SGD(parameters, lr=0.7, momentum=0.9, nesterov=True)
        else:
            unit.outer_optimizer = self.outer_optimizer(parameters)

    def _outer_step(self, unit: SyncUnit, mean: Tensor) -> Tensor:
        assert unit.x0 is not None
        assert unit.outer_optimizer is not None
        if list(unit.outer_parameters) != unit.names:
            self.follow_parameters(unit)
        there = mean.to(unit.x0.device)  # the same tensor, if x0 is on its device
        gradient = torch.sub(unit.x0, there, out=there)
        parameters = list(unit.outer_parameters.values())
        for parameter, view in zip(parameters, views_of(gradient, parameters), strict=True):
            parameter.grad = view
        unit.outer_optimizer.step()
        unit.outer_optimizer.zero_grad()
        return mean.copy_(unit.x0)

    def follow_parameters(self, unit: SyncUnit) -> None:
        """Keep the state of the parameters that stayed."""
        before, known = unit.outer_optimizer, unit.outer_parameters
        assert before is not None
        self._make_outer_optimizer(unit)
        assert unit.outer_optimizer is not None
        for name, parameter in unit.outer_parameters.items():
            if name in known and known[name] in before.state:
                unit.outer_optimizer.state[parameter] = before.state[known[name]]
