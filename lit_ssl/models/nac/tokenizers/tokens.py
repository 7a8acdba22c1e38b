"""What every tokenizer returns, and the small steps that they share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lit_ssl.errors import InputError

__all__ = [
    "Tokens",
    "check_positive",
    "is_readable",
    "same_noise",
    "with_first_token",
    "with_positions",
]


class Tokens(NamedTuple):
    """Tokens of a batch.

    Attributes:
        values: ``[B, V, token_dim]``, what the circuit reads in.
        mask: bool ``[B, V]``, True where a token is; at least one in each row. None: everywhere.
        text: values ``[B, L, text_dim]`` and mask ``[B, L]`` of a text that conditions the
            generator of the circuit; None where the inputs have no text.
    """

    values: Tensor
    mask: Tensor | None = None
    text: tuple[Tensor, Tensor] | None = None


def with_first_token(mask: Tensor) -> Tensor:
    """A mask ``[B, L]`` in which empty rows keep their first token, so that a softmax is finite."""
    mask = mask.bool()
    first = mask[:, :1] | ~mask.any(dim=1, keepdim=True)
    return torch.cat([first, mask[:, 1:]], dim=1)


def with_positions(values: Tensor, positions: Tensor) -> Tensor:
    """Append ``[V, P]`` to every sample of ``[B, V, D]``, which gives ``[B, V, D + P]``."""
    rows = positions.to(values.dtype).expand(len(values), -1, -1)
    return torch.cat([values, rows], dim=2)


def is_readable(values: Tensor) -> bool:
    """Whether values may be looked at: on a CPU, where nobody waits, and not while compiling."""
    return values.device.type == "cpu" and not torch.compiler.is_compiling()


def same_noise(module: nn.Module) -> tuple[torch.Generator, torch.device]:
    """A generator that leaves torch's own alone, and the device that a module computes on."""
    return torch.Generator().manual_seed(0), next(module.parameters()).device


def check_positive(who: str, **sizes: int) -> None:
    """Raise :class:`InputError` unless all sizes are at least 1."""
    for name, size in sizes.items():
        if size < 1:
            raise InputError(f"{who} needs {name} >= 1, got {size}")
