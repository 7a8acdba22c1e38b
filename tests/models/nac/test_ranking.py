"""Orders of modules: by links, by losses, and that they leave the network alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from lit_ssl.models import KernelOptions, rank_modules
from lit_ssl.models.nac.ranking import RANKINGS

sys.path.insert(0, str(Path(__file__).parent))
from small import circuit, tokens

PERSISTENT = {"wiring": "persistent", "num_input_modules": 2}
WIRINGS = [{}, PERSISTENT]


def batches():
    """Two, the last of one row, with a label that is not known."""
    labels = torch.tensor([0, -1, 4])
    return [(tokens(3, seed=1), labels), (tokens(1, seed=2), torch.tensor([2]))]


def loss(net, **kwargs):
    total = 0.0
    for inputs, labels in batches():
        logits = net(inputs, **kwargs).logits
        known = labels >= 0
        total = total + F.cross_entropy(logits[known], labels[known], reduction="sum")
    return total


def bridged(net, important=3):
    """One module is close to all others, which are far from each other."""
    with torch.no_grad():
        table = torch.eye(7, 8)
        table[important] = 1.0
        net.signatures["mediator"].copy_(table)
    return net


@pytest.mark.parametrize("options", WIRINGS)
@pytest.mark.parametrize("method", RANKINGS)
def test_every_order_is_a_permutation_and_leaves_the_network_alone(method, options):
    net = circuit(**options).train()
    net.propagators[0].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    order = rank_modules(net, method, iter(batches()))
    assert order.dtype == torch.int64
    assert sorted(order.tolist()) == list(range(7))
    assert torch.equal(order, rank_modules(net, method, batches()))
    assert torch.equal(state, torch.get_rng_state())
    assert net.training
    assert not net.propagators[0].training
    assert net.propagators[1].training
    assert all(parameter.grad is None for parameter in net.parameters())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


@pytest.mark.parametrize("options", WIRINGS)
@pytest.mark.parametrize("method", ["in_strength", "out_strength", "eigenvector"])
def test_the_module_that_links_all_comes_first(method, options):
    assert rank_modules(bridged(circuit(**options)), method)[0] == 3


def test_strengths_by_hand():
    net = circuit(**PERSISTENT, kernel=KernelOptions(bandwidth=0.5))
    heard = torch.stack([net.link_probabilities(d) for d in range(2)]).mean(0)
    incoming = heard.sum(1) - 1  # without itself
    expected = sorted(range(7), key=lambda u: -incoming[u].item())
    assert rank_modules(net, "in_strength").tolist() == expected
    kernel = net.read_out.attention.kernel
    answers = kernel.link_probabilities(net.signatures["output"], net.signatures["mediator"])
    outgoing = heard[:, 2:].sum(0) - 1 + answers.sum(0)
    expected = sorted(range(7), key=lambda u: -outgoing[u].item())
    assert rank_modules(net, "out_strength").tolist() == expected


def test_eigenvector_is_the_limit_of_many_walks_and_reverse_its_opposite():
    net = circuit(kernel=KernelOptions(bandwidth=0.3))
    links = net.link_probabilities().mean(0).double()
    walks = torch.ones(7, dtype=torch.float64)
    for _ in range(500):
        walks = F.normalize(links @ walks, dim=0)
    order = rank_modules(net, "eigenvector")
    assert order.tolist() == walks.argsort(descending=True).tolist()
    assert rank_modules(net, "reverse").tolist() == order.flip(0).tolist()


def test_modules_without_a_link_to_the_largest_cluster_have_an_order_too():
    net = circuit(kernel=KernelOptions(truncation=0.5, bandwidth=1.0))
    with torch.no_grad():
        table = torch.zeros(7, 8)
        table[:4, 0] = 1.0  # a cluster of four, one of two, and one alone
        table[[4, 6], 1] = 1.0
        table[5, 2] = 1.0
        net.signatures["mediator"].copy_(table)
    order = rank_modules(net, "eigenvector").tolist()
    assert set(order[:4]) == {0, 1, 2, 3}
    assert set(order[4:6]) == {4, 6}


@pytest.mark.parametrize("options", WIRINGS)
def test_loo_is_the_loss_without_each(options):
    net = circuit(**options).eval()
    with torch.no_grad():
        losses = [float(loss(net, keep=[v for v in range(7) if v != u])) for u in range(7)]
    expected = sorted(range(7), key=lambda u: -losses[u])
    assert rank_modules(net, "loo", batches()).tolist() == expected


def test_greedy_removes_the_least_needed_again_and_again():
    net = circuit().eval()
    left, removed = list(range(7)), []
    while len(left) > 1:
        with torch.no_grad():
            losses = {u: float(loss(net, keep=[v for v in left if v != u])) for u in left}
        removed.append(min(losses, key=losses.__getitem__))
        left.remove(removed[-1])
    assert rank_modules(net, "greedy", batches()).tolist() == [*left, *reversed(removed)]


@pytest.mark.parametrize("options", WIRINGS)
def test_taylor_is_the_slope_of_the_loss_in_what_a_module_sends(options):
    net = circuit(**options).eval().double()
    slopes = torch.zeros(7, dtype=torch.float64)
    for inputs, labels in batches():
        known = labels >= 0

        def value(u, step, inputs=inputs, labels=labels, known=known):
            gates = torch.ones(7, dtype=torch.float64)
            gates[u] += step
            with torch.no_grad():
                logits = net(inputs.double(), gates=gates).logits
            return F.cross_entropy(logits[known], labels[known], reduction="sum")

        slopes += torch.stack([(value(u, 1e-4) - value(u, -1e-4)) / 2e-4 for u in range(7)]).abs()
    given = [(inputs.double(), labels) for inputs, labels in batches()]
    expected = slopes.argsort(descending=True).tolist()
    assert rank_modules(net, "taylor", given).tolist() == expected


def test_taylor_ranks_while_gradients_are_off_and_parameters_frozen():
    net = circuit().requires_grad_(False)
    expected = rank_modules(net, "taylor", batches())
    with torch.inference_mode():
        assert torch.equal(rank_modules(net, "taylor", batches()), expected)


def test_controls():
    net = circuit()
    assert rank_modules(net, "nested").tolist() == list(range(7))
    first = rank_modules(net, "random", seed=1)
    torch.manual_seed(9)
    assert torch.equal(first, rank_modules(net, "random", seed=1))
    assert not torch.equal(first, rank_modules(net, "random", seed=2))


def test_order_of_a_pruned_network_counts_its_own_modules():
    net = circuit()
    best = net.rank_modules("eigenvector")[:3]
    small = net.prune(best)
    assert sorted(small.rank_modules("loo", batches()).tolist()) == [0, 1, 2]
    single = net.prune([4])
    assert [single.rank_modules(m, batches()).tolist() for m in RANKINGS] == [[0]] * len(RANKINGS)


def test_mistakes():
    net = circuit()
    with pytest.raises(ValueError, match=r"rank modules by 'eigen_vector'. Did you mean eigenv"):
        rank_modules(net, "eigen_vector")
    for given in (None, [], [(tokens(), torch.tensor([-1, -1, -1]))]):
        with pytest.raises(ValueError, match="ranking by loo needs labelled batches"):
            rank_modules(net, "loo", given)
    with pytest.raises(ValueError, match="taylor needs a network with a classifier"):
        rank_modules(circuit(num_classes=0), "taylor", batches())
    with pytest.raises(ValueError, match="no graph"):
        rank_modules(circuit(graph=False), "in_strength")
    with torch.no_grad():
        net.signatures["mediator"].fill_(torch.nan)
    for method in ("eigenvector", "loo", "taylor"):
        with pytest.raises(
            ValueError, match=f"ranking by {method} met numbers that are not finite"
        ):
            rank_modules(net, method, batches())
