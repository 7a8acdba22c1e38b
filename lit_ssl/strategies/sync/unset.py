"""inf and NaN that stand in buffers on purpose: masks, and values that nobody has counted yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lit_ssl.strategies.sync.buffers import Extra, is_finite

__all__ = ["fill_in_", "is_unset", "may_be_unset", "take_out_"]


def is_unset(extra: Extra, at_start: Mapping[str, Tensor]) -> Tensor:
    """Where a tensor is not finite and was not at the start of the round; bool, of its shape.

    A NaN that came up within the round is none, nor an inf in statistics or a frozen network:
    something has gone wrong there. An inf in another buffer is one, e.g. the logarithm of 0.

    Args:
        extra: the tensor.
        at_start: values at the start of the round, by name, of tensors that were not finite, or of
            all.
    """
    now, before = ~torch.isfinite(extra.tensor), at_start.get(extra.name)
    allowed = torch.zeros_like(now) if extra.is_strict else torch.isinf(extra.tensor)
    if before is None or before.shape != now.shape:
        return allowed
    return now & ~torch.isfinite(before) | allowed


def may_be_unset(
    extra: Extra, fingerprint: Sequence[float], at_start: Mapping[str, Tensor]
) -> bool:
    """Whether a tensor has such elements, as far as its fingerprint tells.

    Args:
        extra: the tensor.
        fingerprint: of its values now; see ``fingerprints``.
        at_start: as of ``is_unset``.
    """
    if is_finite(fingerprint):
        return False
    infinities = fingerprint[3] + fingerprint[4]
    return extra.name in at_start or (not extra.is_strict and infinities > 0)


@torch.no_grad()
def take_out_(
    values: Sequence[Tensor],
    counts: Sequence[Tensor],
    extras: Sequence[Extra],
    at_start: Mapping[str, Tensor],
    rank: int,
) -> None:
    """Leave out of a sum what is unset here, and note for each element whether it counts.

    Args:
        values: packed values, changed; a view for each tensor.
        counts: 1 where an element counts, else 0; written.
        extras: the tensors.
        at_start: their values at the start of the round.
        rank: number of this process.
    """
    for value, count, extra in zip(values, counts, extras, strict=True):
        unset = is_unset(extra, at_start)
        value.masked_fill_(unset, 0)
        count.copy_(~unset)
        if extra.kind == "first" and rank != 0:
            count.zero_()


@torch.no_grad()
def fill_in_(
    values: Sequence[Tensor],
    counts: Sequence[Tensor],
    extras: Sequence[Extra],
    at_start: Mapping[str, Tensor],
) -> None:
    """Put back what is unset on all processes: what is there now, or was, for the others of rank 0.

    Args:
        values: averages, changed.
        counts: total weight behind each element.
        extras: the tensors.
        at_start: their values at the start of the round.
    """
    for value, count, extra in zip(values, counts, extras, strict=True):
        before = at_start.get(extra.name) if extra.kind == "first" else None
        if before is None or before.shape != value.shape:
            before = extra.tensor
        value.copy_(torch.where(count > 0, value, before.to(value.dtype)))
