"""The words of a text as a tokenizer splits it, and what is known of them, token by token."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lit_ssl.errors import InputError
from lit_ssl.text.masking.word_tags import word_flags

if TYPE_CHECKING:
    from lit_ssl.text.collocations.pmi_vocabulary import PMIVocabulary

__all__ = ["bert_words", "encoded_words", "splitter", "token_columns"]

_ASCII_WORDS = re.compile(r"[a-z0-9]+|[^\sa-z0-9]").findall
# Chinese characters, which BERT's tokenizer takes one by one.
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


def bert_words(text: str) -> list[str]:
    """Split a text into words as BERT's uncased tokenizer does, before it makes pieces of them.

    Lower case without accents; punctuation marks and Chinese characters are words of their own.

    Args:
        text: It.
    """
    if text.isascii() and text.isprintable():
        return _ASCII_WORDS(text.lower())
    plain = "".join(" " if char.isspace() else char for char in text if not _is_dropped(char))
    stripped = "".join(
        char for char in unicodedata.normalize("NFD", plain) if unicodedata.category(char) != "Mn"
    )
    return "".join(
        f" {char} " if _stands_alone(char) else char for char in stripped.lower()
    ).split()


def _is_dropped(char: str) -> bool:
    return char == "\ufffd" or (
        char not in "\t\n\r" and unicodedata.category(char) in ("Cc", "Cf", "Cn", "Co")
    )


def _stands_alone(char: str) -> bool:
    code = ord(char)
    if code < 128:
        return char.isprintable() and not char.isalnum() and char != " "
    return unicodedata.category(char).startswith("P") or any(
        first <= code <= last for first, last in _IDEOGRAPHS
    )


def splitter(tokenizer: Any = None) -> Callable[[str], list[str]]:
    """Return the function that splits texts into words, as a tokenizer does.

    Args:
        tokenizer: A fast one of transformers; None: [`bert_words`][lit_ssl.text.bert_words].

    Raises:
        InputError: The tokenizer is none of these.
    """
    if tokenizer is None:
        return bert_words
    backend = _backend(tokenizer)

    def split(text: str) -> list[str]:
        text = text if backend.normalizer is None else backend.normalizer.normalize_str(text)
        if backend.pre_tokenizer is None:
            return text.split()
        parts = backend.pre_tokenizer.pre_tokenize_str(text)
        words = (text[begin:end].strip() for _, (begin, end) in parts)
        return [word for word in words if word]

    return split


def encoded_words(tokenizer: Any, encoding: Any, text: str) -> list[str]:
    """Return the words of a text by the numbers that its tokens have.

    Args:
        tokenizer: A fast one of transformers.
        encoding: The text's, of ``tokenizer([text]).encodings``.
        text: The text.

    Returns:
        Words, normalised as the tokenizer does; word ``i`` has the tokens whose word id is ``i``.
        Of a word that was cut away the text is empty.

    Raises:
        InputError: The tokenizer is none of these.
    """
    normalizer = _backend(tokenizer).normalizer
    known = [number for number in encoding.word_ids if number is not None]
    words = []
    for number in range(max(known, default=-1) + 1):
        span = encoding.word_to_chars(number)
        word = "" if span is None else text[span[0] : span[1]]
        word = word if normalizer is None else normalizer.normalize_str(word)
        words.append(word.strip())
    return words


def token_columns(
    words: Sequence[str],
    word_ids: Sequence[int | None],
    tagger: Callable[[Sequence[str]], Sequence[bool]] | None = None,
    vocabulary: PMIVocabulary | None = None,
    seed: int = 0,
) -> dict[str, list[Any]]:
    """Say of each token of a text what maskers ask for.

    Args:
        words: Words of the text, as of [`encoded_words`][lit_ssl.text.encoded_words].
        word_ids: The word of each of L tokens; None or −1 for special tokens and padding.
        tagger: Function from words to a bool for each; makes ``candidates``.
        vocabulary: Collocations; makes ``unit_ids``.
        seed: Which of overlapping collocations is a unit is a pure function of it and the words.

    Returns:
        L values each: ``word_ids`` (−1 for no word), ``candidates`` where there is a tagger and
        ``unit_ids`` (−1 for no word) where there is a vocabulary.
    """
    numbers = [-1 if number is None else number for number in word_ids]
    columns: dict[str, list[Any]] = {"word_ids": numbers}
    if tagger is not None:
        flags = word_flags(tagger, words)
        columns["candidates"] = [number >= 0 and flags[number] for number in numbers]
    if vocabulary is not None:
        units = vocabulary.segment(words, seed)
        columns["unit_ids"] = [-1 if number < 0 else units[number] for number in numbers]
    return columns


def _backend(tokenizer: Any) -> Any:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InputError(
            f"{type(tokenizer).__name__} does not tell which words its tokens belong to: use a fast"
            " tokenizer of transformers (tokenizer.is_fast)"
        )
    return backend
