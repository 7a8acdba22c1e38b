from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lit_ssl.metrics import (
    draw_labelled,
    fit_low_shot,
    fit_softmax_regression,
    low_shot_accuracies,
    predict_low_shot,
    preprocess_rows,
    softmax_regression,
)

GOLDEN = Path(__file__).parents[1] / "golden/msn/lowshot_logreg.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as arrays:
        return {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays}


def test_preprocessing_equals_the_reference(golden):
    for name in ("", "test_"):
        rows = preprocess_rows(golden[f"{name}features"].double())
        torch.testing.assert_close(rows, golden[f"{name}preprocessed"], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(preprocess_rows(rows), rows, rtol=0, atol=1e-12)


def objective(weights, golden, l2):
    rows = golden["preprocessed"]
    loss = torch.nn.functional.cross_entropy(rows @ weights.T, golden["labels"])
    return loss + l2 / len(rows) / 2 * weights.square().sum()


@pytest.mark.parametrize("l2", [0.0025, 0.075, 1.0])
def test_coefficients_and_accuracy_equal_the_reference(golden, l2):
    weights = fit_low_shot(golden["features"], golden["labels"], 8, l2)
    # The reference solver stopped at gradients of 1e-8; the optimum has a flat direction at 0.0025.
    torch.testing.assert_close(weights, golden[f"coef_lambd{l2}"], rtol=0, atol=2e-4)
    assert objective(weights, golden, l2) <= objective(golden[f"coef_lambd{l2}"], golden, l2)
    predicted = predict_low_shot(weights, golden["test_features"])
    accuracy = (predicted == golden["test_labels"]).double().mean().item()
    assert accuracy == golden[f"test_acc_lambd{l2}"].item()


@pytest.mark.parametrize("l2", [0.0025, 0.075, 1.0])
def test_gradient_vanishes_at_the_solution(golden, l2):
    weights = fit_low_shot(golden["features"], golden["labels"], 8, l2).requires_grad_()
    (gradient,) = torch.autograd.grad(objective(weights, golden, l2), weights)
    assert gradient.abs().max() < 1e-9


@pytest.mark.parametrize(("rows", "width"), [(12, 40), (60, 5)])
def test_equals_scikit_learn_wide_and_tall(rows, width):
    linear_model = pytest.importorskip("sklearn.linear_model")
    generator = torch.Generator().manual_seed(rows)
    features = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    labels = torch.arange(rows) % 4
    weights = fit_low_shot(features, labels, 4, l2=0.1)
    reference = linear_model.LogisticRegression(
        C=10.0, fit_intercept=False, tol=1e-12, max_iter=10_000
    ).fit(preprocess_rows(features).numpy(), labels.numpy())
    torch.testing.assert_close(weights, torch.from_numpy(reference.coef_), rtol=1e-5, atol=1e-5)


def test_solving_in_the_span_of_few_rows_is_exact():
    generator = torch.Generator().manual_seed(0)
    narrow = torch.randn(9, 6, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(30, 30, generator=generator, dtype=torch.float64)).Q[:6]
    labels = torch.arange(9) % 3
    direct = fit_softmax_regression(narrow, labels, 3, 1e-3)
    wide = fit_softmax_regression(narrow @ rotation, labels, 3, 1e-3)  # 9 rows of rank 6 in 30-D
    torch.testing.assert_close(wide, direct @ rotation, rtol=1e-7, atol=1e-7)


def test_blocks_of_rows_do_not_change_the_answer(golden, monkeypatch):
    whole = fit_low_shot(golden["features"], golden["labels"], 8)
    monkeypatch.setattr(softmax_regression, "_FEWEST_ROWS", 7)
    monkeypatch.setattr(softmax_regression, "_CACHED_BYTES", 1)
    blocks = fit_low_shot(golden["features"], golden["labels"], 8)
    torch.testing.assert_close(blocks, whole, rtol=0, atol=1e-7)  # of weights up to 10


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_optimum_is_one_of_float64_whatever_float32_finds(scale):
    generator = torch.Generator().manual_seed(0)
    features = scale * torch.randn(67, 5, generator=generator, dtype=torch.float64)
    labels = torch.arange(67) % 3
    penalty = 1e-3 * scale**2  # so that all scales are one problem
    weights = fit_softmax_regression(features, labels, 3, penalty).requires_grad_()
    loss = torch.nn.functional.cross_entropy(features @ weights.T, labels)
    loss = loss + penalty / 2 * weights.square().sum()
    (gradient,) = torch.autograd.grad(loss, weights)
    assert gradient.abs().max() <= 1e-10 * max(scale, 1)


@pytest.mark.parametrize(
    ("problem", "penalty"),
    [("large", 1e-4), ("far from the origin", 1e-4), ("unequal", 1e-5), ("separable", 1e-12)],
)
def test_where_float32_stops_short_float64_goes_on(problem, penalty):
    generator = torch.Generator().manual_seed(0)
    plain = torch.randn(300, 10, generator=generator, dtype=torch.float64)
    unequal = plain * torch.logspace(-4, 4, 10, dtype=torch.float64)
    others = {"large": 1e3 * plain, "far from the origin": plain + 1e3, "unequal": unequal}
    features = others.get(problem, plain)
    labels = torch.randint(0, 5, (300,), generator=generator)
    if problem == "separable":
        labels = plain[:, :5].argmax(dim=1)
    weights = fit_softmax_regression(features, labels, 5, penalty).requires_grad_()
    loss = torch.nn.functional.cross_entropy(features @ weights.T, labels)
    loss = loss + penalty / 2 * weights.square().sum()
    (gradient,) = torch.autograd.grad(loss, weights)
    assert gradient.abs().max() <= 1e-9


def test_a_class_without_examples_is_never_predicted():
    features = torch.tensor([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
    weights = fit_low_shot(features, torch.tensor([0, 2]), num_classes=3)
    assert predict_low_shot(weights, features).tolist() == [0, 2]


def test_constant_rows_give_finite_weights():
    weights = fit_low_shot(torch.ones(4, 5), torch.tensor([0, 1, 0, 1]), 2)
    assert torch.equal(weights, torch.zeros_like(weights))


def test_draws_are_stratified_nested_and_depend_on_the_seed_only():
    labels = torch.tensor([-1, 0, 1, 2] * 10)
    state = torch.get_rng_state()
    five = draw_labelled(labels, 5, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert labels[five].bincount().tolist() == [5, 5, 5]
    assert five.unique().tolist() == five.tolist()  # rising, no duplicate
    one = draw_labelled(labels, 1, seed=3)
    assert set(one.tolist()) < set(draw_labelled(labels, 2, seed=3).tolist()) < set(five.tolist())
    assert torch.equal(five, draw_labelled(labels, 5, seed=3))
    assert not torch.equal(five, draw_labelled(labels, 5, seed=4))


def test_every_example_of_a_class_can_be_drawn():
    labels = torch.zeros(6).long()
    drawn = {draw_labelled(labels, 1, seed).item() for seed in range(100)}
    assert drawn == set(range(6))


def test_short_classes_are_named_or_taken_whole():
    labels = torch.tensor([0, 0, 0, 1, 2, 2])
    with pytest.raises(ValueError, match=r"cannot draw 3 per class: class 1 has 1, class 2 has 2"):
        draw_labelled(labels, 3, seed=0)
    drawn = draw_labelled(labels, 3, seed=0, allow_fewer=True)
    assert labels[drawn].tolist() == [0, 0, 0, 1, 2, 2]
    with pytest.raises(ValueError, match="no labelled row"):
        draw_labelled(torch.full((3,), -1), 1, seed=0)
    with pytest.raises(ValueError, match="per_class must be >= 1"):
        draw_labelled(labels, 0, seed=0)


def test_accuracy_per_draw():
    bank = torch.eye(4).repeat(3, 1)
    labels = torch.arange(4).repeat(3)
    supports = [draw_labelled(labels, 1, seed) for seed in range(3)]
    wrong = torch.tensor([0, 1, 2, 0])
    assert (
        low_shot_accuracies(bank, labels, torch.eye(4), torch.arange(4), 4, supports) == [1.0] * 3
    )
    assert low_shot_accuracies(bank, labels, torch.eye(4), wrong, 4, supports) == [0.75] * 3


@pytest.mark.parametrize(
    ("labels", "num_classes", "penalty", "message"),
    [
        ([0, 1, 2], 2, 1.0, "labels run from 0 to 2 with num_classes=2"),
        ([0, -1, 1], 2, 1.0, "drop rows without a label"),
        ([0, 1], 2, 1.0, "one label per row"),
        ([0, 1, 1], 2, 0.0, "penalty must be > 0"),
    ],
)
def test_bad_problems_are_named(labels, num_classes, penalty, message):
    with pytest.raises(ValueError, match=message):
        fit_softmax_regression(torch.randn(3, 2), torch.tensor(labels), num_classes, penalty)
