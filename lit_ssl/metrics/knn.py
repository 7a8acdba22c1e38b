"""Weighted k-nearest-neighbour classification of frozen features."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_ssl.answers import NO_ANSWER
from lit_ssl.errors import InputError

# Similarities of one block: 1024 x 65 536 float32 = 256 MiB.
_QUERY_CHUNK = 1024
_BANK_CHUNK = 65_536


def knn_predict(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
    top: int = 1,
) -> Tensor:
    """Rank the classes of each query by the votes of its nearest neighbours in the bank.

    Features are L2-normalised; the ``k`` most similar bank rows vote for their class with weight
    ``exp(similarity / temperature)``. All arithmetic is float32, on the device of ``queries``; the
    bank may lie elsewhere and is brought over in chunks.

    Args:
        bank: Features with known classes, ``[N, D]``, float.
        bank_labels: Classes of the bank, int64 ``[N]``, each in ``[0, num_classes)``.
        queries: Features to classify, ``[Q, D]``, float.
        num_classes: Number of classes, >= 1.
        k: Neighbours that vote, >= 1; capped at the size of the bank.
        temperature: Sharpness of the vote, > 0.
        top: Classes to return per query, in ``[1, num_classes]``.

    Returns:
        Classes by falling vote, int64 ``[Q, top]``. Where fewer than ``top`` classes got a vote the
        rest is −1, which never equals a label; where the features are NaN or infinite, or those of
        a neighbour are, all are −2.

    Raises:
        ValueError: On an empty bank, mismatched shapes, labels outside the range, or ``k``,
            ``temperature``, ``top`` outside theirs.

    Source: Wu et al., arXiv 1805.01978, section 3.4 (k = 200, T = 0.07 there).
    """
    _check(bank, bank_labels, queries, num_classes, k, temperature, top)
    similarity, label = _nearest(bank, bank_labels, queries, min(k, len(bank)))
    # The factor exp(max similarity) is common to all votes of a query: leaving it out keeps small
    # temperatures inside the range of float32.
    weight = ((similarity - similarity[:, :1]) / temperature).exp()
    votes = weight.new_zeros(len(queries), num_classes).scatter_add_(1, label, weight)
    voted = torch.zeros_like(votes, dtype=torch.bool).scatter_(1, label, True)
    best = votes.masked_fill(~voted, -1.0).topk(top, dim=1)
    found = best.indices.masked_fill(best.values < 0, -1)
    return found.masked_fill(~votes.isfinite().all(dim=1, keepdim=True), NO_ANSWER)


def _nearest(bank: Tensor, labels: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Similarities and labels of the ``k`` nearest bank rows, both ``[Q, k]``, best first."""
    device = queries.device
    similarity = torch.empty(len(queries), 0, device=device)
    label = torch.empty(len(queries), 0, dtype=torch.int64, device=device)
    with torch.autocast(device.type, enabled=False):
        normalised = F.normalize(queries.float(), dim=1)
        for start in range(0, len(bank), _BANK_CHUNK):
            part = F.normalize(bank[start : start + _BANK_CHUNK].to(device).float(), dim=1)
            part_labels = labels[start : start + _BANK_CHUNK].to(device)
            found = [
                (chunk @ part.T).topk(min(k, len(part)), dim=1)
                for chunk in normalised.split(_QUERY_CHUNK)
            ]
            similarity = torch.cat([similarity, torch.cat([f.values for f in found])], dim=1)
            label = torch.cat([label, part_labels[torch.cat([f.indices for f in found])]], dim=1)
            similarity, order = similarity.topk(min(k, similarity.shape[1]), dim=1)
            label = label.gather(1, order)
    return similarity, label


def topk_accuracy(ranked: Tensor, labels: Tensor, k: int = 1) -> float:
    """Share of rows whose label is among the first ``k`` ranked classes.

    Args:
        ranked: Classes by falling score, int64 ``[Q, K]`` with ``K >= k``; −2 where the scores are
            no numbers.
        labels: True classes, int64 ``[Q]``.
        k: How many guesses count, >= 1.

    Returns:
        Accuracy in [0, 1]; NaN where the scores of a row are no numbers.

    Raises:
        ValueError: If there are no rows, shapes differ or fewer than ``k`` classes are ranked.
    """
    if len(labels) == 0 or ranked.shape[0] != len(labels) or ranked.shape[1] < k:
        raise InputError(
            f"topk_accuracy needs ranked [Q, >= {k}] and labels [Q] with Q > 0, got "
            f"{list(ranked.shape)} and {list(labels.shape)}"
        )
    if bool((ranked[:, :k] == NO_ANSWER).any()):
        return math.nan
    hits = ranked[:, :k] == labels.to(ranked.device)[:, None]
    return hits.any(dim=1).float().mean().item()


def _check(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    num_classes: int,
    k: int,
    temperature: float,
    top: int,
) -> None:
    if bank.ndim != 2 or queries.ndim != 2 or bank.shape[1] != queries.shape[1]:
        raise InputError(
            "knn_predict needs bank [N, D] and queries [Q, D] of one width D, got "
            f"{list(bank.shape)} and {list(queries.shape)}"
        )
    if len(bank) == 0 or bank_labels.shape != bank.shape[:1]:
        raise InputError(
            "knn_predict needs a bank of at least one row and one label per row, got "
            f"{len(bank)} rows and labels of shape {list(bank_labels.shape)}"
        )
    if k < 1 or temperature <= 0 or not 1 <= top <= num_classes:
        raise InputError(
            f"knn_predict needs k >= 1, temperature > 0 and 1 <= top <= num_classes, got k={k}, "
            f"temperature={temperature}, top={top}, num_classes={num_classes}"
        )
    low, high = int(bank_labels.min()), int(bank_labels.max())
    if low < 0 or high >= num_classes:
        raise InputError(
            f"bank_labels run from {low} to {high}, expected 0 to {num_classes - 1}: drop rows "
            "without a label (−1) first, or correct num_classes"
        )
