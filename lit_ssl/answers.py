"""Answers by the highest score, where the scores may be no numbers."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["NO_ANSWER", "best_answer", "count_right", "ranked_answers"]

NO_ANSWER = -2  # neither a class nor −1, an unknown label


def best_answer(scores: Tensor, dim: int = -1) -> Tensor:
    """Place of the highest score, or ``NO_ANSWER`` where it is NaN or infinite.

    argmax alone makes class 0 of scores that are all NaN. Scores of −∞ are never the highest: so
    classes are excluded.

    Args:
        scores: ``[..., C, ...]``.
        dim: of the C classes.

    Returns:
        int64, ``scores`` without that dimension.
    """
    return scores.argmax(dim).where(scores.amax(dim).isfinite(), NO_ANSWER)


def ranked_answers(scores: Tensor, top: int) -> Tensor:
    """Classes by falling score, ``NO_ANSWER`` throughout where one of the scores is NaN or +∞.

    Args:
        scores: ``[N, C]``.
        top: how many, in [1, C].

    Returns:
        int64 ``[N, top]``.
    """
    lost = ~scores.amax(dim=1, keepdim=True).isfinite()
    return scores.topk(top, dim=1).indices.masked_fill(lost, NO_ANSWER)


def count_right(scores: Tensor, labels: Tensor) -> Tensor:
    """How many of the highest scores are those of the labels; NaN where one is no number.

    Args:
        scores: ``[..., B, C]``.
        labels: integers ``[B]``; −1 where unknown: does not count.

    Returns:
        Float, ``[...]``; on the device, without waiting for it.
    """
    answers = best_answer(scores.detach())
    right = (answers == labels).sum(dim=-1).float()
    return right.masked_fill(((answers == NO_ANSWER) & (labels != -1)).any(dim=-1), torch.nan)
