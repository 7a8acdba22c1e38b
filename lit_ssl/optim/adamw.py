"""torch's AdamW, Adam and SGD, each parameter updated by one kernel where there is one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["adam", "adamw", "sgd"]

_FUSED_ON = ("cpu", "cuda")  # on a CPU measured by benchmarks/optimizers.py
_O = TypeVar("_O", bound=Optimizer)


def adamw(groups: Iterable[Any], fused: bool | None = None, **options: Any) -> torch.optim.AdamW:
    """AdamW, fused where that is possible.

    A fused step gives the same values up to the rounding of one operation, so that a run goes on
    from a checkpoint of either kind: state that is loaded is laid out as the parameters are, and
    whether steps are fused is this optimizer's affair, not the file's.

    Args:
        groups: parameters or groups of them.
        fused: None: on CPUs and CUDA, where all parameters are floating-point numbers; False: not,
            as where gradients are scaled (``lit_ssl.trainer.fused.may_fuse``).
        **options: of ``torch.optim.AdamW``.
    """
    return _made(torch.optim.AdamW, groups, fused, options)


def adam(groups: Iterable[Any], fused: bool | None = None, **options: Any) -> torch.optim.Adam:
    """Adam, as ``adamw``.

    Args:
        groups: parameters or groups of them.
        fused: see ``adamw``.
        **options: of ``torch.optim.Adam``.
    """
    return _made(torch.optim.Adam, groups, fused, options)


def sgd(groups: Iterable[Any], fused: bool | None = None, **options: Any) -> torch.optim.SGD:
    """SGD, as ``adamw``.

    Args:
        groups: parameters or groups of them.
        fused: see ``adamw``.
        **options: of ``torch.optim.SGD``.
    """
    return _made(torch.optim.SGD, groups, fused, options)


def _made(kind: type[_O], groups: Iterable[Any], fused: bool | None, options: dict[str, Any]) -> _O:
    groups = list(groups)
    fused = _can_fuse(groups) if fused is None else fused
    # None: torch chooses between a loop and foreach
    optimizer = kind(groups, **options, fused=True if fused else None)  # type: ignore[call-arg]
    optimizer.register_load_state_dict_pre_hook(_with_own_kernels)
    optimizer.register_load_state_dict_post_hook(_laid_out)
    if fused:
        optimizer.register_step_pre_hook(_order_gradients)
    return optimizer


def _can_fuse(groups: list[Any]) -> bool:
    parts = [group["params"] if isinstance(group, dict) else group for group in groups]
    lists = [[part] if isinstance(part, Tensor) else list(part) for part in parts]
    return all(p.device.type in _FUSED_ON and p.is_floating_point() for part in lists for p in part)


def _with_own_kernels(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any] | None:
    """The state to load, with the choice of kernels that this optimizer has."""
    saved, own = state["param_groups"], optimizer.param_groups
    if len(saved) != len(own):  # which torch refuses
        return None
    names = ("fused", "foreach")
    pairs = zip(saved, own, strict=True)
    return {**state, "param_groups": [{**s, **{n: o[n] for n in names}} for s, o in pairs]}


def _laid_out(optimizer: Optimizer) -> None:
    """Lay loaded state out as the parameters: fused kernels go through both in one order.

    The number of steps lies where the kernels read it: beside the parameters, or on the host, which
    otherwise would wait for it in every step.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            for name, value in state.items():
                if not isinstance(value, Tensor):
                    continue
                if name == "step":
                    state[name] = value.to(parameter.device if group["fused"] else "cpu")
                elif value.shape == parameter.shape:
                    state[name] = _like(value, parameter)


def _order_gradients(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """Lay out gradients that somebody has set as their parameters; autograd's are.

    The kernels of a CPU would pair other elements with each other, without a word.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None and parameter.grad.stride() != parameter.stride():
                parameter.grad = _like(parameter.grad, parameter)


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """The value with its elements in the order in which those of the parameter lie."""
    axes = [axis for axis, size in enumerate(parameter.shape) if size > 1]
    if all(value.stride(axis) == parameter.stride(axis) for axis in axes):
        return value
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
