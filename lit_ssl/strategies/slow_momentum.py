"""Slow momentum on top of local steps (arXiv 1910.00643)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from lit_ssl.errors import InputError, check_choice, check_numbers
from lit_ssl.strategies.functional import slow_momentum_
from lit_ssl.strategies.local_sgd import LocalSGDStrategy
from lit_ssl.strategies.sync.units import SyncUnit

__all__ = ["SlowMomentumStrategy"]


class SlowMomentumStrategy(LocalSGDStrategy):
    """Local steps, and a momentum step along the average change after each round.

    Guarantee: that of [`LocalSGDStrategy`][lit_ssl.LocalSGDStrategy], u included; with α = 1 and β
        = 0 it is local SGD,
    bit for bit. Price: the traffic of local SGD and, for u, one float32 copy of the parameters more
    in memory and in checkpoints; ``shard_slow_state`` divides it.

    ``u ← β u + (x0 − mean) / γ`` and ``x0 ← x0 − α γ u``, with the inner learning rate γ of each
    parameter group. With α = 1 a steady gradient is followed 1 / (1 − β) times as fast as by local
    SGD, on top of the inner optimizer's own momentum: where that diverges, lower the learning rate
    or use ``buffers="reset"``.

    Args:
        slow_lr: slow learning rate α; the paper finds 1 best throughout.
        slow_momentum: slow momentum β, in [0, 1); the paper's best lie in 0.4–0.8.
        lr_reference: which γ: that of the ``last`` step of the round; the ``mean`` over the round
            in the division and the last in the product (when it drops within rounds); or ``none``:
            1 in both (block momentum, BMUF).
        shard_slow_state: divide u and x0 over the processes, for half as much traffic again.
        **kwargs: see [`LocalSGDStrategy`][lit_ssl.LocalSGDStrategy]; the paper has ``sync_every``
            12.

    Raises:
        InputError: if an option lies out of its range, or ``shard_slow_state`` meets
            ``compression``.

    Source: arXiv 1910.00643, Algorithm 1.
    """

    def __init__(
        self,
        slow_lr: float = 1.0,
        slow_momentum: float = 0.5,
        lr_reference: Literal["last", "mean", "none"] = "last",
        shard_slow_state: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_numbers({"slow_lr": slow_lr, "slow_momentum": slow_momentum})
        if slow_lr <= 0 or not 0 <= slow_momentum < 1:
            raise InputError(
                "slow_lr must be positive and slow_momentum lie in [0, 1), not "
                f"{slow_lr} and {slow_momentum}"
            )
        check_choice("lr_reference", lr_reference, ("last", "mean", "none"))
        if shard_slow_state and self.options.compression is not None:
            raise InputError("shard_slow_state cannot be combined with compression, which needs x0")
        self.slow_lr = slow_lr
        self.slow_momentum = slow_momentum
        self.lr_reference = lr_reference
        self.shard_slow_state = shard_slow_state

    def settings(self) -> dict[str, Any]:
        """Everything that was chosen, as plain values."""
        own = ("slow_lr", "slow_momentum", "lr_reference")
        return {**super().settings(), **{name: getattr(self, name) for name in own}}

    def slow_norm(self) -> float:
        """Norm of the slow velocity u of all parameters (of this process's part, if sharded)."""
        norms = [u.outer["u"].norm() for u in self.units if "u" in u.outer]
        return float(torch.stack(norms).norm()) if norms else 0.0

    @staticmethod
    def _chunks(unit: SyncUnit) -> Iterator[tuple[slice, int]]:
        """Ranges of one parameter group each, small enough for quick temporary tensors."""
        for part, group in unit.group_slices():
            for start in range(part.start, part.stop, 2**20):
                yield slice(start, min(start + 2**20, part.stop)), group

    def _prepare_unit(self, unit: SyncUnit) -> None:
        if self.shard_slow_state:
            unit.shards, unit.shard = self.world_size, self.global_rank
        super()._prepare_unit(unit)
        assert unit.x0 is not None
        unit.outer["u"] = torch.zeros_like(unit.x0)

    def _outer_step(self, unit: SyncUnit, mean: Tensor) -> Tensor:
        assert unit.x0 is not None
        low, high = unit.bounds
        count = len(unit.rates) // 2
        for part, group in self._chunks(unit):
            last, average = unit.rates[group], unit.rates[count + group]
            rates = {"last": (last, last), "mean": (last, average), "none": (1.0, 1.0)}
            lr, division = rates[self.lr_reference]
            x0, u, there = unit.x0[part], unit.outer["u"][part], mean[low:high][part]
            factors = {"alpha": self.slow_lr, "beta": self.slow_momentum}
            slow_momentum_(x0, u, there, lr, **factors, division_lr=division)
        return unit.full(unit.x0)
