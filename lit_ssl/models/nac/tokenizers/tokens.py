"""What every tokenizer returns, and the small steps that they share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lit_ssl.errors import InputError, InputTypeError

__all__ = [
    "Tokens",
    "check_positive",
    "checked_tokens",
    "checked_width",
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
    """A mask ``[B, L]`` in which empty rows keep their first token, so that a softmax is finite.

    Args:
        mask: bool or numbers, not 0 where a token is.
    """
    mask = mask.bool()
    first = mask[:, :1] | ~mask.any(dim=1, keepdim=True)
    return torch.cat([first, mask[:, 1:]], dim=1)


def with_positions(values: Tensor, positions: Tensor) -> Tensor:
    """Append ``[V, P]`` to every sample of ``[B, V, D]``, which gives ``[B, V, D + P]``.

    Args:
        values: tokens.
        positions: of the V places, the same for all samples.
    """
    rows = positions.to(values.dtype).expand(values.shape[0], -1, -1)
    return torch.cat([values, rows], dim=2)


def checked_width(tokenizer: nn.Module) -> int:
    """``token_dim`` of a tokenizer.

    Args:
        tokenizer: which is to give tokens to a circuit.

    Raises:
        InputError: if it has no such attribute.
    """
    width = getattr(tokenizer, "token_dim", None)
    if not isinstance(width, int) or width < 1:
        raise InputError(
            f"the tokenizer {type(tokenizer).__name__} needs an attribute token_dim, the number of "
            f"channels of its tokens, not {width}"
        )
    return width


def checked_tokens(tokenizer: nn.Module, tokens: object, width: int) -> Tokens:
    """What a tokenizer gave, if a circuit can read it.

    Args:
        tokenizer: who gave it, for messages.
        tokens: what it gave.
        width: channels that the circuit was built for.

    Raises:
        InputError: for another type, shape, or a mask that is not bool or, seen on a CPU only,
            has a row without tokens.
    """
    who = f"the tokenizer {type(tokenizer).__name__}"
    if not isinstance(tokens, Tokens):
        raise InputTypeError(
            f"{who} must give Tokens(values, mask), of lit_ssl.models, not {type(tokens).__name__}"
        )
    values, mask = tokens.values, tokens.mask
    if values.ndim != 3 or values.shape[2] != width:
        raise InputError(
            f"{who} must give values [B, V, token_dim] with its token_dim {width}, not "
            f"{list(values.shape)}"
        )
    if mask is None:
        return tokens
    if mask.dtype != torch.bool or mask.shape != values.shape[:2]:
        raise InputError(
            f"{who} must give a mask of bool {list(values.shape[:2])}, True where a token is, not "
            f"{mask.dtype} {list(mask.shape)}"
        )
    if is_readable(mask) and not mask.any(dim=1).all():
        raise InputError(
            f"{who} gave a sample without any token: let the mask be True for one of them"
        )
    return tokens


def is_readable(values: Tensor) -> bool:
    """Whether values may be looked at: on a CPU, where nobody waits, and not while compiling.

    Args:
        values: on any device.
    """
    return values.device.type == "cpu" and not torch.compiler.is_compiling()


def same_noise(module: nn.Module) -> tuple[torch.Generator, torch.device]:
    """A generator that leaves torch's own alone, and the device that a module computes on.

    Args:
        module: with at least one parameter.

    Returns:
        A generator on the CPU, seeded with 0; the device.
    """
    return torch.Generator().manual_seed(0), next(module.parameters()).device


def check_positive(who: str, **sizes: int) -> None:
    """Raise ``InputError`` unless all sizes are at least 1.

    Args:
        who: whose sizes they are, for the message.
        **sizes: numbers by their names.

    Raises:
        InputError: names the first one that is wrong.
    """
    for name, size in sizes.items():
        if size < 1:
            raise InputError(f"{who} needs {name} >= 1, got {size}")
