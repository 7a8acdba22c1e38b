"""Losses of circuits against stored values of the published code, and their states."""

from __future__ import annotations

import copy
from itertools import permutations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lit_ssl.losses import DistanceMixture, LinkProbabilityMatching, SignatureRepulsion
from lit_ssl.losses.gaussian_mixture import fit_mixture, log_densities
from lit_ssl.models import GraphPrior, link_targets

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
FAMILIES = {"sbm": "planted-partition", "ba": "barabasi-albert", "roc": "ring-of-cliques"}


@pytest.fixture
def data(golden):
    return golden("nac/regularisers_dense")


def links(signatures, bandwidth=1.0):
    unit = F.normalize(signatures, dim=-1)
    return torch.exp((unit @ unit.T - 1) / bandwidth).clamp(max=1.0)


def signatures_like(n, dim=8, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def targets_of(data, name):
    clustered = name != "ba"
    sizes = {"clusters": int(data["num_clusters"])}
    chances = {key: float(data[key]) for key in ("p_in", "p_out")}
    arguments = sizes | chances if clustered else {"m": int(data["new_edges_per_node"])}
    return link_targets(GraphPrior(FAMILIES[name], arguments=arguments), 24)


@pytest.mark.parametrize("name", FAMILIES)
def test_targets_equal_the_published_ones(data, name):
    torch.testing.assert_close(targets_of(data, name), data[f"{name}_graphon"], **CLOSE)


@pytest.mark.parametrize("divergence", ["mse", "kl"])
@pytest.mark.parametrize("name", FAMILIES)
def test_matching_and_its_gradient_equal_the_published_ones(data, name, divergence):
    loss = LinkProbabilityMatching(targets_of(data, name), divergence)
    signatures = data["signatures"].clone().requires_grad_()
    value = loss(links(signatures))
    torch.testing.assert_close(value, data[f"{name}_{divergence}_loss"], **CLOSE)
    value.backward()
    torch.testing.assert_close(signatures.grad, data[f"{name}_{divergence}_grad"], **CLOSE)
    # nodes of a cluster are alike, so assignments may differ, but not in what they cost
    p, w = data["link_prob"].double(), data[f"{name}_graphon"].double()
    published = ((w - p[data[f"{name}_permutation"]]) ** 2).mean(-1).sum()
    cost = ((w - p[loss.permutation]) ** 2).mean(-1).sum()
    assert float(cost) == pytest.approx(float(published), abs=1e-9)
    assert sorted(loss.permutation.tolist()) == list(range(24))


def test_repulsion_and_its_gradient_equal_the_published_ones(data):
    signatures = data["signatures"].clone().requires_grad_()
    value = SignatureRepulsion(float(data["hinge"]))(signatures)
    torch.testing.assert_close(value, data["hinge_sum_loss"], **CLOSE)
    value.backward()
    torch.testing.assert_close(signatures.grad, data["hinge_sum_grad"], **CLOSE)
    parts = SignatureRepulsion(float(data["hinge"]))(*data["signatures"].split([5, 1, 18]))
    torch.testing.assert_close(parts, value.detach(), **CLOSE)


def test_repulsion_pushes_close_pairs_apart_and_leaves_others_alone():
    near = torch.tensor([[1.0, 0.0], [1.0, 0.3], [-1.0, 0.1]], requires_grad=True)
    SignatureRepulsion(0.4)(near).backward()
    assert (near.grad[2] == 0).all()
    after = near.detach() - 0.1 * near.grad
    assert links(after)[0, 1] < links(near.detach())[0, 1]


def test_losses_are_float32_inside_autocast():
    signatures = signatures_like(12)
    for loss in (SignatureRepulsion(), DistanceMixture()):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = loss(signatures)
        assert inside.dtype == torch.float32
        torch.testing.assert_close(inside, loss(signatures), rtol=0, atol=0)
    matching = LinkProbabilityMatching(torch.full((12, 12), 0.3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = matching(links(signatures))
    assert inside.dtype == torch.float32


def test_no_other_assignment_of_rows_costs_less():
    w, p = torch.rand(2, 5, 5, generator=torch.Generator().manual_seed(0))
    loss = LinkProbabilityMatching(w)
    loss(p)
    costs = {o: float((w - p[list(o)]).square().sum()) for o in permutations(range(5))}
    assert costs[tuple(loss.permutation.tolist())] == pytest.approx(min(costs.values()))
    assert loss.permutation.tolist() != list(range(5))


def test_the_assignment_is_kept_between_refreshes_and_only_training_counts():
    loss = LinkProbabilityMatching(links(signatures_like(9)), refresh=3)
    seen = []
    for step in range(7):
        loss(torch.rand(9, 9, generator=torch.Generator().manual_seed(step)))
        seen.append(loss.permutation.tolist())
        loss.eval()(torch.rand(9, 9, generator=torch.Generator().manual_seed(99)))
        assert loss.permutation.tolist() == seen[-1]
        loss.train()
    assert int(loss.count) == 7
    assert seen[0] == seen[1] == seen[2] != seen[3] == seen[4] == seen[5] != seen[6]


def test_evaluation_before_the_first_step_assigns_for_the_moment():
    w, p = torch.rand(2, 9, 9, generator=torch.Generator().manual_seed(0))
    loss = LinkProbabilityMatching(w).eval()
    value = float(loss(p))
    assert int(loss.count) == 0
    assert loss.permutation.tolist() == list(range(9))
    assert value == float(loss.train()(p)) != float((w - p).square().mean())


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_matching_resumes_between_two_refreshes_exactly(noise):
    def make():
        return LinkProbabilityMatching(links(signatures_like(11)), "kl", noise=noise, refresh=4)

    p = torch.rand(10, 11, 11, generator=torch.Generator().manual_seed(0))
    whole, values = make(), []
    for step in range(10):
        if step == 6:
            state = copy.deepcopy(whole.state_dict())
        values.append(float(whole(p[step])))
    resumed = make()
    resumed(p[9])  # has a state of its own
    resumed.load_state_dict(state)
    torch.manual_seed(123)  # noise does not hang on global numbers
    again = [float(resumed(p[step])) for step in range(6, 10)]
    assert again == values[6:]


def test_layers_share_an_assignment_and_their_losses_add_up():
    signatures = signatures_like(10)
    targets = links(signatures_like(10, seed=1))
    layers = torch.stack([links(signatures, 1.0), links(signatures, 0.4)])
    loss = LinkProbabilityMatching(targets, refresh=100)
    value = loss(layers)
    torch.testing.assert_close(value, loss(layers[0]) + loss(layers[1]), **CLOSE)


def test_floor_stops_the_push_of_terms_below_it():
    targets = torch.full((4, 4), 0.5)
    p = torch.full((4, 4), 0.5)
    p[0, 1] = 0.9
    p.requires_grad_()
    value = LinkProbabilityMatching(targets, floor=0.01)(p)
    value.backward()
    assert value.item() == pytest.approx((15 * 0.01 + 0.16) / 16)
    assert (p.grad != 0).sum() == 1


def test_noise_changes_the_assignment_only():
    p = links(signatures_like(12))
    targets = torch.full((12, 12), 0.4)  # all assignments cost the same: the loss cannot change
    plain = LinkProbabilityMatching(targets)
    noisy = LinkProbabilityMatching(targets, noise=0.5)
    torch.testing.assert_close(plain(p), noisy(p))
    assert plain.permutation.tolist() != noisy.permutation.tolist()


def test_buffers_keep_their_width():
    loss = LinkProbabilityMatching(links(signatures_like(6))).to(torch.bfloat16)
    mixture = DistanceMixture(2).to(torch.float16)
    assert loss.targets.dtype == torch.float32
    assert mixture.means.dtype == torch.float64
    assert loss.permutation.dtype == torch.int64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"targets": torch.zeros(3, 4)}, r"\[N, N\] in \[0, 1\], got shape \[3, 4\]"),
        ({"targets": torch.full((3, 3), 1.5)}, "with values outside"),
        ({"divergence": "js"}, "divergence must be 'mse' or 'kl', not 'js'"),
        ({"refresh": 0}, "refresh >= 1"),
        ({"floor": -1.0}, "floor >= 0"),
    ],
)
def test_wrong_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        LinkProbabilityMatching(**{"targets": torch.zeros(3, 3), **arguments})


def test_wrong_inputs():
    loss = LinkProbabilityMatching(torch.zeros(3, 3))
    with pytest.raises(ValueError, match=r"of 3 mediators must be .* got \[3, 5\]: leave inputs"):
        loss(torch.zeros(3, 5))
    with pytest.raises(ValueError, match="not finite, so the training has diverged"):
        loss(torch.full((3, 3), torch.nan))
    with pytest.raises(ValueError, match=r"hinge .* \(0, 2\], got 0"):
        SignatureRepulsion(0.0)
    with pytest.raises(ValueError, match="num_components >= 1"):
        DistanceMixture(0)


def test_mixture_is_that_of_the_first_signatures_and_stays():
    loss = DistanceMixture(2)
    first, later = signatures_like(40), signatures_like(40, seed=1)
    value = loss(first)
    means = loss.means.clone()
    assert float(loss(later)) != float(value)
    assert torch.equal(loss.means, means)
    other = DistanceMixture(2)
    other.load_state_dict(loss.state_dict())
    assert float(other(later)) == float(loss(later))  # it does not fit again
    assert torch.equal(other.means, means)


def test_one_component_is_the_mean_and_deviation():
    unit = F.normalize(signatures_like(30).double(), dim=-1)
    distances = (1 - unit @ unit.T)[tuple(torch.tril_indices(30, 30, -1))]
    loss = DistanceMixture()
    value = loss(signatures_like(30))
    mean, scale = distances.mean(), distances.std(correction=0)
    torch.testing.assert_close(loss.means[0], mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(loss.scales[0], scale, rtol=1e-6, atol=1e-6)
    density = torch.distributions.Normal(mean, scale).log_prob(distances)
    torch.testing.assert_close(value, -density.mean().float(), **CLOSE)


def test_mixture_finds_its_components_as_scikit_learn_does():
    mixture = pytest.importorskip("sklearn.mixture")
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(0.2, 0.05, 300), rng.normal(1.0, 0.1, 700)])
    weights, means, scales = fit_mixture(torch.from_numpy(points), 2)
    torch.testing.assert_close(means, torch.tensor([0.2, 1.0]).double(), rtol=0, atol=0.02)
    torch.testing.assert_close(weights, torch.tensor([0.3, 0.7]).double(), rtol=0, atol=0.02)
    peer = mixture.GaussianMixture(2, covariance_type="spherical", tol=1e-9, max_iter=500)
    expected = peer.fit(points[:, None]).score(points[:, None])
    ours = log_densities(torch.from_numpy(points), weights, means, scales).logsumexp(-1).mean()
    assert float(ours) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_equal_distances_and_fewer_points_than_components(count):
    weights, means, scales = fit_mixture(torch.full((count,), 0.5, dtype=torch.float64), 4)
    for values in (weights, means, scales):
        assert torch.isfinite(values).all()
    density = log_densities(torch.tensor([0.5]).double(), weights, means, scales)
    assert torch.isfinite(density.logsumexp(-1)).all()
