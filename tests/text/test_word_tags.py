"""Which words are masked first, and the words of a text."""

from __future__ import annotations

import pickle
import sys
from types import ModuleType, SimpleNamespace

import pytest

from lit_ssl.errors import InputError
from lit_ssl.text import ContentWords, PMIVocabulary, SpacyTagger, bert_words, token_columns
from lit_ssl.text.masking.caption_words import encoded_words, splitter
from lit_ssl.text.masking.stop_words import STOP_WORDS
from lit_ssl.text.masking.word_tags import word_flags

STRANGE = (
    "20€ don't T-shirt_x naïve 東京 a\u200bb ½ İ ß x\tb\u00a0c “q” a\u0310 °C $5 ^`|~ \ufffd\0z"
    " ﬁ\u0301 Ǆ \u3000e\u0301 \u2028k \x1cm\x07n ¿qué? 1,000.50 \U0002a700"
)


def test_content_words():
    words = bert_words("A red digit is above the 7 , isn't it ? Three dogs -- left")
    flags = ContentWords()(words)
    content = [word for word, flag in zip(words, flags, strict=True) if flag]
    assert content == ["red", "digit", "7", "three", "dogs", "left"]
    assert ContentWords(["red"])(["Red", "the", "."]) == [False, True, False]
    assert ContentWords()([]) == []
    assert all(word == word.lower() and word.isalpha() for word in STOP_WORDS)
    assert len(STOP_WORDS) > 180


def test_words_are_those_of_berts_tokenizer(tokenizer):
    for text in ("", "  ", "Plain text, with (marks).", "a_b c|d e`f ~g", STRANGE):
        assert bert_words(text) == splitter(tokenizer)(text)
    assert splitter()(STRANGE) == bert_words(STRANGE)


def test_words_of_an_encoding_have_the_numbers_of_its_tokens(tokenizer):
    text = "A turquoise RING, the Zigzag & olïve"
    encoding = tokenizer([text]).encodings[0]
    words = encoded_words(tokenizer, encoding, text)
    assert words == ["a", "turquoise", "ring", ",", "the", "zigzag", "&", "olive"]
    assert words == bert_words(text)
    columns = token_columns(
        words, encoding.word_ids, ContentWords(), PMIVocabulary([["turquoise", "ring"]])
    )
    #        [CLS] a  tur ##quo ##ise ring ,  the zig… (3 pieces) & ol ##ive [SEP]
    assert columns["word_ids"] == [-1, 0, 1, 1, 1, 2, 3, 4, 5, 5, 5, 6, 7, 7, -1]
    assert columns["unit_ids"] == [-1, 0, 1, 1, 1, 1, 2, 3, 4, 4, 4, 5, 6, 6, -1]
    flags = [0, 0, 1, 1, 1, 1, 0, 0, 1, 1, 1, 0, 1, 1, 0]
    assert columns["candidates"] == list(map(bool, flags))
    cut = tokenizer([text], truncation=True, max_length=5).encodings[0]
    assert len(encoded_words(tokenizer, cut, text)) == 2
    assert encoded_words(tokenizer, tokenizer([""]).encodings[0], "") == []


def test_a_slow_tokenizer_is_refused():
    with pytest.raises(InputError, match="SimpleNamespace does not tell which words"):
        splitter(SimpleNamespace())


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([True], "the tagger returned 1 values for 2 words"),
        (["NOUN", "DET"], "the tagger must return bools, .* not 'NOUN'"),
    ],
)
def test_what_a_tagger_returns_is_checked(answer, message):
    assert word_flags(lambda words: [1, 0], ["a", "b"]) == [True, False]
    with pytest.raises(InputError, match=message):
        word_flags(lambda words: answer, ["a", "b"])


def test_spacy_is_asked_for_only_when_it_is_used(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    tagger = SpacyTagger()
    assert tagger([]) == []
    with pytest.raises(ImportError, match="SpacyTagger needs the package spacy") as caught:
        tagger(["a"])
    assert isinstance(caught.value, InputError)
    with pytest.raises(InputError, match="tags must be a list"):
        SpacyTagger(tags="NOUN")


@pytest.fixture
def spacy(monkeypatch):
    """A stand-in with what is used of spaCy's interface; its tagger knows three words."""
    module, tokens = ModuleType("spacy"), ModuleType("spacy.tokens")
    module.loaded = []

    def load(name, exclude):
        if name == "nowhere":
            raise OSError("[E050] Can't find model 'nowhere'.\nIt doesn't seem to be ...")
        module.loaded.append(name)
        tags = {"dog": "NOUN", "runs": "VERB", "the": "DET"} if name != "blank" else {}

        def pipeline(document):
            return [SimpleNamespace(pos_=tags.get(word, "")) for word in document.words]

        pipeline.vocab = None
        return pipeline

    module.load = load
    tokens.Doc = lambda vocab, words: SimpleNamespace(words=words)
    monkeypatch.setitem(sys.modules, "spacy", module)
    monkeypatch.setitem(sys.modules, "spacy.tokens", tokens)
    return module


def test_nouns_and_verbs_by_spacy(spacy):
    tagger = SpacyTagger()
    assert tagger(["the", "dog", "runs"]) == [False, True, True]
    assert tagger(("dog",)) == [True]
    assert spacy.loaded == ["en_core_web_sm"]  # once
    copy = pickle.loads(pickle.dumps(tagger))
    assert copy(["runs"]) == [True]
    assert SpacyTagger(tags=["NOUN"])(["the", "dog", "runs"]) == [False, True, False]
    with pytest.raises(InputError, match=r"spaCy has no model 'nowhere' on this machine: .*E050"):
        SpacyTagger("nowhere")(["dog"])
    with pytest.raises(InputError, match="model 'blank' sets no part-of-speech tags"):
        SpacyTagger("blank")(["dog"])
