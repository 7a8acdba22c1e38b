"""Heads: initial weights, tied words, ranking that starts from matching."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lit_ssl.errors import InputError
from lit_ssl.models import MatchingHead, MLMHead, RetrievalHead, VLClassifierHead


@pytest.mark.parametrize(
    "head", [MLMHead(96, 300), MatchingHead(96), RetrievalHead(96), VLClassifierHead(96, 96, 40)]
)
def test_new_layers_start_small(head):
    for layer in head.modules():
        if isinstance(layer, nn.Linear):
            assert 0.015 < layer.weight.std() < 0.025
            assert layer.bias.abs().max() == 0


def test_words_are_tied_only_where_asked_for():
    words = nn.Embedding(30, 8)
    tied, own = MLMHead(8, 30, tied_to=words), MLMHead(8, 30)
    assert tied.decoder.weight is words.weight
    tied(torch.randn(4, 8)).sum().backward()
    assert words.weight.grad is not None
    assert len(list(own.parameters())) == len(list(tied.parameters()))
    with pytest.raises(InputError, match=r"word embeddings \[30, 9\], got \[30, 8\]"):
        MLMHead(9, 30, tied_to=words)


def test_vilt_has_the_published_number_of_parameters():
    """135.66 million with a decoder of its own, as counted in the reference code."""
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        model = transformers.ViltModel(transformers.ViltConfig())
        heads = nn.ModuleList([MLMHead(768, 30522), MatchingHead(768)])
    count = sum(p.numel() for part in (model, heads) for p in part.parameters())
    assert round(count / 1e6, 2) == 135.66


def test_ranking_starts_from_the_row_of_a_match():
    matching, ranking = MatchingHead(5), RetrievalHead(5)
    matching.bias.data = torch.tensor([0.5, -1.5])
    ranking.start_from_(matching.weight, matching.bias)
    x = torch.randn(3, 5)
    torch.testing.assert_close(ranking(x)[:, 0], matching(x)[:, 1])
    with pytest.raises(InputError, match=r"has \[2, 5\], not \[2, 6\]"):
        RetrievalHead(6).start_from_(matching.weight, matching.bias)
