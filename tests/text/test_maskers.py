"""What must hold for every masker, rate and seed, and what each promises beyond it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lit_ssl.errors import InputError
from lit_ssl.text import (
    ContentWordMasker,
    NounVerbMasker,
    PMIMasker,
    PMIVocabulary,
    SpanMasker,
    UniformMasker,
    WholeWordMasker,
    checked_mask,
    corrupt,
)
from lit_ssl.text.masking.unit_sampling import unit_heads

COLLATOR = Path(__file__).parents[1] / "golden/vl_masking/collator.npz"
RATES = (0.0, 0.15, 0.6, 1.0)
# name → what makes it; the rate holds in all of these
MASKERS = {
    "uniform": UniformMasker,
    "uniform budget": lambda rate, **kw: UniformMasker(rate, "budget", **kw),
    "whole word": WholeWordMasker,
    "whole word budget": lambda rate, **kw: WholeWordMasker(rate, "budget", **kw),
    "span": SpanMasker,
    "span bernoulli": lambda rate, **kw: SpanMasker(rate, sampling="bernoulli", **kw),
    "pmi": PMIMasker,
    "pmi bernoulli": lambda rate, **kw: PMIMasker(rate, sampling="bernoulli", **kw),
    "noun verb": NounVerbMasker,
    "noun verb bernoulli": lambda rate, **kw: NounVerbMasker(rate, sampling="bernoulli", **kw),
    "content": ContentWordMasker,
}
every_masker = pytest.mark.parametrize("make", MASKERS.values(), ids=MASKERS)


@every_masker
@pytest.mark.parametrize("rate", RATES)
def test_what_holds_for_every_mask(make_texts, make, rate):
    for seed in range(3):
        texts = make_texts(count=33, seed=seed)
        mask = checked_mask(texts.masked(make(rate), seed), texts.maskable)
        assert torch.equal(mask, texts.masked(make(rate), seed))
        assert torch.equal(mask, texts.masked(make(0.31), seed, rate=rate))
        assert torch.equal(mask, texts.masked(make(0.3), seed, rate=torch.full((33,), rate)))
        if rate == 0:
            assert not mask.any()
        if rate == 1:
            assert torch.equal(mask, texts.maskable)
        if 0 < rate < 1:
            assert not torch.equal(mask, texts.masked(make(rate), seed + 100))
        generator = torch.Generator().manual_seed(seed)
        ids, labels = corrupt(texts.ids, mask, 4, 100, generator=generator)
        assert torch.equal(labels[mask], texts.ids[mask])
        assert bool((labels[~mask] == -100).all())
        assert torch.equal(ids[~mask], texts.ids[~mask])


@every_masker
@pytest.mark.parametrize("rate", [0.15, 0.6])
def test_the_rate_holds_on_average(make_texts, make, rate):
    texts = make_texts(count=2000, longest=23, seed=5)
    mask = texts.masked(make(rate), 7)
    assert float(mask.sum() / texts.maskable.sum()) == pytest.approx(rate, abs=0.01)


@every_masker
@pytest.mark.parametrize("rate", [0.15, 0.6])
def test_the_rate_holds_for_short_texts(make_texts, make, rate):
    """Region phrases: five tokens, of which 15 % is less than one."""
    texts = make_texts(count=4000, longest=5, seed=3, least=5)
    mask = texts.masked(make(rate), 11)
    assert float(mask.sum() / texts.maskable.sum()) == pytest.approx(rate, abs=0.0125)


@pytest.mark.parametrize("name", ["uniform budget", "whole word budget", "span", "pmi", "content"])
def test_a_budget_holds_in_every_text(make_texts, name):
    texts = make_texts(count=500)
    units = {"pmi": texts.units, "uniform budget": torch.arange(39).expand(500, -1)}
    units = units.get(name, texts.words)
    heads = unit_heads(units)
    lengths = torch.zeros_like(heads).scatter_add_(1, heads, texts.maskable.long())
    longest = torch.ones(500) if name == "span" else lengths.amax(1).clamp_min(1)
    for rate in (0.15, 0.5, 0.6):
        wanted = rate * texts.maskable.sum(1)
        got = texts.masked(MASKERS[name](rate)).sum(1)
        assert bool(((got - wanted).abs() < longest + 1e-4).all())


@pytest.mark.parametrize("name", ["whole word", "whole word budget", "noun verb", "content"])
@pytest.mark.parametrize("rate", [0.15, 0.6])
def test_words_are_masked_whole(make_texts, split_units, name, rate):
    texts = make_texts()
    mask = texts.masked(MASKERS[name](rate, min_masked=2))
    assert split_units(mask, texts.words, texts.maskable) == 0


@pytest.mark.parametrize("name", ["pmi", "pmi bernoulli"])
def test_collocations_are_masked_whole(make_texts, split_units, name):
    texts = make_texts()
    assert split_units(texts.masked(MASKERS[name](0.4)), texts.units, texts.maskable) == 0
    assert split_units(texts.masked(UniformMasker(0.4)), texts.units, texts.maskable) > 20


@pytest.mark.parametrize("name", ["noun verb", "noun verb bernoulli", "content"])
@pytest.mark.parametrize("rate", [0.15, 0.6])
def test_other_words_follow_only_when_all_candidates_are_masked(make_texts, name, rate):
    texts = make_texts(count=200)
    heads = unit_heads(texts.words)
    tagged = torch.zeros_like(heads).scatter_add_(1, heads, texts.candidates.long())
    candidates = (tagged.gather(1, heads) > 0) & texts.maskable
    mask = texts.masked(MASKERS[name](rate))
    others = (mask & ~candidates).any(1)
    assert 1 < others.sum() < 199
    assert torch.equal((mask & candidates)[others], candidates[others])


def test_without_fallback_the_share_of_candidates_bounds_the_rate(make_texts):
    texts = make_texts(count=300)
    mask = texts.masked(NounVerbMasker(1.0, fallback="none"))
    heads = unit_heads(texts.words)
    tagged = torch.zeros_like(heads).scatter_add_(1, heads, texts.candidates.long())
    assert torch.equal(mask, (tagged.gather(1, heads) > 0) & texts.maskable)
    none = texts.masked(
        NounVerbMasker(0.9, fallback="none", min_masked=3),
        candidates=torch.zeros_like(texts.maskable),
    )
    assert not none.any()


@every_masker
def test_a_text_has_the_least_number_of_masked_tokens(make_texts, make):
    texts = make_texts(count=200, longest=9, pieces=2)
    assert set(texts.maskable.sum(1).tolist()) == set(range(10))
    counts = texts.maskable.sum(1)
    for rate in (0.0, 0.15):
        mask = texts.masked(make(rate, min_masked=2))
        assert bool((mask.sum(1) >= counts.clamp_max(2)).all())
        assert not bool((mask & ~texts.maskable).any())
    # Nothing is added where there is enough already.
    assert torch.equal(texts.masked(make(1.0, min_masked=2)), texts.maskable)


@pytest.mark.parametrize("sampling", ["bernoulli", "budget"])
def test_words_of_one_piece_are_masked_as_tokens_are(make_texts, sampling):
    """The same distribution of how many are masked, and of where."""
    texts = make_texts(count=3000, longest=7, pieces=1, least=7)
    counts = []
    for masker in (UniformMasker(0.4, sampling), WholeWordMasker(0.4, sampling)):
        mask = texts.masked(masker, 3)
        counts.append(torch.bincount(mask.sum(1), minlength=8).float() / 3000)
        assert torch.allclose(mask[:, 1:8].float().mean(0), torch.tensor(0.4), atol=0.035)
    assert torch.allclose(*counts, atol=0.035)
    if sampling == "budget":
        assert set(counts[0].nonzero().flatten().tolist()) == {2, 3}


def test_rates_may_differ_between_texts(make_texts):
    texts = make_texts(count=4, longest=400, least=400)
    for masker in (UniformMasker(), WholeWordMasker(), SpanMasker(), PMIMasker()):
        rates = torch.tensor([0.0, 0.2, 0.7, 1.0])
        got = texts.masked(masker, rate=rates).sum(1) / 400
        assert torch.allclose(got, rates, atol=0.08)
        assert got[0] == 0
        assert got[3] == 1
    with pytest.raises(InputError, match=r"rate must be a number or \[4\], got \[3\]"):
        texts.masked(UniformMasker(), rate=torch.ones(3))
    with pytest.raises(InputError, match="rates must be numbers from 0 to 1, got"):
        texts.masked(PMIMasker(), rate=torch.tensor([0.1, 15.0, 0.2, 0.3]))


@every_masker
def test_odd_sizes(make_texts, make):
    for count, longest in ((1, 1), (1, 13), (3, 0), (0, 5)):
        texts = make_texts(count=count, longest=longest)
        mask = texts.masked(make(0.5, min_masked=1))
        assert mask.shape == texts.ids.shape
        assert torch.equal(mask.any(1), texts.maskable.any(1))


def reference(name):
    with np.load(COLLATOR) as arrays:
        return torch.from_numpy(arrays[name].astype(np.int64))


@pytest.mark.parametrize(
    ("case", "rate", "shares"),
    [
        ("uniform15", 0.15, (0.8, 0.1)),
        ("uniform60", 0.6, (0.8, 0.1)),
        ("uniform60_maskonly", 0.6, (1.0, 0.0)),
    ],
)
def test_uniform_masks_are_those_of_transformers(case, rate, shares, tokenizer):
    generator = torch.Generator().manual_seed(int(reference("seed")))
    ids, maskable = reference("input_ids"), reference("special_tokens_mask") == 0
    mask = UniformMasker(rate)(ids, maskable, None, generator=generator)
    masked = corrupt(ids, mask, 4, len(tokenizer), *shares, generator=generator)
    assert torch.equal(masked[0], reference(f"{case}.input_ids"))
    assert torch.equal(masked[1], reference(f"{case}.labels"))


@pytest.mark.parametrize(("case", "rate"), [("wholeword15", 0.15), ("wholeword60", 0.6)])
def test_whole_word_masks_are_those_of_transformers_given_its_words(case, rate, tokenizer):
    """There, what touches is one word: a full stop belongs to the word before it."""
    ids, maskable = reference("input_ids"), reference("special_tokens_mask") == 0
    offsets = reference("offset_mapping")
    touches = torch.zeros_like(maskable)
    touches[:, 1:] = (offsets[:, 1:, 0] == offsets[:, :-1, 1]) & maskable[:, :-1]
    words = (~touches).cumsum(1).masked_fill(~maskable, -1)
    generator = torch.Generator().manual_seed(int(reference("seed")))
    mask = WholeWordMasker(rate)(ids, maskable, words, generator=generator)
    masked = corrupt(ids, mask, 4, len(tokenizer), 1.0, 0.0, generator)
    assert torch.equal(masked[0], reference(f"{case}.input_ids"))
    assert torch.equal(masked[1], reference(f"{case}.labels"))


def test_words_of_a_second_text_are_words_of_their_own():
    words = torch.tensor([[-1, 0, 1, 1, -1, 1, 1, 2, -1, -1]])
    assert unit_heads(words).tolist() == [[0, 1, 2, 2, 4, 5, 5, 7, 8, 9]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: UniformMasker(60),
            "rate must be a number from 0 to 1, not 60; for 60 % write 0.6",
        ),
        (lambda: WholeWordMasker(float("nan")), "rate must be a number from 0 to 1, not nan"),
        (lambda: UniformMasker(True), "not True"),
        (lambda: PMIMasker(sampling="exact"), "sampling must be 'bernoulli' or 'budget'"),
        (lambda: NounVerbMasker(fallback="others"), "fallback must be 'rest' or 'none'"),
        (lambda: UniformMasker(min_masked=-1), "min_masked must be a whole number >= 0, not -1"),
        (lambda: SpanMasker(p=0), r"p of the span lengths must lie in \(0, 1\], not 0"),
        (lambda: SpanMasker(max_length=0), "max_length must be a whole number >= 1, not 0"),
        (lambda: PMIMasker(vocabulary="nowhere.txt"), "no vocabulary of collocations at nowhere"),
        (lambda: ContentWordMasker(stop_words="the"), "stop_words must be a list of words"),
        (lambda: PMIVocabulary([["one"]]), "needs entries of two words or more"),
    ],
)
def test_wrong_options_give_one_line(make, message):
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_wrong_batches_give_one_line(make_texts):
    texts = make_texts(count=2)
    with pytest.raises(InputError, match="PMIMasker needs unit_ids"):
        texts.masked(PMIMasker(), unit_ids=None)
    with pytest.raises(InputError, match="ContentWordMasker needs candidates"):
        texts.masked(ContentWordMasker(), candidates=None)
    for masker in (WholeWordMasker(), SpanMasker(), NounVerbMasker()):
        with pytest.raises(InputError, match="Masker needs word_ids"):
            texts._replace(words=None).masked(masker)
    with pytest.raises(InputError, match=r"word_ids must have the shape of input_ids, \[2, 39\]"):
        texts._replace(words=texts.words[:, 1:]).masked(WholeWordMasker())
    with pytest.raises(InputError, match=r"maskable must be bool, not torch.int64"):
        texts._replace(maskable=texts.maskable.long()).masked(UniformMasker())


def test_what_a_users_masker_returns_is_checked(make_texts):
    texts = make_texts(count=2)
    assert checked_mask(texts.maskable, texts.maskable) is texts.maskable
    for wrong in (texts.maskable.long(), texts.maskable[:1], [True]):
        with pytest.raises(InputError, match=r"a masker returns bool \[2, 39\], this one"):
            checked_mask(wrong, texts.maskable)
    with pytest.raises(InputError, match="the masker chose special tokens or padding"):
        checked_mask(torch.ones_like(texts.maskable), texts.maskable)
