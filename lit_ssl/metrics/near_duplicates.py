"""Pairs of rows that are almost the same."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_ssl.errors import InputError

__all__ = ["closest_pairs"]

_CHUNK = 2048  # rows that are compared with as many others at once


@torch.no_grad()
def closest_pairs(features: Tensor, threshold: float, most: int) -> tuple[Tensor, Tensor, int]:
    """Find the pairs of rows whose cosine similarity is at least a threshold.

    All pairs are compared, in blocks: the time grows with the square of the number of rows, the
    memory with the number of pairs that are kept.

    Args:
        features: ``[N, D]``, float, finite.
        threshold: In [−1, 1].
        most: Pairs to return at most, >= 1: the most similar ones; of equal ones the earlier rows.

    Returns:
        Similarities, float32 ``[P]``, falling; rows, int64 ``[P, 2]``, the smaller number first;
        and how many such pairs there are.

    Raises:
        InputError: For a value outside of its range, or another shape.
    """
    if features.ndim != 2 or not -1 <= threshold <= 1 or most < 1:
        raise InputError(
            "closest_pairs needs features [N, D], a threshold from -1 to 1 and most >= 1, got "
            f"{list(features.shape)}, {threshold} and {most}"
        )
    rows = F.normalize(features.float(), dim=1)
    kept = torch.empty(0, device=rows.device)
    pairs = torch.empty(0, 2, dtype=torch.int64, device=rows.device)
    found = 0
    for first, ours in zip(range(0, len(rows), _CHUNK), rows.split(_CHUNK), strict=True):
        for second in range(first, len(rows), _CHUNK):
            block = ours @ rows[second : second + _CHUNK].T
            is_close = block >= threshold
            if first == second:
                is_close = is_close.triu(diagonal=1)
            here = is_close.nonzero()
            if not len(here):
                continue
            found += len(here)
            kept = torch.cat([kept, block[is_close]])
            pairs = torch.cat([pairs, here + torch.tensor([first, second], device=rows.device)])
            if len(kept) > most:
                order = _best_first(kept, pairs, len(rows))[:most]
                kept, pairs = kept[order], pairs[order]
    order = _best_first(kept, pairs, len(rows))[:most]
    return kept[order].clamp(-1, 1), pairs[order], found


def _best_first(similarity: Tensor, pairs: Tensor, count: int) -> Tensor:
    by_row = (pairs[:, 0] * count + pairs[:, 1]).argsort()
    return by_row[similarity[by_row].argsort(descending=True, stable=True)]
