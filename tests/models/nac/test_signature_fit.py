"""Signatures fitted to graphs: parity with the published loss, and that they do fit."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_ssl.models import GraphPrior, fit_signatures
from lit_ssl.models.nac.graph_families import FAMILIES
from lit_ssl.models.nac.signature_fit import FitReport, fit_report, link_hinge

FIVE = ["watts-strogatz", "planted-partition", "erdos-renyi", "barabasi-albert", "ring-of-cliques"]


def test_plain_loss_its_gradient_and_200_steps_equal_the_published_ones(golden):
    data = golden("nac/signature_fit_a")
    links = data["adjacency"] > 0
    truncation = float(data["truncation"])
    signatures = nn.Parameter(data["signatures_start"].clone())
    optimizer = torch.optim.Adam([signatures], lr=float(data["lr"]))
    losses = []
    for step in range(int(data["steps"])):
        loss = link_hinge(signatures, links, truncation).mean()
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            torch.testing.assert_close(signatures.grad, data["grad_start"], rtol=1e-5, atol=1e-6)
        losses.append(loss.detach())
        optimizer.step()
    torch.testing.assert_close(losses[0], data["loss_start"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.stack(losses), data["losses"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(signatures.detach(), data["signatures_end"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("truncation", [0.9, 0.6, None])
@pytest.mark.parametrize("name", FAMILIES)
def test_links_of_the_kernel_are_those_of_the_graph(name, truncation):
    n = 64 if name == "hypercube" else 72
    adjacency = GraphPrior(name, seed=1).adjacency(n)
    signatures, report = fit_signatures(adjacency, 64, truncation, seed=1)
    assert signatures.dtype == torch.float32
    assert not signatures.requires_grad
    assert report.recall >= 0.99
    assert report.precision >= 0.99
    unit = F.normalize(signatures, dim=-1)
    alive = 1 - unit @ unit.T <= (truncation or 0.9)  # counted here by other means
    alive.fill_diagonal_(False)
    assert report.density == pytest.approx(float(alive.sum()) / (n * (n - 1)))
    assert float((alive & adjacency).sum() / adjacency.sum()) == pytest.approx(report.recall)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIVE)
def test_published_size(name):
    _, report = fit_signatures(GraphPrior(name).adjacency(256), 64, 0.9)
    assert min(report.recall, report.precision) >= 0.99


def test_fit_is_a_function_of_its_seed_and_leaves_global_numbers_alone():
    adjacency = GraphPrior("erdos-renyi").adjacency(33)
    state = torch.get_rng_state()
    first, report = fit_signatures(adjacency, 16, 0.9, seed=5, steps=50)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(77)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        second, again = fit_signatures(adjacency, 16, 0.9, seed=5, steps=50)
    assert torch.equal(first, second)
    assert report == again
    assert not torch.equal(first, fit_signatures(adjacency, 16, 0.9, seed=6, steps=50)[0])
    nn.Parameter(second.clone()).sum().backward()  # no tensor of inference mode


def test_a_graph_that_does_not_fit_is_reported():
    _, report = fit_signatures(GraphPrior("erdos-renyi").adjacency(64), 2, 0.9, steps=100)
    assert report.precision < 0.9


def test_complete_graphs_have_identical_signatures():
    signatures, report = fit_signatures(GraphPrior("complete").adjacency(7), 8)
    assert (signatures == signatures[0]).all()
    assert signatures[0].norm() == pytest.approx(1.0)
    assert report == FitReport(1.0, 1.0, 1.0)


def test_report_by_hand():
    signatures = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    links = torch.zeros(4, 4, dtype=torch.bool)
    links[0, 1] = links[1, 0] = links[0, 2] = links[2, 0] = True
    report = fit_report(signatures, links, truncation=0.5)  # alive: 0-1 and 2-3
    assert report == FitReport(recall=0.5, precision=0.5, density=4 / 12)
    assert str(report) == "recall 0.500, precision 0.500, density 33.3 %"
    nothing = torch.zeros(3, 3, dtype=torch.bool)
    assert fit_report(torch.eye(3), nothing, 0.5) == FitReport(1.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"adjacency": torch.ones(3, 4)}, r"symmetric adjacency \[N, N\], got .* \[3, 4\]"),
        ({"adjacency": torch.ones(3, 3).triu()}, "symmetric adjacency"),
        ({"signature_dim": 1}, "signature_dim must be at least 2"),
        ({"truncation": 1.99}, r"truncation \+ margin < 2, got truncation 1.99 and margin 0.02"),
        ({"truncation": 0.01}, "0 < truncation - margin"),
    ],
)
def test_wrong_input(change, message):
    with pytest.raises(ValueError, match=message):
        fit_signatures(**{"adjacency": torch.ones(3, 3), "signature_dim": 4, **change})
