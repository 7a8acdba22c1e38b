"""Inception Score of videos, from what a classifier says of each."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lit_ssl.errors import InputError
from lit_ssl.metrics.video.protocols import InceptionProtocol, inception_protocol

__all__ = ["InceptionScore", "are_probabilities", "inception_score"]

_ORDER_SEED = 42  # of the released code, with NumPy's legacy generator


class InceptionScore(NamedTuple):
    """Of videos.

    Attributes:
        mean: over the splits, float64, from 1 to the number of classes.
        std: over the splits, of the population: 0 for one.
        num_clips: how many.
    """

    mean: Tensor
    std: Tensor
    num_clips: int


def inception_score(
    outputs: Tensor, splits: int | None = None, protocol: str | InceptionProtocol = "tgan2"
) -> InceptionScore:
    """Inception Score ``exp(E KL(p(y|x) || p(y)))``, the mean over parts of the clips.

    Args:
        outputs: of the classifier, ``[N, C]``: logits, or probabilities, which are told by rows
            that are not negative and sum to 1.
        splits: parts, of sizes that differ by one at most; None: as many as the protocol has. More
            parts give a lower score: 9.2 instead of 13.0 for ten parts of 300 clips.
        protocol: ``"tgan2"`` or ``"stylegan_v"`` (shuffled first).

    Raises:
        ValueError: Fewer clips than parts, or outputs that are not finite.

    Source: arXiv 1606.03498, section 4; pfnet-research/tgan2 at f892bc4; universome/stylegan-v at
    3fecd69, whose NaN for probabilities that are 0 is a 0 here.
    """
    how = inception_protocol(protocol) if isinstance(protocol, str) else protocol
    parts = how.splits if splits is None else splits
    if outputs.ndim != 2 or parts < 1 or len(outputs) < max(parts, 2):
        raise InputError(
            f"an Inception Score in {parts} parts needs outputs [N, C] of at least"
            f" {max(parts, 2)} clips, got {list(outputs.shape)}"
        )
    rows = outputs.detach().cpu().double()
    if not rows.isfinite().all():
        raise InputError("inception_score got outputs that are NaN or infinite")
    p = (rows if are_probabilities(rows) else rows.softmax(dim=1)) + how.eps
    if how.shuffled:
        order = np.random.RandomState(_ORDER_SEED).permutation(len(p))
        p = p[torch.from_numpy(order)]
    bounds = [i * len(p) // parts for i in range(parts + 1)]
    scores = torch.stack([_score(p[a:b]) for a, b in pairwise(bounds)])
    return InceptionScore(scores.mean(), scores.std(correction=0), len(p))


def are_probabilities(outputs: Tensor) -> bool:
    """Whether all rows are probabilities, not logits.

    Args:
        outputs: ``[N, K]``; a row of probabilities adds up to one, within 0.001.
    """
    sums = outputs.double().sum(dim=1)
    return bool((outputs >= 0).all() and ((sums - 1).abs() < 1e-3).all())


def _score(p: Tensor) -> Tensor:
    mean = p.mean(dim=0)
    # x log x is 0 at 0
    divergence = torch.special.xlogy(p, p) - torch.special.xlogy(p, mean)
    return divergence.sum(dim=1).mean().exp()
