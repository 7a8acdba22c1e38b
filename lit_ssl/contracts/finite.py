"""Which numbers of a module have to be finite, and how to find those that are not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

__all__ = [
    "first_nonfinite",
    "losses_of",
    "nonfinite",
    "optimizer_states",
    "running_statistics",
    "watched",
]


def watched(module: nn.Module, named: Iterable[tuple[str, Any]] | None = None) -> dict[str, Tensor]:
    """Tensors of a module that have to be finite, by name.

    A module may have ``nonfinite_allowed``, beginnings of names of tensors that may hold NaN or
    infinity, such as those of many heads of which some diverge.

    Args:
        module: the module.
        named: what to choose from, as of its ``state_dict``; None: its parameters and buffers.

    Returns:
        Floating-point tensors with elements, without sparse and nested ones and those that are
        sharded over processes.
    """
    if named is None:
        named = [*module.named_parameters(), *module.named_buffers()]
    allowed = tuple(getattr(module, "nonfinite_allowed", ()))
    return {n: t.detach() for n, t in named if _is_plain(t) and not n.startswith(allowed)}


def _is_plain(value: Any) -> bool:
    if type(value) not in (Tensor, nn.Parameter) or value.is_meta or value.is_nested:
        return False
    if value.layout != torch.strided or value.numel() == 0:
        return False
    return value.is_complex() or (value.is_floating_point() and value.dtype.itemsize > 1)


def optimizer_states(module: nn.Module, optimizers: Iterable[Optimizer]) -> dict[str, Tensor]:
    """What optimizers keep of each weight in its own shape, such as momenta and squares, by name.

    An infinite mean of squares keeps Adam from moving a weight ever again; no weight shows it.

    Args:
        module: whose weights are trained.
        optimizers: of these weights.

    Returns:
        What ``watched`` would return of them; nothing of weights that may be NaN.
    """
    names = {id(weight): name for name, weight in module.named_parameters()}
    found = {
        f"{names[id(weight)]} ({key} of its optimizer)": value
        for optimizer in optimizers
        for weight, state in optimizer.state.items()
        if id(weight) in names and isinstance(state, Mapping)
        for key, value in state.items()
        if isinstance(value, Tensor) and not value.is_nested and value.shape == weight.shape
    }
    return watched(module, found.items())


def running_statistics(module: nn.Module) -> set[str]:
    """Names of the running means and variances of a module's BatchNorm layers.

    Args:
        module: any module.
    """
    return {
        f"{place}.{name}" if place else name
        for place, part in module.named_modules()
        if isinstance(part, _BatchNorm)
        for name, _ in part.named_buffers(recurse=False)
    }


def losses_of(outputs: Any, is_manual: bool) -> dict[str, Tensor]:
    """What a training step returns as losses, by name.

    Args:
        outputs: a number, a mapping or None.
        is_manual: whether the module steps its optimizers itself; then all numbers count whose
            names hold ``loss``, else ``loss`` alone.

    Returns:
        Copies that share nothing with the step, 0-dimensional; nothing waits for the device.
    """
    named: Mapping[str, Any] = outputs if isinstance(outputs, Mapping) else {"loss": outputs}
    return {
        str(name): value.detach().reshape(()).clone()
        for name, value in named.items()
        if isinstance(value, Tensor)
        and value.numel() == 1
        and value.is_floating_point()
        and (name == "loss" or (is_manual and "loss" in str(name)))
    }


@torch.no_grad()
def nonfinite(tensors: Iterable[Tensor], device: torch.device) -> Tensor:
    """Which tensors hold NaN or infinity; stays on the device.

    Args:
        tensors: n floating-point or complex ones, with at least one element each.
        device: of the answer.

    Returns:
        bool ``[n]``.
    """
    largest = [torch.linalg.vector_norm(t, float("inf")) for t in tensors]
    if not largest:
        return torch.zeros(0, dtype=torch.bool, device=device)
    return ~torch.stack([value.isfinite().to(device) for value in largest])


def first_nonfinite(tensors: Iterable[Tensor], device: torch.device) -> Tensor:
    """Place of the first tensor with NaN or infinity, int64, −1 if there is none.

    See ``nonfinite``.

    Args:
        tensors: on any device.
        device: where the answer is to be.

    Returns:
        A scalar, int64, on ``device``.
    """
    bad = torch.cat([nonfinite(tensors, device), torch.ones(1, dtype=torch.bool, device=device)])
    first = bad.long().argmax()
    return first.where(first < len(bad) - 1, -1)
