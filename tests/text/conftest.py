"""Made-up texts and a real tokenizer for the tests of masking."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor


class Texts(NamedTuple):
    """Inputs of a masker; one token of two is of a candidate word."""

    ids: Tensor
    maskable: Tensor
    words: Tensor
    units: Tensor
    candidates: Tensor

    def masked(self, masker, seed=0, **kwargs):
        generator = torch.Generator().manual_seed(seed)
        kwargs = {"unit_ids": self.units, "candidates": self.candidates, **kwargs}
        return masker(self.ids, self.maskable, self.words, generator=generator, **kwargs)


def _make_texts(count=64, longest=37, seed=0, pieces=3, least=0):
    """Texts of ``least`` to ``longest`` tokens between two special ones; words of 1 to 3 pieces."""
    random = torch.Generator().manual_seed(seed)

    def integers(low, high, *shape):
        return torch.randint(low, high, shape, generator=random)

    lengths = integers(least, longest + 1, count)
    places = torch.arange(longest + 2)
    maskable = (places >= 1) & (places <= lengths[:, None])
    outside = ~maskable

    def runs(sizes):
        """The number of the run that each place lies in."""
        ends = sizes.cumsum(1)
        return (places[None, :, None] > ends[:, None, :]).sum(2)

    words = runs(integers(1, pieces + 1, count, longest + 2))
    joined = integers(1, 4, count, longest + 2).cumsum(1)  # words per unit
    units = (words[:, :, None] >= joined[:, None, :]).sum(2)
    tagged = integers(0, 2, count, longest + 3).bool()
    return Texts(
        integers(5, 100, count, longest + 2).masked_fill(outside, 0),
        maskable,
        words.masked_fill(outside, -1),
        units.masked_fill(outside, -1),
        tagged.gather(1, words) & maskable,
    )


def _split_units(mask, units, maskable):
    """How many units are masked in part."""
    split = 0
    for row, numbers, inside in zip(mask, units, maskable, strict=True):
        for number in numbers[inside].unique():
            part = row[inside & (numbers == number)]
            split += int(0 < part.sum() < len(part))
    return split


@pytest.fixture
def make_texts():
    """Makes made-up texts."""
    return _make_texts


@pytest.fixture
def split_units():
    """Counts units that are masked in part."""
    return _split_units


@pytest.fixture(scope="session")
def tokenizer():
    """BERT's tokenizer with the small vocabulary of the reference values."""
    from lit_ssl.text.wordpiece import wordpiece_tokenizer

    return wordpiece_tokenizer(Path(__file__).parents[1] / "golden/vl_masking/vocab.txt")
