"""Softmax attention, by whichever of torch's ways is faster on the device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["LONGEST_WRITTEN_OUT", "attention", "is_written_out", "written_out_attention"]

LONGEST_WRITTEN_OUT = 1024
"""Keys up to which bfloat16 attention is written out on the CPU; beyond, its memory counts."""


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """Softmax attention ``[B, H, N, d]``, ``[B, H, M, d]``, ``[B, H, M, e]`` → ``[B, H, N, e]``.

    It is ``F.scaled_dot_product_attention``, except for bfloat16 on the CPU, where two matrix
    products and a softmax train 2 to 5 times faster (measured in ``docs/speed.md``; not so in
    float32 and float16). Scores and weights are then rounded to bfloat16, as on any device that
    writes them out.

    Args:
        query: of N places.
        key: of M places.
        value: of M places.
        mask: what is added to the scores, or bool, True where a query may look; of a shape that
            broadcasts to ``[B, H, N, M]``. A query that may look nowhere gets 0.
        dropout: probability with which a weight is dropped.
        scale: factor of the scores; None: d^-½.
    """
    if is_written_out(query, key.shape[-2]):
        return written_out_attention(query, key, value, mask, dropout, scale)
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, scale=scale
    )


# torch 2.6 tells only that something is being compiled or exported.
_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)


def is_written_out(inputs: Tensor, keys: int) -> bool:
    """Whether ``attention`` over so many keys is written out for these inputs.

    Args:
        inputs: what queries are made of; device and dtype count.
        keys: how many.
    """
    # An exported graph is likely to run on another device.
    if inputs.device.type != "cpu" or _is_exporting():
        return False
    autocast = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if autocast else inputs.dtype
    return dtype == torch.bfloat16 and keys <= LONGEST_WRITTEN_OUT


def written_out_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """``attention`` as matrix products and a softmax, on any device and in any dtype.

    Args:
        query: ``[B, H, N, d]``.
        key: ``[B, H, M, d]``.
        value: ``[B, H, M, e]``.
        mask: broadcast to ``[B, H, N, M]``; bool: True where a key may be read; float: added to the
            scores. A query that may read none gets 0. None: all may be read.
        dropout: probability with which a weight is dropped.
        scale: factor of the scores; None: d^-½.

    Returns:
        ``[B, H, N, e]``.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    batch = query.shape[:2]
    nothing = query.new_zeros(1, 1, 1)
    scores = torch.baddbmm(
        nothing, query.flatten(0, 1), key.transpose(-2, -1).flatten(0, 1), beta=0, alpha=scale
    ).unflatten(0, batch)
    nowhere = None
    if mask is None:
        weights = scores.softmax(dim=-1)
    elif mask.dtype == torch.bool:
        # The least number, not -∞, of which a row would have no softmax and no gradient.
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=-1).masked_fill(~mask, 0.0)
    else:
        nowhere = (mask == -torch.inf).all(dim=-1, keepdim=True)
        weights = (scores + mask.masked_fill(nowhere, 0.0)).softmax(dim=-1)
    weights = F.dropout(weights, dropout).to(value.dtype)
    read = torch.bmm(weights.flatten(0, 1), value.flatten(0, 1)).unflatten(0, batch)
    return read if nowhere is None else read.masked_fill(nowhere, 0.0)
