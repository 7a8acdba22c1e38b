"""Vocabularies: trained on a corpus, read from files; words of tokens."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from lit_ssl.errors import InputError
from lit_ssl.text.corpus_wordpiece import CorpusWordPiece, train_wordpiece
from lit_ssl.text.tokens import Tokens, load_tokenizer, mask_token_id, tokenize_words
from lit_ssl.text.wordpiece import read_pieces, tokenizer_of_pieces

pytest.importorskip("transformers")

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "gir", "##af", "##fe", "dog", "'", "s"]


def corpus(seed=0):
    """Many pairs of pieces are equally frequent, so that ties have to be broken."""
    rng = random.Random(seed)
    words = ["".join(rng.choice("abcdefgh") for _ in range(rng.randint(2, 6))) for _ in range(400)]
    return [" ".join(rng.choice(words) for _ in range(7)) for _ in range(300)]


def test_the_same_corpus_gives_the_same_ids():
    texts = corpus()
    pieces = train_wordpiece(texts, 400)
    assert len(pieces) == 400
    assert len(set(pieces)) == 400
    assert pieces[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    for again in (texts[::-1], [text.upper() for text in texts]):
        assert train_wordpiece(again, 400) == pieces
    assert train_wordpiece([*texts, "zz zz"], 400) != pieces


def test_frequent_words_are_whole_and_all_ascii_is_known():
    tokenizer = tokenizer_of_pieces(train_wordpiece(["The Caf\u00e9 dog"] * 30, 200), "trained")
    assert tokenizer.tokenize("THE cafe DOG") == ["the", "cafe", "dog"]
    assert "[UNK]" not in tokenizer.tokenize("~ { 7 Q #")


def test_kept_once_in_the_folder_that_was_named(tmp_path, monkeypatch):
    training = CorpusWordPiece(str(tmp_path / "new"), 300)
    path = training.vocabulary(corpus())
    written = path.stat().st_mtime_ns
    assert training.vocabulary(iter(corpus()[::-1])) == path
    assert path.stat().st_mtime_ns == written
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert read_pieces(path) == train_wordpiece(corpus(), 300)
    other = {training.vocabulary(corpus(1)), CorpusWordPiece(str(tmp_path), 301).vocabulary(["a"])}
    assert path not in other
    assert mask_token_id(load_tokenizer(str(path)), str(path)) == 4


def test_mistakes_of_a_corpus(tmp_path):
    with pytest.raises(InputError, match="at least 200"):
        CorpusWordPiece(str(tmp_path), 100)
    with pytest.raises(InputError, match="found no word"):
        CorpusWordPiece(str(tmp_path)).vocabulary(["", "  "])
    path = CorpusWordPiece(str(tmp_path)).vocabulary(["a dog"])
    path.write_text("other\n")
    with pytest.raises(InputError, match="delete it, so that it is made again"):
        CorpusWordPiece(str(tmp_path)).vocabulary(["a dog"])


def test_without_mask(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(piece for piece in PIECES if piece != "[MASK]"))
    tokenizer = load_tokenizer(str(path))
    with pytest.raises(InputError, match=r"vocab.txt has no \[MASK\], which masked language"):
        mask_token_id(tokenizer, str(path))


def test_words_of_tokens():
    tokenizer = tokenizer_of_pieces(PIECES, "mine")
    asked = []

    def is_candidate(words):
        asked.append(list(words))
        return [word in ("giraffe", "dog") for word in words]

    def unit(words):
        return range(10, 10 + len(words))

    texts = ["a Giraffe's a", "", "DOG", "a a a a a a giraffe"]
    tokens = tokenize_words(tokenizer, texts, 7, {"candidates": is_candidate, "unit_ids": unit})
    batch = tokens.batch(np.array([0, 1, 2]))
    # [CLS] a gir ##af ##fe ' [SEP]: cut at 7 tokens
    assert batch["word_ids"].tolist() == [
        [-1, 0, 1, 1, 1, 2, -1], [-1, -1, -1, -1, -1, -1, -1], [-1, 0, -1, -1, -1, -1, -1],
    ]  # fmt: skip
    assert batch["candidates"].tolist()[0] == [False, False, True, True, True, False, False]
    assert batch["candidates"].sum().item() == 4
    assert batch["word_ids"].dtype == torch.int64
    assert batch["candidates"].dtype == torch.bool
    assert asked == [["a", "giraffe", "'"], [], ["dog"], ["a"] * 5]
    assert batch["unit_ids"].tolist() == [
        [-1, 10, 11, 11, 11, 12, -1], [-1] * 7, [-1, 10, -1, -1, -1, -1, -1],
    ]  # fmt: skip
    assert batch["input_ids"][0].tolist() == [2, 5, 6, 7, 8, 10, 3]
    assert tokens.batch(np.array([2]), width=5)["word_ids"].tolist() == [[-1, 0, -1, -1, -1]]


def test_no_texts_and_wrong_tags():
    tokenizer = tokenizer_of_pieces(PIECES, "mine")
    tokens = tokenize_words(tokenizer, [], 7, {"candidates": lambda words: [True]})
    assert isinstance(tokens, Tokens)
    assert tokens.starts.tolist() == [0]
    with pytest.raises(InputError, match="candidates of 'a dog': 1 values for 2 words"):
        tokenize_words(tokenizer, ["a dog"], 7, {"candidates": lambda words: [True]})
