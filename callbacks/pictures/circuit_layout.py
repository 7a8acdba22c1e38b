"""Where the modules of a circuit stand in a picture: clusters, their order, positions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["CircuitLayout", "circuit_layout"]

_SEARCHES = 3  # for clusters; a single one may join two of them
_STEPS = 60  # of the drawing
_GRAVITY = 2.5  # all nodes together repel one at distance d by 4 / d


class CircuitLayout(NamedTuple):
    """Clusters and positions of N modules.

    Attributes:
        order: int64 ``[N]``: modules of one cluster one after the other, the largest cluster first,
            in each the module with most links first.
        cluster: int64 ``[N]``, the number of each module's cluster, 0 the largest.
        position: float64 ``[N, 2]``, within -1 … 1.
        degree: int64 ``[N]``, links of each module.
    """

    order: np.ndarray
    cluster: np.ndarray
    position: np.ndarray
    degree: np.ndarray


def circuit_layout(probabilities: np.ndarray, links: np.ndarray, seed: int = 0) -> CircuitLayout:
    """Find clusters (Louvain) and a force-directed drawing; the same for the same seed.

    Args:
        probabilities: ``[N, N]`` in [0, 1], how strong links are.
        links: bool ``[N, N]``, symmetric, which of them count; the diagonal is ignored.
        seed: of the search; global random numbers are neither used nor changed.
    """
    import networkx as nx

    n = len(links)
    links = links & ~np.eye(n, dtype=bool)
    degree = links.sum(1)
    graph = nx.from_numpy_array(np.where(links, probabilities, 0.0))
    searches = [nx.community.louvain_communities(graph, seed=seed + i) for i in range(_SEARCHES)]
    if graph.number_of_edges():
        searches.sort(key=lambda found: -nx.community.modularity(graph, found))
    communities = sorted(searches[0], key=lambda nodes: (-len(nodes), min(nodes)))
    cluster = np.empty(n, dtype=np.int64)
    for number, nodes in enumerate(communities):
        cluster[list(nodes)] = number
    order = np.lexsort((np.arange(n), -degree, cluster))
    pull = np.where(links, probabilities, 0.0)
    return CircuitLayout(order, cluster, _positions(pull, cluster, seed), degree)


def _positions(pull: np.ndarray, cluster: np.ndarray, seed: int) -> np.ndarray:
    """Fruchterman and Reingold's drawing, from places at which clusters stand on a circle.

    Nodes repel each other by k² / d, and links attract by their weight times d² / k; the centre
    attracts, too, so that parts without links do not fly off. What a node moves at most shrinks to
    nothing.
    """
    n = len(cluster)
    angle = 2 * np.pi * cluster / (cluster.max() + 1)
    places = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    places += np.random.default_rng(seed).normal(scale=0.2, size=(n, 2))
    k = 2.0 / np.sqrt(n)
    for step in range(_STEPS):
        gaps = places[:, None] - places
        distance = np.maximum(np.linalg.norm(gaps, axis=2), 1e-3)
        force = (k / distance) ** 2 - pull * distance / k
        move = np.einsum("uv,uvi->ui", force, gaps) - _GRAVITY * places
        length = np.maximum(np.linalg.norm(move, axis=1, keepdims=True), 1e-9)
        places += move / length * np.minimum(length, 0.2 * (1 - step / _STEPS))
    places -= places.mean(0)
    # Few outliers would leave the many in the middle no room: half of what counts is their rank.
    radius = np.maximum(np.linalg.norm(places, axis=1), 1e-9)
    ranked = np.sqrt((radius.argsort().argsort() + 0.5) / n)
    return places * ((ranked + radius / radius.max()) / (2 * radius))[:, None]
