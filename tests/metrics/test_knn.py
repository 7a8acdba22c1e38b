from __future__ import annotations

import math

import pytest
import torch

from lit_ssl.metrics import knn, knn_predict, topk_accuracy


def reference_votes(bank, labels, query, num_classes, k, temperature):
    similarity = [torch.dot(b / b.norm(), query / query.norm()).item() for b in bank]
    nearest = sorted(range(len(bank)), key=lambda i: -similarity[i])[:k]
    votes = [0.0] * num_classes
    for i in nearest:
        votes[labels[i]] += math.exp(similarity[i] / temperature)
    return votes


def test_votes_follow_the_weighted_rule_row_by_row():
    generator = torch.Generator().manual_seed(0)
    bank = torch.randn(50, 6, generator=generator)
    labels = torch.randint(0, 4, (50,), generator=generator)
    queries = torch.randn(20, 6, generator=generator)
    ranked = knn_predict(bank, labels, queries, 4, k=15, temperature=0.2, top=4)
    for query, row in zip(queries, ranked, strict=True):
        votes = reference_votes(bank, labels.tolist(), query, 4, 15, 0.2)
        voted = [c for c in sorted(range(4), key=lambda c: -votes[c]) if votes[c] > 0]
        assert row.tolist() == voted + [-1] * (4 - len(voted))


def test_near_neighbour_outweighs_a_far_majority_only_at_low_temperature():
    bank = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.6, 0.8]])
    labels = torch.tensor([0, 1, 1])
    query = torch.tensor([[1.0, 0.0]])
    assert knn_predict(bank, labels, query, 2, k=3, temperature=0.07).item() == 0
    assert knn_predict(bank, labels, query, 2, k=3, temperature=10.0).item() == 1


def test_chunks_do_not_change_the_answer(monkeypatch):
    generator = torch.Generator().manual_seed(1)
    bank = torch.randn(97, 5, generator=generator)
    labels = torch.randint(0, 7, (97,), generator=generator)
    queries = torch.randn(31, 5, generator=generator)
    whole = knn_predict(bank, labels, queries, 7, k=20, top=5)
    monkeypatch.setattr(knn, "_QUERY_CHUNK", 4)
    monkeypatch.setattr(knn, "_BANK_CHUNK", 10)
    assert torch.equal(knn_predict(bank, labels, queries, 7, k=20, top=5), whole)


def test_scale_of_features_is_irrelevant_and_k_is_capped_at_the_bank():
    bank = torch.tensor([[100.0, 0.0], [0.0, 0.01]])
    labels = torch.tensor([2, 0])
    queries = torch.tensor([[1e-3, 0.0], [0.0, 50.0]])
    assert knn_predict(bank, labels, queries, 3, k=200)[:, 0].tolist() == [2, 0]


def test_tiny_temperature_and_half_precision_stay_finite():
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.bfloat16)
    predicted = knn_predict(bank, torch.tensor([0, 1]), bank, 2, k=2, temperature=1e-3)
    assert predicted[:, 0].tolist() == [0, 1]


def test_topk_accuracy_counts_the_first_k():
    ranked = torch.tensor([[0, 1], [1, 0], [-1, -1]])
    labels = torch.tensor([0, 0, 1])
    assert topk_accuracy(ranked, labels, 1) == pytest.approx(1 / 3)
    assert topk_accuracy(ranked, labels, 2) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match=r"ranked \[Q, >= 3\]"):
        topk_accuracy(ranked, labels, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bank": torch.zeros(0, 3), "bank_labels": torch.zeros(0).long()}, "at least one row"),
        ({"queries": torch.zeros(2, 4)}, "one width D"),
        ({"bank_labels": torch.tensor([0, -1])}, "from -1 to 0, expected 0 to 1"),
        ({"bank_labels": torch.tensor([0, 5])}, "from 0 to 5, expected 0 to 1"),
        ({"k": 0}, "k >= 1"),
        ({"temperature": 0.0}, "temperature > 0"),
        ({"top": 3}, "top <= num_classes"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {
        "bank": torch.randn(2, 3),
        "bank_labels": torch.tensor([0, 1]),
        "queries": torch.randn(2, 3),
        "num_classes": 2,
    }
    with pytest.raises(ValueError, match=message):
        knn_predict(**{**arguments, **change})
