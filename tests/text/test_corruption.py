"""What stands in place of masked tokens."""

from __future__ import annotations

import math

import pytest
import torch

from lit_ssl.errors import InputError
from lit_ssl.text import (
    PMIMasker,
    SpanMasker,
    UniformMasker,
    WholeWordMasker,
    corrupt,
    prediction_subset,
    replacement_units,
)
from lit_ssl.text.corruption import masked_runs
from lit_ssl.text.step_random import step_generator


def test_shares_are_within_three_sigma():
    ids = torch.full((200, 500), 7)
    mask = torch.rand(200, 500) < 0.6
    count = int(mask.sum())
    corrupted, labels = corrupt(ids, mask, 4, 100, generator=torch.Generator().manual_seed(1))
    changed = corrupted[mask]
    for found, share in (
        ((changed == 4).sum(), 0.8 + 0.1 / 100),
        (((changed != 4) & (changed != 7)).sum(), 0.1 * 98 / 100),
        ((changed == 7).sum(), 0.1 + 0.1 / 100),
    ):
        assert abs(int(found) - share * count) < 3 * math.sqrt(share * (1 - share) * count)
    others = changed[(changed != 4) & (changed != 7)]
    assert (int(others.min()), int(others.max())) == (0, 99)
    assert bool((labels[mask] == 7).all())
    assert bool((labels[~mask] == -100).all())


@pytest.mark.parametrize(
    ("shares", "kinds"),
    [((1.0, 0.0), {4}), ((0.0, 0.0), {7}), ((0.0, 1.0), set(range(8, 108)))],
)
def test_the_ends_of_the_shares(shares, kinds):
    ids, mask = torch.full((9, 31), 7), torch.ones(9, 31, dtype=torch.bool)
    found = set(corrupt(ids, mask, 4, 5, *shares)[0].unique().tolist())
    assert found <= (kinds if shares[1] == 0 else set(range(5)))


def test_inputs_stay_as_they_were():
    ids, mask = torch.arange(12).reshape(3, 4), torch.ones(3, 4, dtype=torch.bool)
    corrupt(ids, mask, 4, 12)
    assert torch.equal(ids, torch.arange(12).reshape(3, 4))


def test_units_share_the_kind_of_replacement_and_not_the_token():
    ids = torch.full((400, 12), 7)
    units = (torch.arange(12) // 3).expand(400, -1)
    mask = torch.ones(400, 12, dtype=torch.bool)
    corrupted, _ = corrupt(ids, mask, 4, 1000, 0.5, 0.25, units=units)
    parts = corrupted.reshape(1600, 3)
    kinds = torch.where(parts == 4, 0, torch.where(parts == 7, 1, 2))
    # A random token may be 4 or 7 by chance, once in 500.
    assert float((kinds == kinds[:, :1]).all(1).float().mean()) > 0.99
    share = torch.bincount(kinds[:, 0], minlength=3) / 1600
    assert torch.allclose(share, torch.tensor([0.5, 0.25, 0.25]), atol=0.05)
    swapped = parts[(kinds == 2).all(1)]
    assert float((swapped[:, 0] == swapped[:, 1]).float().mean()) < 0.05


def test_each_masker_says_its_units(make_texts):
    texts = make_texts(count=4)
    mask = texts.masked(SpanMasker(0.4))
    runs = replacement_units(SpanMasker(), mask, texts.words, texts.units)
    assert torch.equal(runs, masked_runs(mask))
    assert torch.equal(runs >= 0, mask)
    found = replacement_units(PMIMasker(), mask, texts.words, texts.units)
    assert torch.equal(found, texts.units)
    for masker in (WholeWordMasker(), UniformMasker(), lambda *inputs, **more: mask):
        assert torch.equal(replacement_units(masker, mask, texts.words, None), texts.words)
    with pytest.raises(InputError, match="UniformMasker needs word_ids"):
        replacement_units(UniformMasker(), mask, None)


def test_runs_are_numbered_from_left_to_right():
    mask = torch.tensor([[True, True, False, True], [False, False, True, True]])
    assert masked_runs(mask).tolist() == [[0, 0, -1, 1], [-1, -1, 0, 0]]


def test_predictions_are_as_many_as_at_the_lower_rate(make_texts):
    texts = make_texts(count=2000)
    mask = texts.masked(UniformMasker(0.6))
    predicted = prediction_subset(mask, 0.6, 0.15, torch.Generator().manual_seed(1))
    assert not bool((predicted & ~mask).any())
    count = texts.maskable.sum()
    assert float(predicted.sum() / count) == pytest.approx(0.15, abs=0.01)
    assert torch.equal(prediction_subset(mask, 0.6, 0.6), mask)
    assert torch.equal(prediction_subset(mask, 0.3, 0.6), mask)  # a schedule below it
    assert not prediction_subset(mask, 0.6, 0.0).any()
    assert not prediction_subset(mask & False, 0.0, 0.0).any()
    rates = torch.full((2000,), 0.6)
    found = prediction_subset(mask, rates, 0.15, torch.Generator().manual_seed(1))
    assert torch.equal(found, predicted)
    ids, labels = corrupt(texts.ids, mask, 4, 100, 1.0, 0.0, predicted=predicted)
    assert torch.equal(ids == 4, mask)
    assert torch.equal(labels != -100, predicted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_id": None}, r"no \[MASK\] among the 9 tokens \(mask_id is None\)"),
        ({"mask_id": 9}, r"no \[MASK\] among the 9 tokens \(mask_id is 9\)"),
        ({"mask_replace_prob": 80}, "mask_replace_prob must be .* not 80; for 80 % write 0.8"),
        ({"random_replace_prob": 0.3}, r"must be at most 1, got 0.8 \+ 0.3"),
        ({"mask": torch.ones(2, 3)}, "maskable must be bool"),
        ({"units": torch.ones(3, 2)}, r"units must have the shape of input_ids, \[2, 3\]"),
    ],
)
def test_wrong_values_give_one_line(options, message):
    inputs = {
        "input_ids": torch.ones(2, 3, dtype=torch.long),
        "mask": torch.ones(2, 3, dtype=torch.bool),
        "mask_id": 4,
        "vocab_size": 9,
    }
    with pytest.raises(InputError, match=message):
        corrupt(**{**inputs, **options})


def test_generators_are_functions_of_seed_rank_and_step():
    def numbers(*keys, **more):
        return torch.rand(5, generator=step_generator(*keys, **more)).tolist()

    before = torch.get_rng_state()
    assert numbers(0, 1, 7) == numbers(0, 1, 7)
    different = [numbers(0, 1, 7), numbers(1, 1, 7), numbers(0, 0, 7), numbers(0, 1, 8)]
    different += [numbers(0, 7, 1), numbers(0, 1, 7, stream=5)]
    assert len({tuple(row) for row in different}) == 6
    assert torch.equal(before, torch.get_rng_state())
