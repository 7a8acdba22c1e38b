"""Schedules as pure functions of the optimiser step, so that there is no state to save or lose."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch.optim import Optimizer

from lit_ssl.errors import InputError

__all__ = [
    "LinearDecay",
    "LossWeight",
    "MultiStep",
    "Schedule",
    "linear",
    "set_group",
    "set_schedules",
]


class Schedule(NamedTuple):
    """Linear warm-up, then a half cosine from the peak to the final value; constant after the end.

    Attributes:
        start: value at step 0 (unused without warm-up).
        peak: value at the end of the warm-up.
        final: value at ``total`` and after it.
        total: length in optimiser steps, warm-up included.
        warmup: length of the warm-up in steps.
    """

    start: float
    peak: float
    final: float
    total: float
    warmup: float = 0.0

    def __call__(self, step: float) -> float:
        """Value at a step (0 … total)."""
        if step < self.warmup:
            return self.start + (self.peak - self.start) * step / self.warmup
        progress = (step - self.warmup) / max(1.0, self.total - self.warmup)
        cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
        return self.final + (self.peak - self.final) * cosine


class LinearDecay(NamedTuple):
    """Linear warm-up from 0, then a straight line to 0; 0 after the end.

    Attributes:
        peak: value at the end of the warm-up.
        total: length in optimiser steps, warm-up included.
        warmup: length of the warm-up in steps.

    Source: transformers' ``get_linear_schedule_with_warmup``, as ViLT and METER use it.
    """

    peak: float
    total: float
    warmup: float = 0.0

    def __call__(self, step: float) -> float:
        """Value at a step (0 … total)."""
        if step < self.warmup:
            return self.peak * step / self.warmup
        left = (self.total - step) / max(1.0, self.total - self.warmup)
        return self.peak * min(1.0, max(0.0, left))


class MultiStep(NamedTuple):
    """Linear warm-up, then constant between milestones, at each of which the value is multiplied.

    Attributes:
        start: value at step 0 (unused without warm-up).
        peak: value at the end of the warm-up.
        milestones: optimiser steps from which on the value is lower, increasing.
        factor: of each milestone.
        warmup: length of the warm-up in steps.

    Source: arXiv 1706.02677, sections 2.2 and 5.1.
    """

    start: float
    peak: float
    milestones: tuple[float, ...]
    factor: float = 0.1
    warmup: float = 0.0

    def __call__(self, step: float) -> float:
        """Value at a step (from 0)."""
        if step < self.warmup:
            return self.start + (self.peak - self.start) * step / self.warmup
        return self.peak * self.factor ** sum(step >= milestone for milestone in self.milestones)


@dataclass(frozen=True)
class LossWeight:
    """Weight of a part of a loss over a training.

        linear       start + (stop - start) · progress
        exponential  stop + (start - stop) · exp(-beta · progress)      where beta is given

    Args:
        start: weight at the start, finite.
        stop: weight at the end; with ``beta`` the one that it comes close to.
        beta: how fast, ≥ 0; None: linear.

    Raises:
        ValueError: if a value lies outside its range.

    Source: published code of arXiv 2210.08031.
    """

    start: float
    stop: float
    beta: float | None = None

    def __post_init__(self) -> None:
        rate = 0.0 if self.beta is None else self.beta
        if not (all(map(math.isfinite, (self.start, self.stop, rate))) and rate >= 0):
            raise InputError(
                "a weight over the training needs a finite start and stop and beta >= 0, got "
                f"{self.start}, {self.stop} and {self.beta}"
            )

    def __call__(self, step: float, total: float) -> float:
        """Weight at an optimiser step of a training of ``total`` steps; constant after its end."""
        if self.beta is None:
            return linear(step, total, self.start, self.stop)
        progress = min(1.0, step / total)
        return self.stop + (self.start - self.stop) * math.exp(-self.beta * progress)


def linear(step: float, total: float, start: float, final: float) -> float:
    """Linear from ``start`` at step 0 to ``final`` at ``total``; constant after it.

    Args:
        step: >= 0.
        total: > 0, in steps.
        start: value at step 0.
        final: value from ``total`` on.
    """
    return start + (final - start) * min(1.0, step / total)


def set_schedules(optimizer: Optimizer, lr: float | None, weight_decay: float) -> None:
    """Set this step's learning rate everywhere and the weight decay where groups decay.

    A group may scale the rate by ``lr_scale``; groups with ``decay: False`` keep weight decay 0.

    Args:
        optimizer: its groups are changed.
        lr: learning rate; None leaves the groups' rates as they are.
        weight_decay: of the groups that decay.
    """
    for group in optimizer.param_groups:
        set_group(group, lr, weight_decay)


def set_group(group: dict[str, Any], lr: float | None, weight_decay: float) -> None:
    """What [`set_schedules`][lit_ssl.optim.set_schedules] does, for one group of parameters.

    Args:
        group: of an optimizer; it is changed.
        lr: learning rate; None leaves that of the group as it is.
        weight_decay: of a group that decays.
    """
    if lr is not None:
        group["lr"] = lr * group.get("lr_scale", 1.0)
    group["weight_decay"] = weight_decay if group.get("decay", True) else 0.0
