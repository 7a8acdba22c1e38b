"""Helpers for batched work whose choice of views is known on the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """Copies a small CPU tensor to ``device`` without making the host wait for the device.

    Args:
        tensor: on the CPU.
        device: where to.
    """
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device, non_blocking=device.type not in ("cpu", "mps"))


def upload_together(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Copies many small CPU tensors, all float32, to ``device`` in one piece.

    Args:
        tensors: at least one, of any shapes.
        device: where to.

    Returns:
        Tensors of the same shapes, in their order; parts of one piece of memory.
    """
    moved = upload(torch.cat([tensor.reshape(-1) for tensor in tensors]), device)
    parts = moved.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


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
    return on_places(views, upload(chosen, views.device), function)


def on_places(views: Tensor, index: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Applies ``function`` to the views at ``index``, int64 on their device; see ``on_subset``.

    Args:
        views: ``[n, …]``; overwritten.
        index: ``[m]``.
        function: ``[m, …]`` to the same shape.
    """
    return views.index_copy_(0, index, function(views.index_select(0, index)))
