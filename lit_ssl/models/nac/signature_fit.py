"""Signatures whose distances are those of a graph: where the wiring of a circuit starts."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_ssl.errors import InputError

__all__ = ["UNTRUNCATED", "FitReport", "fit_report", "fit_signatures", "link_hinge"]

# The distance that counts as a link where the kernel has no truncation: the truncation of published
# kernels. (Published signatures were fitted at 0.8 for it, which lets most non-links through.)
UNTRUNCATED = 0.9


class FitReport(NamedTuple):
    """How well the links of a kernel are those of a graph, pairs of different modules counted.

    Attributes:
        recall: share of the graph's links that are alive in the kernel.
        precision: share of the kernel's live links that the graph has.
        density: share of the pairs whose link is alive in the kernel.
    """

    recall: float
    precision: float
    density: float

    def __str__(self) -> str:
        return (
            f"recall {self.recall:.3f}, precision {self.precision:.3f}, "
            f"density {100 * self.density:.1f} %"
        )


def link_hinge(
    signatures: Tensor, adjacency: Tensor, truncation: float, margin: float = 0.0
) -> Tensor:
    """What each pair of modules adds to the loss of the fit.

    With the distance ``d = 1 - cos``:

        a link:     max(truncation - margin, d)
        no link:    max(-(truncation + margin), -d)

    Published code takes the mean of all pairs, the diagonal included, without a margin.

    Args:
        signatures: ``[N, G]``.
        adjacency: bool ``[N, N]``.
        truncation: distance above which a kernel has no link.
        margin: ≥ 0.

    Returns:
        ``[N, N]``, with gradient.

    Source: the published code; the margin is ours.
    """
    side = torch.where(adjacency.bool(), 1.0, -1.0)
    return torch.maximum(side * truncation - margin, side * _distances(signatures))


def fit_signatures(
    adjacency: Tensor,
    signature_dim: int,
    truncation: float | None = None,
    margin: float = 0.02,
    steps: int = 2000,
    lr: float = 5e-3,
    seed: int = 0,
) -> tuple[Tensor, FitReport]:
    """Signatures of which exactly the linked ones are closer than the truncation of a kernel.

    Adam on the mean of ``link_hinge`` over pairs of different modules, from orthogonal
    signatures, until every pair is on its side of the margin or the steps are used up. A complete
    graph has identical signatures, as published: then all link probabilities are 1.

    Global random numbers are neither used nor changed.

    Args:
        adjacency: bool ``[N, N]``, symmetric; the diagonal is ignored.
        signature_dim: G.
        truncation: distance above which the kernel has no link, in (0, 2); None, for a kernel
            without: fitted at 0.9, which a truncation that comes later can then use.
        margin: links end at distances ≤ truncation - margin, others at ≥ truncation + margin.
        steps: at most, ≥ 0.
        lr: > 0.
        seed: of the start.

    Returns:
        float32 ``[N, G]`` on the CPU, and what the fit reached at the truncation itself: a graph
        that does not fit into G dimensions is reported, not refused.

    Raises:
        ValueError: for a matrix that is not square and symmetric, or a value outside its range.
    """
    limit = UNTRUNCATED if truncation is None else float(truncation)
    _check(adjacency, signature_dim, limit, margin)
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
        links = adjacency.detach().cpu().bool().clone()  # a normal tensor, too
        pairs = ~torch.eye(len(links), dtype=torch.bool)
        generator = torch.Generator().manual_seed(seed)
        start = torch.empty(len(links), signature_dim, dtype=torch.float32)
        nn.init.orthogonal_(start, generator=generator)
        if links[pairs].all():
            start = start[:1].repeat(len(links), 1)
        else:
            start = _descend(start, links, pairs, limit, margin, steps, lr)
    return start, fit_report(start, links, limit)


def _descend(
    start: Tensor,
    links: Tensor,
    pairs: Tensor,
    truncation: float,
    margin: float,
    steps: int,
    lr: float,
) -> Tensor:
    signatures = nn.Parameter(start)
    optimizer = torch.optim.Adam([signatures], lr=lr)
    lowest = torch.where(links, 1.0, -1.0)[pairs] * truncation - margin
    for _ in range(steps):
        terms = link_hinge(signatures, links, truncation, margin)[pairs]
        if torch.equal(terms.detach(), lowest):  # every pair is on its side of the margin
            break
        optimizer.zero_grad()
        terms.mean().backward()
        optimizer.step()
    return signatures.detach()


def fit_report(signatures: Tensor, adjacency: Tensor, truncation: float) -> FitReport:
    """Compare the links of a truncated kernel with those of a graph.

    Args:
        signatures: ``[N, G]``.
        adjacency: bool ``[N, N]``; the diagonal is ignored.
        truncation: distance above which the kernel has no link.
    """
    pairs = ~torch.eye(len(adjacency), dtype=torch.bool)
    links = adjacency.bool()[pairs]
    alive = (_distances(signatures.detach().float()) <= truncation)[pairs]
    both = int((links & alive).sum())

    def share(part: int, whole: int) -> float:
        return part / whole if whole else 1.0  # of nothing, nothing is missing

    return FitReport(
        recall=share(both, int(links.sum())),
        precision=share(both, int(alive.sum())),
        density=int(alive.sum()) / max(1, len(alive)),
    )


def _distances(signatures: Tensor) -> Tensor:
    unit = F.normalize(signatures, dim=-1)
    return 1 - unit @ unit.T


def _check(adjacency: Tensor, signature_dim: int, truncation: float, margin: float) -> None:
    if adjacency.ndim != 2 or not torch.equal(adjacency, adjacency.T):
        raise InputError(
            "signatures are fitted to a symmetric adjacency [N, N], got one of shape "
            f"{list(adjacency.shape)}"
        )
    if signature_dim < 2:
        raise InputError(f"signature_dim must be at least 2, got {signature_dim}")
    if not (truncation - margin > 0 and truncation + margin < 2 and margin >= 0):
        raise InputError(
            "signatures are fitted with 0 < truncation - margin and truncation + margin < 2, got "
            f"truncation {truncation} and margin {margin}: distances lie in [0, 2]"
        )
