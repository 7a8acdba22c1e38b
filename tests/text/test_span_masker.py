"""Spans against SpanBERT's rule, written down a second time token by token."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from lit_ssl.text import SpanMasker
from lit_ssl.text.masking.corruption import masked_runs
from lit_ssl.text.masking.span_masker import span_lengths


def law(p=0.2, longest=10):
    weights = np.array([(1 - p) ** (length - 1) for length in range(1, longest + 1)])
    return weights / weights.sum()


def test_lengths_follow_the_truncated_geometric_law():
    generator = torch.Generator().manual_seed(0)
    for p, longest in ((0.2, 10), (0.5, 3)):
        drawn = span_lengths(20_000, p, longest, generator)
        counts = np.bincount(drawn.numpy(), minlength=longest + 1)
        assert counts[0] == 0
        assert chisquare(counts[1:], law(p, longest) * 20_000).pvalue > 0.001
    assert set(span_lengths(1000, 1.0, 4, generator).tolist()) == {1}
    assert law() @ np.arange(1, 11) == pytest.approx(3.8, abs=0.05)


def test_runs_of_masks_have_these_lengths():
    """Long texts at a low rate: few spans touch, and only the last of each text is cut."""
    words = torch.arange(3000).expand(60, -1)
    runs = masked_runs(SpanMasker(0.02)(words, words >= 0, words))
    counts = torch.cat([torch.bincount(row[row >= 0]) for row in runs])
    lengths = np.bincount(counts.clamp_max(10), minlength=11)[1:]
    assert lengths.sum() > 700
    # One of about 16 spans is cut, and one of 20 touches another.
    assert np.abs(lengths / lengths.sum() - law()).max() < 0.04


def reference_span_mask(words, rate, p, longest, rng):
    """SpanBERT's loop over the tokens of one text, none of them special."""
    budget, count = math.ceil(rate * len(words)), len(words)
    mask = set()
    while len(mask) < budget:
        length = rng.choices(range(1, longest + 1), law(p, longest))[0]
        anchor = rng.randrange(count)
        if anchor in mask:
            continue
        begin = anchor
        while begin > 0 and words[begin - 1] == words[anchor]:
            begin -= 1
        for place in range(begin, count):
            if words[place] - words[anchor] >= length or len(mask) >= budget:
                break
            mask.add(place)
    return mask


@pytest.mark.parametrize("rate", [0.3, 0.75])
def test_places_and_joint_masks_are_distributed_as_in_the_reference(rate):
    words = [0, 0, 1, 2, 2, 2, 3, 4, 5, 5, 6]
    count, draws = len(words), 6000
    rng = random.Random(1)
    expected = np.zeros((count, count))
    for _ in range(draws):
        chosen = list(reference_span_mask(words, rate, 0.2, 10, rng))
        expected[np.ix_(chosen, chosen)] += 1 / draws
    word_ids = torch.tensor([[-1, *words, -1]]).expand(draws, -1)
    mask = SpanMasker(rate, sampling="ceil")(
        word_ids, word_ids >= 0, word_ids, generator=torch.Generator().manual_seed(0)
    )
    inner = mask[:, 1:-1].double()
    assert set(inner.sum(1).tolist()) == {math.ceil(rate * count)}
    together = (inner.T @ inner / draws).numpy()
    assert np.abs(together - expected).max() < 5 * math.sqrt(0.25 / draws) * math.sqrt(2)


def test_budget_of_spanbert_rounds_up_and_ours_keeps_the_rate(make_texts):
    texts = make_texts(count=2000, longest=9, least=9)
    assert set(texts.masked(SpanMasker(0.15, sampling="ceil")).sum(1).tolist()) == {2}
    counts = texts.masked(SpanMasker(0.15)).sum(1)
    assert set(counts.tolist()) == {1, 2}
    assert float(counts.float().mean()) == pytest.approx(1.35, abs=0.04)
    # 0.15 · 20 is a little above 3 in float32; it is 3 all the same.
    twenty = make_texts(count=5, longest=20, least=20)
    assert set(twenty.masked(SpanMasker(0.15, sampling="ceil")).sum(1).tolist()) == {3}


def test_spans_begin_at_words_and_do_not_cross_special_tokens():
    words = torch.tensor([[-1, 0, 0, 0, 1, -1, 0, 1, 1, -1, -1]]).expand(500, -1)
    mask = SpanMasker(0.43, p=0.01)(words, words >= 0, words)
    assert set(mask.sum(1).tolist()) == {3, 4}
    first, second = mask[:, 1:5], mask[:, 6:9]
    # Where a word is cut, its first pieces are masked.
    assert not bool((first[:, 1] & ~first[:, 0]).any())
    assert not bool((second[:, 2] & ~second[:, 1]).any())
    assert 0.2 < second.any(1).float().mean() < 0.9
    assert bool((first.sum(1) == 0).any())
    # A span from the first text stops at its end and the budget is filled by another draw.
    ends = masked_runs(mask)
    assert bool((ends[:, 5] == -1).all())
