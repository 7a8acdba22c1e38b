"""Nearest neighbours, hard and soft, in banks of which each process holds a part."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_ssl.answers import ranked_answers
from lit_ssl.distributed import all_reduce_sum, gather_stack
from lit_ssl.metrics.knn import check_vote, merge_neighbours, neighbours_of, vote
from lit_ssl.metrics.sharded import ShardedFeatures
from lit_ssl.metrics.soft_nn import check_supports, support_weights

__all__ = [
    "Neighbours",
    "SupportTotals",
    "sharded_knn",
    "sharded_neighbours",
    "sharded_soft_nn",
    "sharded_support_totals",
]

_QUERIES = 1024  # whose class weights are held at once


class Neighbours(NamedTuple):
    """The nearest rows of a bank to some queries.

    Attributes:
        queries: Numbers of the queries in their split, int64 ``[q]``, on the CPU.
        similarity: Cosine, the largest first, float32 ``[q, k]``.
        rows: Numbers of the neighbours in the bank, int64 ``[q, k]``.
    """

    queries: Tensor
    similarity: Tensor
    rows: Tensor


class SupportTotals(NamedTuple):
    """How the supports of all classes are weighed together for some queries.

    Attributes:
        queries: Numbers of the queries in their split, int64 ``[q]``, on the CPU.
        log_total: Log of the sum of ``exp(cos / τ)`` over all supports, ``[q, 1]``: a support has
            the weight ``exp(cos / τ - log_total)``.
        probabilities: Of the classes, ``[q, K]``.
    """

    queries: Tensor
    log_total: Tensor
    probabilities: Tensor


@torch.no_grad()
def sharded_knn(
    bank: ShardedFeatures,
    queries: ShardedFeatures,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
    top: int = 1,
) -> Tensor:
    """As [`knn_predict`][lit_ssl.metrics.knn_predict], where no process holds the whole bank.

    Queries travel to all processes piece by piece, each finds the nearest of its own rows, and the
    nearest of all vote. The result is that of the joined bank, ties included: of equally similar
    rows the earlier ones of the split count, whoever holds them. A collective.

    Args:
        bank: All rows with a known class.
        queries: Rows to classify.
        num_classes: As of ``knn_predict``, as what follows.
        k: Neighbours that vote.
        temperature: Sharpness of the vote.
        top: Classes to return per query.

    Returns:
        Classes by falling vote, int64 ``[Q, top]`` on the CPU, in the order of the queries, on
        every process.
    """
    check_vote(bank.labels, num_classes, k, temperature, top)
    ranked = torch.empty(len(queries), top, dtype=torch.int64)
    for places, similarity, found in sharded_neighbours(bank, queries, k):
        labels = bank.labels.to(found.device)[found]
        ranked[places] = vote(similarity, labels, num_classes, temperature, top).cpu()
    return ranked


@torch.no_grad()
def sharded_neighbours(
    bank: ShardedFeatures, queries: ShardedFeatures, k: int
) -> Iterator[Neighbours]:
    """The ``k`` bank rows that are most similar to each query, the same on every process.

    Of equally similar rows the earlier ones of the split come first. A collective: take all pieces
    on every process.

    Args:
        bank: Rows among which neighbours are looked for.
        queries: Rows whose neighbours are wanted.
        k: Neighbours, >= 1; capped at the size of the bank.

    Yields:
        Queries, piece by piece; on one process all at once.
    """
    k = min(k, len(bank))
    numbers = bank.numbers.to(bank.device)
    for places, rows in queries.pieces():
        similarity, held = neighbours_of(bank.read, bank.held, rows, k)
        missing = k - similarity.shape[1]  # of a process that holds fewer rows
        similarity = F.pad(similarity, (0, missing), value=-torch.inf)
        found = F.pad(numbers[held], (0, missing), value=len(bank))
        similarity, found = merge_neighbours(
            torch.cat(list(gather_stack(similarity)), dim=1),
            torch.cat(list(gather_stack(found)), dim=1),
            k,
        )
        yield Neighbours(places, similarity, found)


@torch.no_grad()
def sharded_soft_nn(
    supports: ShardedFeatures,
    queries: ShardedFeatures,
    num_classes: int,
    temperature: float = 0.1,
    top: int = 1,
) -> Tensor:
    """Classes by ``soft_nearest_neighbor``, with supports on all processes.

    Queries travel piece by piece, each process weighs its own supports, and the weights are summed.
    That is another order of summation than that of the joined supports, so probabilities agree
    within rounding. A collective.

    Args:
        supports: All rows with a known class.
        queries: Rows to classify.
        num_classes: Number of classes.
        temperature: τ > 0.
        top: Classes to return per query, in ``[1, num_classes]``.

    Returns:
        Classes by falling probability, int64 ``[Q, top]`` on the CPU, in the order of the queries,
        on every process; −2 where the features are NaN or infinite.
    """
    ranked = torch.empty(len(queries), top, dtype=torch.int64)
    for part in sharded_support_totals(supports, queries, num_classes, temperature):
        ranked[part.queries] = ranked_answers(part.probabilities, top).cpu()
    return ranked


@torch.no_grad()
def sharded_support_totals(
    supports: ShardedFeatures,
    queries: ShardedFeatures,
    num_classes: int,
    temperature: float = 0.1,
) -> Iterator[SupportTotals]:
    """Class probabilities by ``soft_nearest_neighbor``, the same on every process.

    A collective: take all pieces on every process.

    Args:
        supports: As of ``sharded_soft_nn``, as what follows.
        queries: Rows to classify.
        num_classes: Number of classes.
        temperature: τ > 0.

    Yields:
        Queries, piece by piece.
    """
    check_supports(supports.labels, temperature, num_classes)
    labels = supports.labels[supports.numbers]
    for places, rows in queries.pieces():
        for part, some in zip(places.split(_QUERIES), rows.split(_QUERIES), strict=True):
            highest, totals = support_weights(some, supports.read, labels, temperature, num_classes)
            of_all = gather_stack(highest).amax(dim=0)
            totals = all_reduce_sum(totals * (highest - of_all).exp())
            total = totals.sum(dim=1, keepdim=True)
            yield SupportTotals(part, of_all + total.log(), totals / total)
