"""Masked batches in a DataLoader, and transformers' collator beside them."""

from __future__ import annotations

import pickle
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lit_ssl.errors import InputError
from lit_ssl.text import (
    ContentWordMasker,
    MaskingCollator,
    NounVerbMasker,
    PMIMasker,
    PMIVocabulary,
    SpanMasker,
    UniformMasker,
    WholeWordMasker,
)

COLLATOR = Path(__file__).parents[1] / "golden/vl_masking/collator.npz"


@pytest.fixture(scope="module")
def reference():
    with np.load(COLLATOR) as arrays:
        return {name: arrays[name] for name in arrays}


@pytest.fixture(scope="module")
def captions(reference):
    return [str(caption) for caption in reference["captions"]]


def test_batches_are_those_of_transformers(reference, captions, tokenizer):
    """From tokens and from texts, cut at 24 tokens."""
    generator = torch.Generator().manual_seed(int(reference["seed"]))
    collator = MaskingCollator(tokenizer, UniformMasker(0.6))
    names = ("input_ids", "attention_mask", "special_tokens_mask")
    examples = [{name: reference[name][i].tolist() for name in names} for i in range(24)]
    batch = collator(examples, generator)
    assert batch["input_ids"].tolist() == reference["uniform60.input_ids"].tolist()
    assert batch["labels"].tolist() == reference["uniform60.labels"].tolist()
    generator.manual_seed(int(reference["seed"]))
    from_texts = MaskingCollator(tokenizer, UniformMasker(0.6), max_length=24)(captions, generator)
    assert from_texts["input_ids"].tolist() == reference["uniform60.input_ids"].tolist()
    assert torch.equal(from_texts["labels"], batch["labels"])


def test_transformers_collator_itself(captions, tokenizer):
    from transformers import DataCollatorForLanguageModeling

    if "seed" not in signature(DataCollatorForLanguageModeling).parameters:
        pytest.skip("the collator of this transformers takes no seed")
    examples = [tokenizer(c, return_special_tokens_mask=True) for c in captions]
    theirs = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.4, seed=3)
    expected = theirs([dict(example) for example in examples])
    mine = MaskingCollator(tokenizer, UniformMasker(0.4))
    found = mine([dict(example) for example in examples], torch.Generator().manual_seed(3))
    assert set(found) == {"input_ids", "attention_mask", "labels"} | set(expected)
    for name, values in expected.items():
        assert torch.equal(found[name], values), name


def test_words_are_those_of_the_tokenizer(reference, captions, tokenizer):
    """Masks of whole words, of the reference's own grouping, from texts."""
    collator = MaskingCollator(tokenizer, WholeWordMasker(0.5), 1.0, 0.0, max_length=24)
    batch = collator(captions)
    for row, words in zip(batch["labels"].numpy(), reference["word_ids"], strict=True):
        masked = row != -100
        for number in set(words[words >= 0].tolist()):
            assert len(set(masked[words == number].tolist())) == 1
        assert not masked[words < 0].any()


def test_taggers_and_collocations_of_the_masker_are_used(captions, tokenizer):
    content = MaskingCollator(tokenizer, ContentWordMasker(1.0, fallback="none"), 1.0, 0.0)
    batch = content(["There is the ring.", "a small crimson ring"])
    pieces = [tokenizer.convert_ids_to_tokens(row) for row in batch["input_ids"]]
    assert pieces[0][:7] == ["[CLS]", "there", "is", "the", "[MASK]", ".", "[SEP]"]
    assert pieces[1] == ["[CLS]", "a", "[MASK]", "[MASK]", "[MASK]", "[MASK]", "[SEP]"]
    verbs = NounVerbMasker(1.0, lambda words: [word == "is" for word in words], "none")
    batch = MaskingCollator(tokenizer, verbs)(["There is", "is"])
    assert [(row != -100).nonzero().flatten().tolist() for row in batch["labels"]] == [[2], [1]]
    masker = PMIMasker(0.5, PMIVocabulary([["small", "ring"], ["ring", "touching"]]))
    collator = MaskingCollator(tokenizer, masker, 1.0, 0.0, replace_per_unit=True)
    seen = set()
    for seed in range(60):
        batch = collator(["small ring touching"], torch.Generator().manual_seed(seed))
        seen.add(tuple((batch["labels"][0, 1:4] != -100).tolist()))
    # Each collocation is the unit at times; the word that both have is never masked alone.
    assert {(True, True, False), (False, True, True)} <= seen
    assert not {(False, True, False), (True, False, True)} & seen


def test_options_change_what_is_predicted(captions, tokenizer):
    collator = MaskingCollator(tokenizer, SpanMasker(0.6), 1.0, 0.0, 0.15, replace_per_unit=True)
    batch = collator(captions * 20)
    tokens = int(batch["attention_mask"].sum()) - 2 * len(batch["labels"])
    masked, predicted = batch["input_ids"] == 4, batch["labels"] != -100
    assert float(masked.sum() / tokens) == pytest.approx(0.6, abs=0.02)
    assert float(predicted.sum() / tokens) == pytest.approx(0.15, abs=0.02)
    assert not bool((predicted & ~masked).any())


def test_padding_on_the_left_and_other_columns(tokenizer):
    examples = [
        {"input_ids": [2, 6, 3], "word_ids": [None, 0, None], "pixels": torch.ones(2, 2)},
        {"input_ids": torch.tensor([2, 6, 7, 3]), "word_ids": [-1, 0, 0, -1],
         "pixels": torch.zeros(2, 2)},
    ]  # fmt: skip
    tokenizer = pickle.loads(pickle.dumps(tokenizer))
    tokenizer.padding_side = "left"
    batch = MaskingCollator(tokenizer, WholeWordMasker(1.0), 1.0, 0.0)(examples)
    assert batch["input_ids"].tolist() == [[0, 2, 4, 3], [2, 4, 4, 3]]
    assert batch["labels"].tolist() == [[-100, -100, 6, -100], [-100, 6, 7, -100]]
    assert batch["attention_mask"].tolist() == [[0, 1, 1, 1], [1, 1, 1, 1]]
    assert batch["pixels"].shape == (2, 2, 2)
    assert set(batch) == {"input_ids", "attention_mask", "labels", "pixels"}
    assert "word_ids" in examples[0]


def test_in_a_loader_with_workers_masks_differ_between_epochs(captions, tokenizer):
    collator = MaskingCollator(tokenizer, WholeWordMasker(0.5), max_length=9)
    loader = DataLoader(captions[:7], 3, num_workers=1, collate_fn=collator)
    epochs = [[batch["labels"] for batch in loader] for _ in range(2)]
    assert [len(labels) for labels in epochs[0]] == [3, 3, 1]
    assert all(labels.shape[1] <= 9 for labels in epochs[0])
    assert any(not torch.equal(a, b) for a, b in zip(*epochs, strict=True))


def test_your_own_masker(tokenizer):
    def first(ids, maskable, words, rate=None, generator=None, unit_ids=None, candidates=None):
        return maskable & (maskable.cumsum(1) == 1)

    batch = MaskingCollator(tokenizer, first, 1.0, 0.0)(["red ring", "", "a"])
    assert (batch["labels"] != -100).nonzero().tolist() == [[0, 1], [2, 1]]
    everything = MaskingCollator(tokenizer, lambda ids, *_, **__: torch.ones_like(ids).bool())
    with pytest.raises(InputError, match="the masker chose special tokens or padding"):
        everything(["red ring"])


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([], "got no example"),
        ([3], "an example must be a text or a dictionary with input_ids, .* got int"),
        (["a", {"input_ids": [2, 3]}], "all of a batch alike"),
        ([{"input_ids": [2, 6, 3]}], "WholeWordMasker needs word_ids"),
        ([{"input_ids": [2, 6, 3], "word_ids": [0]}], "word_ids of an example has 1 of 3 values"),
        (
            [{"input_ids": [2, 3], "word_ids": [-1, -1]}, {"input_ids": [2, 3]}],
            "the examples of a batch have different entries",
        ),
    ],
)
def test_wrong_examples_give_one_line(examples, message, tokenizer):
    with pytest.raises(InputError, match=message):
        MaskingCollator(tokenizer, WholeWordMasker())(examples)


def test_wrong_options_give_one_line(tokenizer, tmp_path):
    from lit_ssl.text.wordpiece import wordpiece_tokenizer

    with pytest.raises(InputError, match=r"prediction_rate 0.6 must be at most .* rate 0.15"):
        MaskingCollator(tokenizer, UniformMasker(0.15), prediction_rate=0.6)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\na")
    with pytest.raises(InputError, match="the tokenizer has no mask token"):
        MaskingCollator(wordpiece_tokenizer(tmp_path / "vocab.txt"), UniformMasker())
