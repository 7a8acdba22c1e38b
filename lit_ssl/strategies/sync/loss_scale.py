"""One loss scale for all processes, which skip steps by themselves with a GradScaler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["loss_scale", "lower_loss_scale"]


def loss_scale(precision: Any) -> float:
    """Loss scale of a precision plugin; 0 if it has none."""
    scaler = getattr(precision, "scaler", None)
    return 0.0 if scaler is None else float(scaler.get_scale())


def lower_loss_scale(precision: Any, scales: Sequence[float]) -> None:
    """Take the smallest scale of all processes, and begin anew to count towards a larger one.

    Args:
        precision: precision plugin.
        scales: of all processes; 0 without one.
    """
    scaler = getattr(precision, "scaler", None)
    if scaler is not None and scaler._scale is not None and min(scales) > 0:
        scaler.update(min(scales))
        scaler._growth_tracker.zero_()
