"""What moves in small steps must not be rounded away: float32 inside modules of half precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain

import torch
from torch import Tensor, nn

__all__ = ["autocast_to_inputs", "kept_wide", "widened", "widened_", "without_autocast"]

_NARROW = (torch.float16, torch.bfloat16)


@contextmanager
def kept_wide(*modules: nn.Module) -> Iterator[None]:
    """Let a conversion of modules, as by ``.to(torch.bfloat16)``, move them but not narrow them.

    For the ``_apply`` of a module, by which Lightning's ``bf16-true`` converts it.

    Args:
        modules: their parameters and buffers keep float32 or float64.
    """
    # detached, they are objects of their own: a conversion replaces the data of parameters in place
    before = [{name: t.detach() for name, t in _tensors(module)} for module in modules]
    yield
    for module, tensors in zip(modules, before, strict=True):
        for name, tensor in _tensors(module):
            if tensor.dtype in _NARROW and tensors[name].dtype not in _NARROW:
                tensor.data = tensors[name].to(tensor.device)


def widened_(module: nn.Module) -> None:
    """Convert parameters and buffers of half precision to float32, in place.

    Args:
        module: Any module.
    """
    for _, tensor in _tensors(module):
        if tensor.dtype in _NARROW:
            tensor.data = tensor.data.float()


def autocast_to_inputs(inputs: Tensor) -> AbstractContextManager[object]:
    """Where inputs are of half precision: the context in which a float32 network computes in it.

    Args:
        inputs: What the network is given.

    Returns:
        Autocast to the type of the inputs on their device; of float32 and wider, a context that
        does nothing.
    """
    if inputs.dtype in _NARROW:
        return torch.autocast(device_type=inputs.device.type, dtype=inputs.dtype)
    return nullcontext()


def widened(tensor: Tensor) -> Tensor:
    """A tensor as float32, float64 where it is that.

    Args:
        tensor: Of any type but complex.

    Returns:
        Of the same shape; the tensor itself where nothing is to be done.
    """
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """The context in which operations keep the precision of their inputs, on any device.

    Args:
        device: Where the operations run.
    """
    if torch.amp.is_autocast_available(device.type):  # not on the meta device
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return chain(module.named_parameters(), module.named_buffers())
