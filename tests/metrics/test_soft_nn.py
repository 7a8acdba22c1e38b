"""Soft nearest neighbours against the reference code and in chunks."""

from __future__ import annotations

import pytest
import torch

import lit_ssl.metrics.soft_nn as module
from lit_ssl.metrics import soft_nearest_neighbor, topk_accuracy


def test_equals_the_reference(golden):
    data = golden("paws/snn_eval")
    probs = soft_nearest_neighbor(data["query_emb"], data["support_emb"], data["support_label"])
    torch.testing.assert_close(probs, data["probs"], rtol=1e-6, atol=1e-6)
    ranked = probs.argsort(dim=1, descending=True)
    for k in (1, 5):
        accuracy = topk_accuracy(ranked, data["query_label"], k)
        assert accuracy == pytest.approx(float(data[f"top{k}"]))


def test_chunks_change_nothing(golden, monkeypatch):
    data = golden("paws/snn_eval")
    inputs = data["query_emb"], data["support_emb"], data["support_label"], 0.01
    whole = soft_nearest_neighbor(*inputs)
    monkeypatch.setattr(module, "_QUERY_CHUNK", 7)
    monkeypatch.setattr(module, "_SUPPORT_CHUNK", 13)
    torch.testing.assert_close(soft_nearest_neighbor(*inputs), whole)


def test_tiny_temperature_is_the_nearest_neighbour():
    query, support = torch.randn(20, 6), torch.randn(30, 6)
    labels = torch.arange(30) % 4
    probs = soft_nearest_neighbor(query, support, labels, 1e-4, num_classes=6)
    nearest = torch.nn.functional.cosine_similarity(query[:, None], support, dim=2).argmax(1)
    assert torch.equal(probs.argmax(1), labels[nearest])
    torch.testing.assert_close(probs.sum(1), torch.ones(20))
    assert probs[:, 4:].sum() == 0


def test_wrong_arguments_are_named():
    query, support, labels = torch.zeros(2, 3), torch.zeros(4, 3), torch.tensor([0, 1, 1, -1])
    with pytest.raises(ValueError, match="run from -1 to 1, expected 0 to 1"):
        soft_nearest_neighbor(query, support, labels)
    with pytest.raises(ValueError, match="of one width D"):
        soft_nearest_neighbor(query, torch.zeros(4, 5), labels)
    with pytest.raises(ValueError, match="one label per support"):
        soft_nearest_neighbor(query, support, labels[:2])
    with pytest.raises(ValueError, match="temperature must be positive"):
        soft_nearest_neighbor(query, support, labels.abs(), 0.0)
