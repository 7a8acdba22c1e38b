"""Metrics of outputs that are no numbers are NaN, for every metric, and never those of class 0."""

from __future__ import annotations

import math

import pytest
import torch

from lit_ssl import metrics
from lit_ssl.answers import NO_ANSWER, best_answer, count_right, ranked_answers
from lit_ssl.errors import NonFiniteError
from lit_ssl.imagenet_x.metric import FactorAccuracy
from lit_ssl.metrics.low_shot import low_shot_accuracies

NAN, INF = torch.nan, torch.inf
LABELS = torch.tensor([0, 1, 0, 1])
GOOD = torch.tensor([[2.0, 1.0], [1.0, 2.0], [2.0, 1.0], [1.0, 2.0]])


def spoilt(value, place=(2, 1)):
    """All right but for one number; argmax takes NaN and inf for the highest score."""
    scores = GOOD.clone()
    scores[place] = value
    return scores


def test_answers():
    scores = torch.tensor([[1.0, 2.0], [NAN, 1.0], [INF, 1.0], [-INF, 1.0], [-INF, -INF]])
    assert best_answer(scores).tolist() == [1, NO_ANSWER, NO_ANSWER, 1, NO_ANSWER]
    ranked = ranked_answers(scores, 2).tolist()
    assert ranked[0] == [1, 0]
    assert ranked[1] == ranked[2] == [NO_ANSWER, NO_ANSWER]
    assert count_right(GOOD, LABELS) == 4
    assert count_right(spoilt(NAN), LABELS).isnan()
    assert count_right(spoilt(NAN), torch.tensor([0, 1, -1, 0])) == 2  # of an unknown label
    heads = count_right(torch.stack([GOOD, spoilt(NAN)]), LABELS)
    assert heads[0] == 4
    assert heads[1].isnan()


def known(scores):
    metric = metrics.KnownAccuracy(2)
    metric.update(scores, LABELS)
    metric.update(GOOD, LABELS)
    return metric.compute()


def groups(scores):
    metric = metrics.GroupAccuracy(2, weights=[1, 1])
    metric.update(scores, LABELS, LABELS)
    found = metric.compute()
    if not found.average.isnan():
        return found.average
    assert found.per_group[1] == 1  # the other group's numbers are numbers
    assert found.worst_group == 0
    return found.per_group[0] + found.worst + found.adjusted


def attributes(scores):
    metric = metrics.PredictorQuality(1, 2)
    metric.update(scores, torch.zeros_like(LABELS), LABELS)
    found = metric.compute()
    assert found.recall.isnan().all() == found.tv_bound.isnan().all() == found.accuracy.isnan()
    return found.accuracy


def statements(scores):
    metric = metrics.NLVR2Accuracy()
    metric.update(scores, LABELS, LABELS)
    found = metric.compute()
    assert found.accuracy.isnan() == found.consistency.isnan()
    return found.accuracy


def questions(scores):
    metric = metrics.VQAScore()
    metric.update(scores, torch.eye(2)[LABELS])
    return metric.compute()


def factors(scores):
    metric = FactorAccuracy(2)
    metric.update(scores, LABELS, LABELS)
    found = metric.compute()
    if not found["average"].isnan():
        return found["average"]
    with pytest.raises(NonFiniteError, match="logits of 1 images"):
        metric.table()
    return found["accuracy"].sum() + found["worst_factor"]


def retrieval(scores):
    metric = metrics.RetrievalRecall(k=(1,))
    metric.update(scores[:2].clone().masked_fill_(torch.eye(2).bool(), 3.0), *[LABELS[:2]] * 2)
    whole = metrics.RetrievalRecall(k=(1,))
    whole.update(scores[1:3].flip(1), LABELS[1:3].flip(0), LABELS[:2])
    return metric.compute()["tr_r1"] + 0 * whole.compute()["ir_r1"]


@pytest.mark.parametrize(
    "measure", [known, groups, attributes, statements, questions, factors, retrieval]
)
def test_metrics(measure):
    assert measure(GOOD) == 1
    for value in (NAN, INF):
        assert measure(spoilt(value)).isnan()


def probe(bank, queries):
    fitted = metrics.fit_linear_probe(bank, LABELS.repeat(4), 2)
    return (count_right(fitted.scores(queries), LABELS) / 4).item()


def few(bank, queries):
    return low_shot_accuracies(bank, LABELS.repeat(4), queries, LABELS, 2, [torch.arange(8)])[0]


def neighbours(bank, queries):
    return metrics.topk_accuracy(
        metrics.knn_predict(bank, LABELS.repeat(4), queries, 2, k=3), LABELS
    )


def soft_neighbours(bank, queries):
    probs = metrics.soft_nearest_neighbor(queries, bank, LABELS.repeat(4))
    return metrics.topk_accuracy(ranked_answers(probs, 1), LABELS)


@pytest.mark.parametrize("protocol", [probe, few, neighbours, soft_neighbours])
@pytest.mark.parametrize("value", [NAN, INF])
def test_protocols_of_frozen_features(protocol, value):
    bank = torch.cat([GOOD + shift for shift in (0.0, 0.01, 0.02, 0.03)]) - 1.5
    queries = GOOD - 1.5
    assert protocol(bank, queries) == 1
    assert math.isnan(protocol(bank, spoilt(value)))
    assert math.isnan(protocol(torch.full_like(bank, value), queries))


def test_collapse_of_nan():
    assert metrics.used_prototypes(GOOD) == 2
    assert metrics.used_prototypes(spoilt(NAN)).isnan()
