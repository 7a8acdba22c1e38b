"""Weighted k-nearest-neighbour classification of frozen features."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_ssl.answers import NO_ANSWER
from lit_ssl.errors import InputError

# Similarities of one block: 1024 x 65 536 float32 = 256 MiB.
_QUERY_CHUNK = 1024
_BANK_CHUNK = 65_536
_TIED_BLOCK = 2**22  # similarities among which ties are resolved at once


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

    Features are L2-normalised; the ``k`` most similar bank rows (of equally similar ones the
    earlier) vote for their class with weight ``exp(similarity / temperature)``. All arithmetic is
    float32, on the device of ``queries``; the bank may lie elsewhere and is brought over in chunks.

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
    similarity, rows = knn_neighbours(bank, queries, k)
    labels = bank_labels.to(rows.device)[rows]
    return vote(similarity, labels, num_classes, temperature, top)


def knn_neighbours(bank: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Find the ``k`` bank rows whose cosine similarity to a query is largest.

    Args:
        bank: ``[N, D]``, float; brought to the device of ``queries`` in chunks.
        queries: ``[Q, D]``, float.
        k: >= 1; capped at N.

    Returns:
        Similarities, float32 ``[Q, k]``, best first, and rows of the bank, int64 ``[Q, k]``. Of
        equally similar rows the earlier one is first. Where features are NaN or infinite, the
        similarity is infinite.
    """
    device = queries.device
    return neighbours_of(lambda a, b: bank[a:b].to(device), len(bank), queries, min(k, len(bank)))


def neighbours_of(
    read: Callable[[int, int], Tensor], count: int, queries: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """As [`knn_neighbours`][lit_ssl.metrics.knn_neighbours], of a bank that is read in chunks.

    Args:
        read: Gives rows ``start`` … ``stop`` of the bank, on the device of ``queries``.
        count: Rows of the bank, >= 0.
        queries: ``[Q, D]``.
        k: >= 1; as many columns are returned, or ``count`` if that is less.
    """
    device = queries.device
    similarity = torch.empty(len(queries), 0, device=device)
    rows = torch.empty(len(queries), 0, dtype=torch.int64, device=device)
    with torch.autocast(device.type, enabled=False):
        normalised = F.normalize(queries.float(), dim=1)
        for start in range(0, count, _BANK_CHUNK):
            part = F.normalize(read(start, min(start + _BANK_CHUNK, count)).float(), dim=1)
            finite = bool(part.isfinite().all() & normalised.isfinite().all())
            found = []
            for chunk in normalised.split(_QUERY_CHUNK):
                block = chunk @ part.T
                found.append(_largest(block if finite else _lost_first(block), k))
            similarity = torch.cat([similarity, torch.cat([f[0] for f in found])], dim=1)
            rows = torch.cat([rows, torch.cat([f[1] for f in found]) + start], dim=1)
            similarity, rows = merge_neighbours(similarity, rows, k)
    return similarity, rows


def merge_neighbours(similarity: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` best of several candidates for each query, of equal ones those of earlier rows.

    Args:
        similarity: float ``[Q, M]``.
        rows: int64 ``[Q, M]``, where they are in the bank.
        k: How many to keep.

    Returns:
        Both ``[Q, min(k, M)]``, best first.
    """
    order = rows.argsort(dim=1)
    similarity, rows = similarity.gather(1, order), rows.gather(1, order)
    similarity, order = similarity.sort(dim=1, descending=True, stable=True)
    return similarity[:, :k], rows.gather(1, order[:, :k])


def vote(
    similarity: Tensor, labels: Tensor, num_classes: int, temperature: float, top: int
) -> Tensor:
    """Rank classes by the votes of neighbours; see [`knn_predict`][lit_ssl.metrics.knn_predict].

    Args:
        similarity: float32 ``[Q, k]``, the largest first.
        labels: Classes of the neighbours, int64 ``[Q, k]``.
        num_classes: Number of classes.
        temperature: Sharpness of the vote.
        top: Classes to return per query.
    """
    # The factor exp(max similarity) is common to all votes of a query: leaving it out keeps small
    # temperatures inside the range of float32.
    weight = ((similarity - similarity[:, :1]) / temperature).exp()
    votes = weight.new_zeros(len(similarity), num_classes).scatter_add_(1, labels, weight)
    voted = torch.zeros_like(votes, dtype=torch.bool).scatter_(1, labels, True)
    best = votes.masked_fill(~voted, -1.0).topk(top, dim=1)
    found = best.indices.masked_fill(best.values < 0, -1)
    return found.masked_fill(~votes.isfinite().all(dim=1, keepdim=True), NO_ANSWER)


def _lost_first(block: Tensor) -> Tensor:
    """Similarities that are no numbers come before all others, so that none goes on unseen."""
    return block.nan_to_num_(nan=torch.inf, posinf=torch.inf, neginf=torch.inf)


def _largest(block: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` largest of each row, of equal ones the first; in no order among equals.

    ``topk`` alone chooses freely among equals, which would hang on how a bank is cut.
    """
    if block.shape[1] <= k:
        return block, torch.arange(block.shape[1], device=block.device).expand_as(block)
    best = block.topk(k + 1, dim=1)
    values, places = best.values[:, :k], best.indices[:, :k]
    last = values[:, -1:]
    tied = (best.values[:, k:] == last).flatten().nonzero().flatten()
    for some in tied.split(max(1, _TIED_BLOCK // block.shape[1])):
        among, edge = block[some], last[some]
        above, equal = among > edge, among == edge
        room = k - above.sum(dim=1, keepdim=True)
        taken = above | (equal & (equal.cumsum(dim=1, dtype=torch.int32) <= room))
        places[some] = taken.nonzero()[:, 1].view(-1, k)
    return block.gather(1, places), places


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
    check_vote(bank_labels, num_classes, k, temperature, top)


def check_vote(labels: Tensor, num_classes: int, k: int, temperature: float, top: int) -> None:
    """Make sure that labels ``[N]``, N >= 1, and options are as ``knn_predict`` needs them.

    Args:
        labels: of the bank, int.
        num_classes: they lie in [0, ``num_classes``).
        k: number of neighbours, >= 1.
        temperature: of the votes, > 0.
        top: number of answers, in [1, ``num_classes``].

    Raises:
        ValueError: If something is not so.
    """
    if k < 1 or temperature <= 0 or not 1 <= top <= num_classes:
        raise InputError(
            f"knn_predict needs k >= 1, temperature > 0 and 1 <= top <= num_classes, got k={k}, "
            f"temperature={temperature}, top={top}, num_classes={num_classes}"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise InputError(
            f"bank_labels run from {low} to {high}, expected 0 to {num_classes - 1}: drop rows "
            "without a label (−1) first, or correct num_classes"
        )
