"""What the link probabilities of a circuit say about its graph."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["degree_entropy", "link_density", "mean_link"]


def link_density(links: Tensor) -> Tensor:
    """Share of pairs of different modules that are linked at all, P > 0: 1 without truncation.

    Args:
        links: link probabilities ``[…, U, U]`` among U modules.

    Returns:
        A number in [0, 1]; NaN for a single module.
    """
    return (_pairs(links) > 0).float().mean()


def mean_link(links: Tensor) -> Tensor:
    """Mean link probability of pairs of different modules, which is the expected density.

    Args:
        links: as of [`link_density`][lit_ssl.metrics.link_density].

    Returns:
        A number in [0, 1]; NaN for a single module.
    """
    return _pairs(links).mean()


def degree_entropy(links: Tensor) -> Tensor:
    """How evenly links are spread over modules.

    The expected degree of a module is the sum of its link probabilities with the others, in both
    directions. Of the modules' shares in all degrees the entropy is taken, divided by log U:

        d_u = sum_v≠u (P_uv + P_vu);  q_u = d_u / sum d;  H = -sum_u q_u log q_u / log U

    Args:
        links: as of [`link_density`][lit_ssl.metrics.link_density].

    Returns:
        The mean over leading dimensions, in [0, 1]: 1 where all degrees are equal; NaN for a single
        module or a graph without links.
    """
    size = links.shape[-1]
    others = links.float() * ~torch.eye(size, dtype=torch.bool, device=links.device)
    degrees = others.sum(dim=-1) + others.sum(dim=-2)
    shares = degrees / degrees.sum(dim=-1, keepdim=True)
    entropy = torch.special.entr(shares).sum(dim=-1)
    return (entropy / math.log(size)).mean() if size > 1 else entropy.new_full((), torch.nan)


def _pairs(links: Tensor) -> Tensor:
    """Probabilities of different modules, float32 ``[…, U * (U - 1)]``."""
    size = links.shape[-1]
    # without the first one, each row of U + 1 numbers ends with one of the diagonal; an index by a
    # mask would make the host wait
    rows = links.float().flatten(-2)[..., 1:].unflatten(-1, (size - 1, size + 1))
    return rows[..., :-1].flatten(-2)
