from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lit_ssl.metrics import ProbeHead, fit_linear_probe

sys.path.insert(0, str(Path(__file__).parents[1] / "optim"))
from inner_lr_sgd import InnerLrSGD

GOLDEN = Path(__file__).parents[1] / "golden/msn/linear_probe.npz"


def test_head_and_optimiser_follow_the_reference_trajectory():
    with np.load(GOLDEN) as arrays:
        golden = {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays}
    head = ProbeHead(10, 5).double()
    head.load_state_dict(
        {name.removeprefix("init/"): golden[name] for name in golden if name.startswith("init/")}
    )
    optimiser = InnerLrSGD(head.parameters(), lr=6.4, momentum=0.9, nesterov=True)
    for step in range(6):
        optimiser.param_groups[0]["lr"] = golden["lr_used"][step].item()
        loss = F.cross_entropy(head(golden["x"][step]), golden["y"][step])
        torch.testing.assert_close(loss, golden["losses"][step], rtol=1e-9, atol=1e-12)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for name, value in head.state_dict().items():
        torch.testing.assert_close(value, golden[f"final/{name}"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("nesterov", [False, True])
def test_inner_lr_sgd_is_torch_sgd_at_a_constant_rate(nesterov):
    target = torch.linspace(-1, 1, 5)
    ours, theirs = torch.nn.Parameter(torch.ones(5)), torch.nn.Parameter(torch.ones(5))
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": nesterov}
    optimisers = InnerLrSGD([ours], **settings), torch.optim.SGD([theirs], **settings)
    for _ in range(5):
        for p, optimiser in zip((ours, theirs), optimisers, strict=True):
            optimiser.zero_grad()
            (p - target).square().sum().backward()
            optimiser.step()
    torch.testing.assert_close(ours, theirs)


def test_inner_lr_sgd_remembers_the_rate_of_each_gradient():
    p = torch.nn.Parameter(torch.zeros(1))
    optimiser = InnerLrSGD([p], lr=1.0, momentum=0.5)
    p.grad = torch.ones(1)
    optimiser.step()
    optimiser.param_groups[0]["lr"] = 0.0
    optimiser.step()
    # torch.optim.SGD would not move in the second step: its rate applies to the whole buffer.
    assert p.item() == -1.5


def test_inner_lr_sgd_skips_parameters_without_gradient_and_runs_the_closure():
    used, unused = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
    optimiser = InnerLrSGD([used, unused], lr=0.5, momentum=0.0)

    def closure():
        optimiser.zero_grad()
        loss = used.square().sum()
        loss.backward()
        return loss.item()

    assert optimiser.step(closure) == 1.0
    assert (used.item(), unused.item()) == (0.0, 1.0)


@pytest.mark.parametrize(
    "bad", [{"lr": -1.0}, {"momentum": 1.0}, {"weight_decay": -0.1}, {"nesterov": True}]
)
def test_inner_lr_sgd_rejects_bad_settings(bad):
    with pytest.raises(ValueError, match="InnerLrSGD"):
        InnerLrSGD([torch.nn.Parameter(torch.ones(1))], **{"lr": 0.1, "momentum": 0.0, **bad})


def blobs(rows, classes, width, noise, seed):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    labels = torch.randint(0, classes, (rows,), generator=generator)
    return centres[labels] + noise * torch.randn(rows, width, generator=generator), labels


def test_probe_separates_blobs_whatever_the_scale_and_offset():
    features, labels = blobs(300, 4, 8, 0.3, seed=0)
    queries, answers = blobs(200, 4, 8, 0.3, seed=1)
    probe = fit_linear_probe(features, labels, 4)
    accuracy = (probe.predict(queries) == answers).float().mean().item()
    assert accuracy > 0.97
    assert probe.held_out_accuracy > 0.9
    stretched = fit_linear_probe(features * 50 + 7, labels, 4)
    assert torch.equal(stretched.predict(queries * 50 + 7), probe.predict(queries))


def test_probe_picks_a_strong_penalty_when_features_are_mostly_noise():
    features, labels = blobs(120, 3, 4, 0.8, seed=0)
    noise = torch.randn(120, 200, generator=torch.Generator().manual_seed(2))
    noisy = fit_linear_probe(torch.cat([features, noise], dim=1), labels, 3)
    assert noisy.penalty >= 1e-2


def test_probe_does_not_depend_on_row_order_of_queries_or_global_rng():
    features, labels = blobs(60, 3, 5, 0.5, seed=0)
    torch.manual_seed(0)
    first = fit_linear_probe(features, labels, 3)
    torch.manual_seed(1)
    assert torch.equal(first.weights, fit_linear_probe(features, labels, 3).weights)


def test_probe_matches_scikit_learn_at_one_penalty():
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels = blobs(200, 3, 6, 1.0, seed=0)
    probe = fit_linear_probe(features, labels, 3, penalties=[1e-2])
    rows = F.pad((features - features.mean(0)) / features.std(0, correction=0), (0, 1), value=1.0)
    reference = linear_model.LogisticRegression(C=1 / (1e-2 * 200), fit_intercept=False, tol=1e-10)
    reference.fit(rows.numpy(), labels.numpy())
    expected = torch.from_numpy(reference.coef_).float()
    torch.testing.assert_close(probe.weights, expected, rtol=0, atol=5e-3)


def test_constant_features_and_a_tiny_bank_are_survived():
    probe = fit_linear_probe(torch.ones(2, 3), torch.tensor([0, 1]), 2)
    assert probe.weights.isfinite().all()
    assert probe.held_out_accuracy != probe.held_out_accuracy  # nothing was held out


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="at least one penalty"):
        fit_linear_probe(torch.ones(2, 3), torch.tensor([0, 1]), 2, penalties=[])
    with pytest.raises(ValueError, match="embed_dim and num_classes must be >= 1"):
        ProbeHead(0, 3)


def test_head_keeps_float32_inside_autocast():
    head = ProbeHead(6, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert head(torch.randn(2, 6).bfloat16()).dtype == torch.float32
