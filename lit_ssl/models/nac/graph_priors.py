"""Random graphs from which the wiring of a circuit starts, and which it may be kept close to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from lit_ssl.errors import InputError, did_you_mean
from lit_ssl.models.nac.graph_families import FAMILIES, Arguments, check_argument, resolve

__all__ = ["GraphPrior", "link_targets"]


@dataclass(frozen=True)
class GraphPrior:
    """A family of random graphs over the modules of a circuit, and how signatures are fitted to it.

    The families, and their arguments with defaults for N modules:

        watts-strogatz     k = N / 10, p = 0.4     a ring in which each node has its k nearest
                                                   neighbours (k - 1 where k is odd); each link is
                                                   moved with probability p
        planted-partition  clusters = 8, p_in = 0.9, p_out = 0.2
        erdos-renyi        p = 0.1
        barabasi-albert    m = N / 128, but ≥ 2    each new node joins m nodes, rather large ones
        ring-of-cliques    clusters = 8            and p_in = 0.9, p_out = 0.05 of link_targets
        complete                                   all modules joined
        grid               rows                    as square as N allows
        hypercube                                  N is a power of two
        barbell            clique_size = 2 N / 5   two cliques and a path between them
        tree               branching = 2           filled level by level

    768 modules have 12 clusters. Clusters are equally large; ``cluster_size`` may be given in place
    of, or beside, their number.

    Source: arguments of the first five from published configurations for 256 and 768 modules
    (arXiv 2210.08031); for other N, and of the last four, they are ours.

    Args:
        name: of the family; underscores and capitals are read alike.
        seed: of the graph and of the fit: the same seed, the same graph.
        arguments: of the family, where they are not the defaults.
        margin: by which distances keep away from the kernel's truncation, see
            [`fit_signatures`][lit_ssl.models.fit_signatures]; in [0, 1).
        steps: of the fit at most, ≥ 0.
        lr: of the fit, > 0.

    Raises:
        ValueError: for an unknown name or argument, or a value outside its range.
    """

    name: str
    seed: int = 0
    arguments: dict[str, int | float] = field(default_factory=dict)
    margin: float = 0.02
    steps: int = 2000
    lr: float = 5e-3

    def __post_init__(self) -> None:
        name = str(self.name).strip().lower().replace("_", "-").replace(" ", "-")
        if name not in FAMILIES:
            raise InputError(f"unknown graph prior {self.name!r}.{did_you_mean(name, FAMILIES)}")
        object.__setattr__(self, "name", name)
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed of a graph prior must lie in [0, 2^32), got {self.seed}")
        if not (0 <= self.margin < 1 and self.steps >= 0 and 0 < self.lr < float("inf")):
            raise InputError(
                "a graph prior needs a margin in [0, 1), steps >= 0 and lr > 0, got "
                f"{self.margin}, {self.steps} and {self.lr}"
            )
        for key, value in self.arguments.items():
            check_argument(name, key, value)

    def adjacency(self, num_modules: int) -> Tensor:
        """Draw the graph. Global random numbers are neither used nor changed.

        Args:
            num_modules: N.

        Returns:
            bool ``[N, N]``, symmetric, with an empty diagonal, on the CPU. Nodes are in the order
            of their family: clusters one after the other, the oldest first.

        Raises:
            ValueError: if the family has no graph of that size; the message says which it has.
        """
        import networkx as nx  # a third of a second, which other runs do not need

        arguments = resolve(self.name, num_modules, self.arguments)
        graph = FAMILIES[self.name].draw(nx, num_modules, self.seed, arguments)
        matrix = nx.to_numpy_array(graph, nodelist=list(graph), dtype=np.int8)
        return torch.from_numpy(matrix != 0)


def link_targets(prior: GraphPrior, num_modules: int) -> Tensor:
    """Link probabilities W to which those of a circuit may be matched.

    - planted-partition: p_in inside of clusters, the diagonal included, p_out elsewhere;
    - barabasi-albert: ``W_ij = min(1, sqrt(N / i) / (16 sqrt(j)))``, i and j from 1; m cancels;
    - ring-of-cliques: the same as planted-partition, but the first node of each cluster is joined
      with probability 1 to all of its own and the next one; the last one has no next, as published;
    - watts-strogatz: how probable a link is after the moves, by the distance on the ring (ours:
      published code fails);
    - erdos-renyi: p (ours);
    - others: the graph that is drawn (ours).

    The last three have ones on the diagonal, as every kernel has.

    Args:
        prior: family, arguments, and the seed where a graph is drawn.
        num_modules: N, the mediators.

    Returns:
        float32 ``[N, N]`` in [0, 1], on the CPU.

    Raises:
        ValueError: if the family has no graph of that size.

    Source: published code, where not ours.
    """
    name, n = prior.name, num_modules
    arguments = resolve(name, n, prior.arguments)
    if name == "barabasi-albert":
        age = torch.arange(1, n + 1, dtype=torch.float64)
        return (torch.sqrt(n / age[:, None]) / (16 * age.sqrt())).clamp(max=1.0).float()
    if name in ("planted-partition", "ring-of-cliques"):
        return _cluster_targets(n, arguments, joined=name == "ring-of-cliques")
    if name == "watts-strogatz":
        targets = _ring_targets(n, int(arguments["k"]) // 2, arguments["p"])
    elif name == "erdos-renyi":
        targets = torch.full((n, n), float(arguments["p"]))
    else:
        targets = prior.adjacency(n).float()
    return targets.fill_diagonal_(1.0)


def _cluster_targets(n: int, arguments: Arguments, joined: bool) -> Tensor:
    size = int(arguments["cluster_size"])
    cluster = torch.arange(n) // size
    inside = cluster[:, None] == cluster
    targets = torch.where(inside, float(arguments["p_in"]), float(arguments["p_out"]))
    for first in range(0, n if joined else 0, size):
        targets[first, first : first + 2 * size] = 1.0
        targets[first : first + 2 * size, first] = 1.0
    return targets


def _ring_targets(n: int, reach: int, p: float) -> Tensor:
    # Links of length 1 move first, then those of length 2, and so on, each to one of the empty
    # places, of which there are always as many. So a place stays empty through the moves of one
    # length with probability exp(-c); one that becomes empty amidst them, (1 - exp(-c)) / c on
    # average.
    empty = n * (n - 1) / 2 - n * reach
    if p == 0 or empty == 0:
        c, amidst = 0.0, 1.0
    else:
        c = p * n / empty
        amidst = -math.expm1(-c) / c
    lengths = (torch.arange(n, dtype=torch.float64)[:, None] - torch.arange(n)).abs()
    lengths = torch.minimum(lengths, n - lengths)
    near = 1 - (p * amidst if empty else 0.0) * torch.exp(-c * (reach - lengths))
    return torch.where(lengths <= reach, near, -math.expm1(-c * reach)).float()
