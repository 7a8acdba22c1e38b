"""Accuracy, error ratio and their intervals, against brute force and known values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lit_ssl.imagenet_x.annotations import read_annotations
from lit_ssl.imagenet_x.factor_table import calibration_error
from lit_ssl.imagenet_x.scores import human_predictions
from lit_ssl.metrics import (
    FactorScores,
    compare_factors,
    factor_table,
    holm,
    wilson_interval,
)

# ------------------------------------------------------- the definitions, image by image


def reference(made_up, predictions, kind, keep, error_type, real_empty):
    """All numbers from plain loops over images, from what the files were made of."""
    images = []
    for i, number in enumerate(made_up.annotated):
        if not keep and number in made_up.prototypes:
            continue
        real = made_up.real[number - 1]
        if error_type == "real" and real_empty == "drop" and not real:
            continue
        label, guess = made_up.labels[number - 1], predictions.classes[number]
        if error_type == "class":
            right = guess == label
        elif error_type == "metaclass":
            right = made_up.groups[guess] == made_up.groups[label]
        else:
            right = guess in real
        if kind == "multi":
            factors = np.flatnonzero(made_up.multi[i]).tolist()
        else:
            factors = [made_up.top[i]] if made_up.top[i] >= 0 else []
        p = predictions.probability[number]
        images.append((factors, bool(right), label, made_up.groups[label], p))
    return images


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else math.nan


def per_factor(images):
    return [mean(right for factors, right, *_ in images if f in factors) for f in range(16)]


@pytest.mark.parametrize("real_empty", ["drop", "wrong"])
@pytest.mark.parametrize("error_type", ["class", "metaclass", "real"])
@pytest.mark.parametrize(("kind", "keep"), [("top", False), ("multi", False), ("top", True)])
def test_same_as_loops_over_the_images(
    folder, made_up, predict, kind, keep, error_type, real_empty
):
    predictions = predict()
    annotations = read_annotations(str(folder), kind, keep)
    scores = FactorScores(predictions, annotations, error_type, real_empty)
    images = reference(made_up, predictions, kind, keep, error_type, real_empty)
    table = scores.table(draws=100)
    average = mean(right for _, right, *_ in images)
    assert table.images == len(images)
    assert table.average == pytest.approx(average, abs=1e-15)
    expected = per_factor(images)
    np.testing.assert_allclose(table.accuracy, expected, atol=1e-15)
    ratios = [(1 - accuracy) / (1 - average) for accuracy in expected]
    np.testing.assert_allclose(table.error_ratio, ratios, atol=1e-12)
    assert table.worst_accuracy == pytest.approx(np.nanmin(expected), abs=1e-15)
    assert table.factors[int(np.nanargmin(expected))] == table.worst_factor
    groups = scores.metaclasses()
    for name, accuracy, n in zip(groups.names, groups.accuracy, groups.count, strict=True):
        inside = [image for image in images if image[3] == name]
        assert n == len(inside)
        np.testing.assert_allclose(accuracy, per_factor(inside), atol=1e-15)
    by_class = {}
    for _, right, label, *_ in images:
        by_class.setdefault(label, []).append(right)
    worst = sorted(sorted(by_class), key=lambda label: mean(by_class[label]))[:5]
    pooled = [right for label in worst for right in by_class[label]]
    assert scores.worst_classes(5) == pytest.approx(mean(pooled), abs=1e-15)


def test_calibration(folder, made_up, predict):
    predictions = predict()
    scores = FactorScores(predictions, read_annotations(str(folder)))
    images = reference(made_up, predictions, "top", False, "class", "drop")
    bins = {}
    for _, right, *_, p in images:
        bins.setdefault(max(math.ceil(p * 15) - 1, 0), []).append((right, p))
    expected = sum(abs(sum(r - p for r, p in pairs)) for pairs in bins.values()) / len(images)
    assert scores.calibration()[0] == pytest.approx(expected, abs=1e-12)
    # a probability on an edge belongs to the lower bin
    assert calibration_error(np.array([True, False]), np.array([1.0, 0.0])) == 0
    edge = np.linspace(0, 1, 16)[3]
    values = calibration_error(np.array([True, False]), np.array([edge, edge - 0.01]))
    assert values == pytest.approx(abs(1 - 2 * edge + 0.01) / 2)
    none = predictions._replace(probability=np.full(61, np.nan))
    assert math.isnan(FactorScores(none, scores.annotations).calibration()[0])


def test_labels_as_predictions(folder, made_up):
    annotations = read_annotations(str(folder))
    human = human_predictions(annotations)
    assert FactorScores(human, annotations).table(draws=100).average == 1
    share = FactorScores(human, annotations, "real", "wrong").table(draws=100).average
    kept = [n for n in made_up.annotated if n not in made_up.prototypes]
    expected = mean(made_up.labels[n - 1] in made_up.real[n - 1] for n in kept)
    assert share == pytest.approx(expected)


# ------------------------------------------------------- properties


def draw_correct(annotations, errors, seed=0):
    """Outcomes that are wrong with a probability per factor."""
    rng = np.random.default_rng([seed, 1])  # not that of the annotations
    return rng.random(len(annotations.members)) >= annotations.members @ np.array(errors)


def test_error_ratio_of_a_model_that_is_known(random_annotations):
    """Wrong with probability e_f: the error ratio tends to e_f / sum p e (closed form)."""
    prevalence, errors = np.array([0.5, 0.3, 0.15, 0.05]), np.array([0.1, 0.2, 0.4, 0.6])
    annotations = random_annotations(40_000, tuple(prevalence))
    table = factor_table(draw_correct(annotations, errors), annotations.members)
    average = prevalence @ errors
    sigma = np.sqrt(errors * (1 - errors) / (40_000 * prevalence)) / average + 0.02
    assert np.all(np.abs(table.error_ratio - errors / average) < 4 * sigma)
    shares = table.count / table.images
    assert shares @ table.error_ratio == pytest.approx(1, abs=1e-12)


def test_intervals_cover_as_often_as_they_say(random_annotations):
    """95% intervals of 200 simulated data sets: between 90% and 99% hold the truth."""
    prevalence, errors = np.array([0.5, 0.3, 0.15, 0.05]), np.array([0.1, 0.2, 0.4, 0.6])
    truth = errors / (prevalence @ errors)
    inside, inside_accuracy = np.zeros(4), np.zeros(4)
    for seed in range(200):
        annotations = random_annotations(1000, tuple(prevalence), seed)
        correct = draw_correct(annotations, errors, seed)
        table = factor_table(correct, annotations.members, draws=400, seed=seed)
        inside += (table.error_ratio_low <= truth) & (truth <= table.error_ratio_high)
        low, high = table.accuracy_low, table.accuracy_high
        inside_accuracy += (low <= 1 - errors) & (1 - errors <= high)
    assert np.all((inside > 180) & (inside < 199)), inside
    assert np.all((inside_accuracy > 180) & (inside_accuracy < 199)), inside_accuracy


def test_bootstrap_is_that_of_resampled_images(random_annotations):
    """Drawing tables of counts equals drawing images, also with several factors an image."""
    annotations = random_annotations(300, (0.5, 0.3, 0.15, 0.1), multi=True)
    members = annotations.members
    a = draw_correct(annotations, [0.1, 0.2, 0.3, 0.2], 1)
    b = draw_correct(annotations, [0.3, 0.1, 0.1, 0.2], 2)
    rng = np.random.default_rng(5)
    rows = rng.integers(0, 300, (4000, 300))

    def ratios(correct):
        drawn, inside = ~correct[rows], members[rows]
        errors = (drawn[:, :, None] & inside).sum(1) / inside.sum(1)
        return errors / drawn.mean(1, keepdims=True)

    table = factor_table(a, members, draws=20_000)
    low, high = np.quantile(ratios(a), [0.025, 0.975], axis=0)
    spread = high - low
    assert np.all(np.abs(table.error_ratio_low - low) < 0.06 * spread)
    assert np.all(np.abs(table.error_ratio_high - high) < 0.06 * spread)
    change = compare_factors(a, b, members, draws=20_000)
    low, high = np.quantile(ratios(b) - ratios(a), [0.025, 0.975], axis=0)
    assert np.all(np.abs(change.error_ratio_low - low) < 0.06 * (high - low))
    assert np.all(np.abs(change.error_ratio_high - high) < 0.06 * (high - low))
    assert change.average == pytest.approx(b.mean() - a.mean())


def test_factors_that_mean_nothing_have_a_ratio_of_one(random_annotations):
    annotations = random_annotations(8000)
    correct = np.random.default_rng(3).random(8000) < 0.7
    table = factor_table(correct, annotations.members, level=0.999)
    assert np.all((table.error_ratio_low < 1) & (table.error_ratio_high > 1))


def test_perfect_and_hopeless_models(random_annotations):
    members = random_annotations(100).members
    perfect = factor_table(np.ones(100, bool), members)
    assert perfect.average == 1
    assert np.all(perfect.accuracy == 1)
    assert np.isnan(perfect.error_ratio).all()
    assert np.isnan(perfect.error_ratio_high).all()
    hopeless = factor_table(np.zeros(100, bool), members)
    assert hopeless.average == 0  # and not NaN
    assert np.all(hopeless.accuracy == 0)
    np.testing.assert_allclose(hopeless.error_ratio, 1)
    assert np.all(hopeless.error_ratio_low < 1)


def test_a_factor_without_errors_keeps_an_upper_limit():
    members = np.zeros((1000, 2), bool)
    members[:20, 0] = True
    members[20:, 1] = True
    correct = np.arange(1000) < 800
    table = factor_table(correct, members)
    assert table.error_ratio[0] == 0
    assert table.error_ratio_low[0] == 0
    # Wilson: 0 errors of 20 leave up to 16%, of an average of 20%
    assert table.error_ratio_high[0] == pytest.approx(0.1611 / 0.2, abs=1e-3)


def test_empty_factors_and_no_images(random_annotations):
    members = random_annotations(50).members.copy()
    members[:, 2] = False
    table = factor_table(np.arange(50) % 2 == 0, members)
    assert np.isnan([table.accuracy[2], table.error_ratio[2], table.error_ratio_low[2]]).all()
    assert not np.isnan(table.accuracy[[0, 1]]).any()
    none = factor_table(np.zeros(0, bool), np.zeros((0, 3), bool))
    assert none.worst_factor is None
    assert math.isnan(none.average)
    assert math.isnan(none.worst_accuracy)


def test_wilson_interval_of_known_values():
    low, high = wilson_interval(np.array([8, 0, 10, 0]), np.array([10, 10, 10, 0]))
    np.testing.assert_allclose(low[:3], [0.4902, 0, 0.7225], atol=1e-4)
    np.testing.assert_allclose(high[:3], [0.9433, 0.2775, 1], atol=1e-4)
    assert np.isnan([low[3], high[3]]).all()


def test_holm_of_known_values():
    p = holm(np.array([0.01, 0.04, np.nan, 0.03, 0.005]))
    np.testing.assert_allclose(p, [0.03, 0.06, np.nan, 0.06, 0.02])
    assert holm(np.array([0.6, 0.9])).tolist() == [1.0, 1.0]


# ------------------------------------------------------- two models


def test_a_model_does_not_differ_from_itself(random_annotations):
    annotations = random_annotations(1000)
    correct = draw_correct(annotations, [0.1, 0.2, 0.4, 0.6])
    change = compare_factors(correct, correct, annotations.members)
    assert np.all(change.accuracy == 0)
    assert np.all(change.accuracy_p == 1)
    assert np.all(change.error_ratio_p == 1)
    assert change.average_interval == (0, 0)


def test_a_difference_in_one_factor_is_found_there(random_annotations):
    """Accuracy moves in one factor only; error ratios move in all of them."""
    annotations = random_annotations(4000)
    a = draw_correct(annotations, [0.3, 0.3, 0.3, 0.3])
    b = a | (annotations.members[:, 0] & (np.random.default_rng(4).random(4000) < 0.5))
    change = compare_factors(a, b, annotations.members)
    assert change.accuracy[0] == pytest.approx(0.15, abs=0.03)
    assert np.all(change.accuracy[1:] == 0)
    assert change.accuracy_p_holm[0] < 0.01
    assert np.all(change.accuracy_p_holm[1:] == 1)
    assert change.error_ratio[0] < 0 < change.error_ratio[1:].min()
    assert change.error_ratio_p_holm.max() < 0.01
    back = compare_factors(b, a, annotations.members)
    np.testing.assert_allclose(back.accuracy, -change.accuracy)
    np.testing.assert_allclose(back.error_ratio, -change.error_ratio, atol=1e-12)


def test_p_values_that_the_draws_cannot_resolve_are_upper_bounds():
    rows = np.arange(400)
    members = np.stack([rows < 100, (rows >= 100) & (rows < 200), rows >= 200, rows < 0], axis=1)
    a = np.zeros(400, dtype=bool)
    b = (rows < 80) | ((rows >= 100) & (rows < 103))
    change = compare_factors(a, b, members, draws=199)
    assert change.accuracy_p[0] == change.average_p == 2 / 200
    assert change.average_p_bound
    assert change.accuracy_p_bound[[0, 3]].tolist() == [True, False]
    assert not change.accuracy_p_bound[np.flatnonzero(change.accuracy_p > 0.02)].any()


def test_annotators_have_no_calibration(folder):
    annotations = read_annotations(str(folder))
    error, each = FactorScores(human_predictions(annotations), annotations, "real").calibration()
    assert np.isnan(error)
    assert np.isnan(each).all()


def test_p_values_are_honest(random_annotations):
    """Of two models without a difference, about one in twenty tests is below 5%."""
    below = 0
    for seed in range(150):
        annotations = random_annotations(600, (0.5, 0.5), seed)
        a = draw_correct(annotations, [0.3, 0.3], 2 * seed)
        b = draw_correct(annotations, [0.3, 0.3], 2 * seed + 1)
        change = compare_factors(a, b, annotations.members, draws=400, seed=seed)
        below += (change.accuracy_p < 0.05).sum()
    assert 4 <= below <= 29  # of 300; 15 expected, four standard deviations


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([True], np.ones((2, 1))), r"correct \[N\] and members \[N, F\]"),
        (([True], np.ones((1, 2)), ["a"]), "1 names for 2 factors"),
        (([True], np.ones((1, 0))), "0 names for 0 factors"),
        (([True], np.ones((1, 1)), None, 1.0), r"level must lie in \(0, 1\)"),
        (([True], np.ones((1, 1)), None, 0.9, 10), "draws be >= 100"),
    ],
)
def test_wrong_values(arguments, message):
    with pytest.raises(ValueError, match=message):
        factor_table(*arguments)


def test_models_are_compared_on_the_images_of_both(folder, predict, made_up):
    annotations = read_annotations(str(folder))
    a, b = predict(0, "a"), predict(1, "b")
    b.classes[made_up.annotated[0]] = -1
    change = FactorScores(a, annotations).compare(FactorScores(b, annotations, partial=True))
    assert change.count.sum() == 48  # 50, one of them without a factor, one without a prediction
    with pytest.raises(ValueError, match="error_type must be class, metaclass or real"):
        FactorScores(a, annotations, "top5")
