"""Graphs from which circuits start: families, sizes, seeds, and the targets of the matching."""

from __future__ import annotations

import random

import networkx as nx
import numpy as np
import pytest
import torch

from lit_ssl.models import GraphPrior, link_targets
from lit_ssl.models.nac.graph_families import FAMILIES

ODD = {  # sizes that no power of two divides, with arguments that fit
    "watts-strogatz": (45, {}), "planted-partition": (21, {"clusters": 3}),
    "erdos-renyi": (45, {}), "barabasi-albert": (45, {}),
    "ring-of-cliques": (21, {"cluster_size": 7}), "complete": (5, {}), "grid": (15, {}),
    "hypercube": (32, {}), "barbell": (17, {}), "tree": (23, {"branching": 3}),
}  # fmt: skip


def graph_of(prior, n):
    return nx.from_numpy_array(prior.adjacency(n).numpy())


@pytest.mark.parametrize("name", FAMILIES)
def test_graphs_are_simple_and_a_function_of_the_seed_alone(name):
    n, arguments = ODD[name]
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    adjacency = GraphPrior(name, seed=3, arguments=arguments).adjacency(n)
    assert states[0] == random.getstate()
    assert (states[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert torch.equal(states[2], torch.get_rng_state())
    assert adjacency.dtype == torch.bool
    assert adjacency.shape == (n, n)
    assert torch.equal(adjacency, adjacency.T)
    assert not adjacency.diagonal().any()
    assert adjacency.any()
    random.seed(2), np.random.seed(2)  # noqa: NPY002
    assert torch.equal(adjacency, GraphPrior(name, 3, arguments).adjacency(n))
    other = GraphPrior(name, 4, arguments).adjacency(n)
    is_random = name in ("watts-strogatz", "planted-partition", "erdos-renyi", "barabasi-albert")
    assert torch.equal(adjacency, other) != is_random


def test_published_sizes():
    def links(name, n, **arguments):
        return graph_of(GraphPrior(name, arguments=arguments), n).number_of_edges()

    assert links("watts-strogatz", 256) == 256 * 12  # k = 25: 12 on each side
    assert links("barabasi-albert", 256) == 2 * 254
    assert links("barabasi-albert", 768) == 6 * 762
    assert links("ring-of-cliques", 256) == 8 * 32 * 31 / 2 + 8
    assert links("complete", 7) == 21
    assert links("grid", 12) == 3 * 3 + 2 * 4  # 3 rows of 4
    assert links("grid", 12, rows=2) == 2 * 5 + 6
    assert links("hypercube", 64) == 64 * 6 / 2
    assert links("barbell", 11) == 6 + 6 + 4  # cliques of 4, three nodes between them
    assert links("tree", 23) == 22
    planted = GraphPrior("planted-partition").adjacency(768).view(12, 64, 12, 64).float()
    shares = planted.mean((1, 3))
    torch.testing.assert_close(
        shares.diagonal().mean(), torch.tensor(0.9 * 63 / 64), atol=0.02, rtol=0
    )
    torch.testing.assert_close(shares[0, 1:].mean(), torch.tensor(0.2), atol=0.02, rtol=0)
    dense = GraphPrior("erdos-renyi").adjacency(256).float().mean()
    torch.testing.assert_close(dense, torch.tensor(0.1), atol=0.01, rtol=0)


def test_cliques_lie_one_after_the_other():
    adjacency = GraphPrior("ring_of_cliques", arguments={"clusters": 3}).adjacency(15)
    blocks = adjacency.view(3, 5, 3, 5)
    for c in range(3):
        assert blocks[c, :, c].sum() == 20
        assert blocks[c, :, (c + 1) % 3].sum() == 1


@pytest.mark.parametrize("name", ["Watts_Strogatz", "planted partition", " ERDOS-RENYI"])
def test_names_are_read_in_every_spelling(name):
    assert GraphPrior(name).name in FAMILIES


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (
            "wats_strogats",
            {},
            r"unknown graph prior 'wats_strogats'. Did you mean watts-strogatz\?",
        ),
        ("ising", {}, "unknown graph prior 'ising'. Valid: barabasi-albert, barbell, complete, "),
        ("tree", {"branch": 3}, r"tree has no argument 'branch'. Did you mean branching\?"),
        ("complete", {"p": 0.5}, "complete has no argument 'p'. It has none."),
        ("erdos-renyi", {"p": 1.5}, r"p of graph prior erdos-renyi must lie in \[0, 1\], got 1.5"),
        ("erdos-renyi", {"p": "half"}, r"must lie in \[0, 1\], got 'half'"),
        ("barabasi-albert", {"m": 2.5}, "m of .* must be a whole number >= 1, got 2.5"),
        ("barabasi-albert", {"m": float("nan")}, "m of .* must be a whole number >= 1, got nan"),
    ],
)
def test_unknown_names_and_arguments(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        GraphPrior(name, arguments=arguments)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"seed": -1}, "seed"), ({"margin": 1.0}, "margin"), ({"lr": 0.0}, "lr > 0")],
)
def test_values_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        GraphPrior("tree", **settings)


@pytest.mark.parametrize("ask", [GraphPrior.adjacency, link_targets])
@pytest.mark.parametrize(
    ("name", "n", "arguments", "message"),
    [
        ("planted-partition", 20, {}, "20 modules among 8 equal clusters: set only the argument "
         "clusters, to 2 or 4 or 5 or 10, or num_modules to 16 or 24"),
        ("ring-of-cliques", 7, {}, "7 modules among 8 equal clusters: set num_modules to 8"),
        ("planted-partition", 200, {"clusters": 8, "cluster_size": 32},
         "200 modules among 8 clusters of 32: set .* or num_modules to 256"),
        ("planted-partition", 20, {"cluster_size": 32}, "clusters of 32: .* num_modules to 32"),
        ("ring-of-cliques", 8, {}, "at least 2 clusters of at least 2 modules, got 8 of 1"),
        ("hypercube", 24, {}, "needs a power of two, got 24 modules: set num_modules to 16 or 32"),
        ("grid", 24, {"rows": 5}, "cannot put 24 modules in 5 rows: set rows to 1 or 2 or 3 or 4"),
        ("barbell", 3, {}, "2 <= clique_size <= num_modules / 2, got clique_size 2 and 3 modules"),
        ("watts-strogatz", 8, {"k": 8}, "2 <= k < num_modules, got k 8 and 8 modules"),
        ("barabasi-albert", 2, {}, "m < num_modules, got m 2 and 2 modules"),
        ("tree", 1, {}, "at least 2 modules, got 1"),
    ],
)  # fmt: skip
def test_sizes_that_a_family_does_not_have(name, n, arguments, message, ask):
    with pytest.raises(ValueError, match=f"graph prior {name} .*{message}"):
        ask(GraphPrior(name, arguments=arguments), n)


@pytest.mark.parametrize("name", FAMILIES)
def test_targets_are_symmetric_probabilities(name):
    n, arguments = ODD[name]
    targets = link_targets(GraphPrior(name, arguments=arguments), n)
    assert targets.dtype == torch.float32
    assert targets.shape == (n, n)
    torch.testing.assert_close(targets, targets.T)
    assert 0 <= targets.min() < 1 or name == "complete"
    assert targets.max() <= 1


@pytest.mark.parametrize(
    ("n", "k", "p"), [(31, 6, 0.4), (31, 7, 1.0), (101, 10, 0.4), (20, 4, 0.0), (9, 8, 0.5)]
)
def test_watts_strogatz_targets_are_the_frequencies_of_links(n, k, p):
    arguments = {"k": k, "p": p}
    targets = link_targets(GraphPrior("watts-strogatz", arguments=arguments), n)
    drawn = [GraphPrior("watts-strogatz", s, arguments).adjacency(n) for s in range(300)]
    seen = torch.stack(drawn).float().mean(0).fill_diagonal_(1.0)
    # by distance on the ring, which averages the noise
    for step in range(n // 2 + 1):
        pairs = torch.arange(n), (torch.arange(n) + step) % n
        torch.testing.assert_close(targets[pairs].mean(), seen[pairs].mean(), atol=0.012, rtol=0)
    torch.testing.assert_close(targets.sum() - n, torch.tensor(float(n * (k // 2) * 2)))


def test_other_targets():
    assert torch.equal(
        link_targets(GraphPrior("erdos-renyi", arguments={"p": 0.25}), 4),
        torch.full((4, 4), 0.25).fill_diagonal_(1.0),
    )
    tree = GraphPrior("tree")
    assert torch.equal(link_targets(tree, 9), tree.adjacency(9).float().fill_diagonal_(1.0))
