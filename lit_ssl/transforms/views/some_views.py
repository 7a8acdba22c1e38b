"""Helpers for batched work whose choice of views is known on the host."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """Copies a small CPU tensor to ``device`` without making the host wait for the device."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device, non_blocking=device.type not in ("cpu", "mps"))


def on_subset(views: Tensor, chosen: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Applies ``function`` to some of the views.

    Args:
        views: ``[n, C, h, w]``; may be overwritten.
        chosen: CPU indices of the views to change, in increasing order.
        function: maps ``[m, C, h, w]`` to the same shape; must not change its input.

    Returns:
        ``[n, C, h, w]``.
    """
    if len(chosen) == 0:
        return views
    if len(chosen) == len(views):
        return function(views).contiguous()
    index = upload(chosen, views.device)
    return views.index_copy_(0, index, function(views.index_select(0, index)))
