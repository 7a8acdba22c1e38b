"""Element-wise functions as single kernels, where the device has a compiler."""

from __future__ import annotations

import functools
import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import torch

# Elsewhere kernels are started at no cost, and compiling takes longer than it saves.
_COMPILES_FOR = {"cuda"}


def fused(function: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """Returns the function, compiled where that pays: on CUDA.

    It must be element-wise: sums would depend on which kernel is fastest on the day, and a resumed
    training would not be what it was. Where it cannot be compiled, a warning says so, once, and it
    runs as it is written. ``TORCH_COMPILE_DISABLE=1`` in the environment does so too.

    Args:
        function: of tensors and numbers, at the top of a file.
        device: where its tensors are.
    """
    if device.type not in _COMPILES_FOR or not _has_compiler():
        return function
    return _compiled(function)


@functools.cache
def _has_compiler() -> bool:
    if importlib.util.find_spec("triton") is not None:
        return True
    warnings.warn(
        "Views are made on the device without compiled kernels, which is slower: install triton",
        stacklevel=2,
    )
    return False


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    compiled = torch.compile(function)
    failed = False

    def call(*args: Any) -> Any:
        nonlocal failed
        if failed:
            return function(*args)
        try:
            return compiled(*args)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # of any compiler below torch
            failed = True
            warnings.warn(
                "Views are made on the device without compiled kernels, which is slower:"
                f" {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
                stacklevel=2,
            )
            return function(*args)

    return call
