"""Soft nearest-neighbour classification, as PAWS predicts without training a classifier."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_ssl.errors import InputError

__all__ = ["soft_nearest_neighbor"]

# Rows at once: bounds the memory of the similarities.
_QUERY_CHUNK = 1024
_SUPPORT_CHUNK = 65_536


@torch.no_grad()
def soft_nearest_neighbor(
    query: Tensor,
    support: Tensor,
    support_labels: Tensor,
    temperature: float = 0.1,
    num_classes: int | None = None,
) -> Tensor:
    """Class probabilities of queries: the labels of the supports, weighted by similarity.

    ``softmax(cos(query, support) / temperature) · one_hot(labels)``. The arithmetic is float32, on
    the device of ``query``; the supports may lie elsewhere and are brought over in chunks.

    Args:
        query: ``[Q, D]``, float.
        support: ``[M, D]``, float.
        support_labels: int64 ``[M]``, each in ``[0, num_classes)``.
        temperature: τ > 0.
        num_classes: K; None: the highest label plus one.

    Returns:
        float32 ``[Q, K]``, each row sums to 1, or is NaN where features are NaN or infinite.

    Raises:
        ValueError: if shapes or labels do not fit, there is no support, or ``temperature <= 0``.

    Source: arXiv 2104.13963, eq. 1.
    """
    classes = _check(query, support, support_labels, temperature, num_classes)
    device = query.device
    probs = torch.empty(len(query), classes, device=device)
    for start in range(0, len(query), _QUERY_CHUNK):
        rows = slice(start, start + _QUERY_CHUNK)
        _, totals = support_weights(
            query[rows],
            lambda a, b: support[a:b].to(device),
            support_labels,
            temperature,
            classes,
        )
        probs[rows] = totals / totals.sum(dim=1, keepdim=True)
    return probs


def support_weights(
    query: Tensor,
    read: Callable[[int, int], Tensor],
    labels: Tensor,
    temperature: float,
    classes: int,
) -> tuple[Tensor, Tensor]:
    """Sum the weights ``exp(cos / τ)`` of the supports of each class, of supports read in chunks.

    Args:
        query: ``[q, D]``.
        read: Gives supports ``start`` … ``stop``, on the device of ``query``.
        labels: int64 ``[M]``, classes of the supports; M may be 0.
        temperature: τ.
        classes: K.

    Returns:
        The highest logit ``[q, 1]`` (−∞ without supports), and the sums ``[q, K]`` divided by its
        exponential, which keeps small temperatures in float32's range.
    """
    device = query.device
    with torch.autocast(device.type, enabled=False):
        queries = F.normalize(query.float(), dim=1) / temperature
        highest = queries.new_full((len(queries), 1), -torch.inf)
        totals = queries.new_zeros(len(queries), classes)
        for start in range(0, len(labels), _SUPPORT_CHUNK):
            stop = min(start + _SUPPORT_CHUNK, len(labels))
            logits = queries @ F.normalize(read(start, stop).float(), dim=1).T
            new_highest = torch.maximum(highest, logits.amax(dim=1, keepdim=True))
            totals *= (highest - new_highest).exp()
            totals.index_add_(1, labels[start:stop].to(device), (logits - new_highest).exp())
            highest = new_highest
    return highest, totals


def _check(
    query: Tensor, support: Tensor, labels: Tensor, temperature: float, num_classes: int | None
) -> int:
    if query.ndim != 2 or support.ndim != 2 or query.shape[1] != support.shape[1]:
        raise InputError(
            "soft_nearest_neighbor needs query [Q, D] and support [M, D] of one width D, got "
            f"{list(query.shape)} and {list(support.shape)}"
        )
    if len(support) == 0 or labels.shape != support.shape[:1]:
        raise InputError(
            "soft_nearest_neighbor needs at least one support and one label per support, got "
            f"{len(support)} supports and labels of shape {list(labels.shape)}"
        )
    return check_supports(labels, temperature, num_classes)


def check_supports(labels: Tensor, temperature: float, num_classes: int | None) -> int:
    """Number of classes, once labels ``[M]``, M >= 1, and τ are as needed.

    Args:
        labels: of the supports, int.
        temperature: τ > 0.
        num_classes: labels lie in [0, ``num_classes``); None: one more than the largest.

    Raises:
        ValueError: If something is not so.
    """
    if temperature <= 0:
        raise InputError(f"temperature must be positive, not {temperature}")
    low, high = int(labels.min()), int(labels.max())
    classes = high + 1 if num_classes is None else num_classes
    if low < 0 or high >= classes:
        raise InputError(
            f"support_labels run from {low} to {high}, expected 0 to {classes - 1}: drop rows "
            "without a label (−1) first, or correct num_classes"
        )
    return classes
