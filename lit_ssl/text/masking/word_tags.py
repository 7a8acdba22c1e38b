"""Which words of a text are masked first: content words, or nouns and verbs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from lit_ssl.errors import InputError, InputImportError
from lit_ssl.text.masking.stop_words import STOP_WORDS

__all__ = ["ContentWords", "SpacyTagger", "word_flags"]


class ContentWords:
    """Says of words whether they are content words: a letter or digit in them, and no stop word.

    Args:
        stop_words: Words in lower case; None: our list of English function words. Number words
            and words of place (left, top) are not in it, prepositions (above, near) are.

    Raises:
        InputError: ``stop_words`` is one text.
    """

    def __init__(self, stop_words: Collection[str] | None = None) -> None:
        if isinstance(stop_words, str):
            raise InputError(f"stop_words must be a list of words, not the text {stop_words!r}")
        self.stop_words = STOP_WORDS if stop_words is None else frozenset(stop_words)

    def __call__(self, words: Sequence[str]) -> list[bool]:
        """A bool for each word of a text."""
        stop_words = self.stop_words
        return [any(map(str.isalnum, word)) and word.lower() not in stop_words for word in words]


class SpacyTagger:
    """Says of words whether they are nouns or verbs, by a tagger of spaCy.

    The words stay as the tokenizer has split them. The model is loaded when it is first used.

    Args:
        model: Name of an installed model with a tagger, or its folder; nothing is downloaded.
        tags: Universal part-of-speech tags that count.

    Raises:
        ImportError: When used: spaCy is not installed.
        InputError: When used: there is no such model, or it sets no tags.

    Source: arXiv 2212.05195 masks nouns and verbs; this tag set is ours.
    """

    def __init__(
        self, model: str = "en_core_web_sm", tags: Sequence[str] = ("NOUN", "PROPN", "VERB")
    ) -> None:
        if isinstance(tags, str):
            raise InputError(f"tags must be a list such as [NOUN, VERB], not {tags!r}")
        self.model, self.tags = model, frozenset(tags)
        self._pipeline: Any = None

    def __call__(self, words: Sequence[str]) -> list[bool]:
        """A bool for each word of a text."""
        if not words:
            return []
        if self._pipeline is None:
            self._pipeline = self._load()
        from spacy.tokens import Doc

        document = self._pipeline(Doc(self._pipeline.vocab, words=list(words)))
        found = [token.pos_ for token in document]
        if not any(found):
            raise InputError(
                f"spaCy's model {self.model!r} sets no part-of-speech tags: use one with a tagger,"
                " such as en_core_web_sm"
            )
        return [tag in self.tags for tag in found]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pipeline": None}  # workers and copies load their own

    def _load(self) -> Any:
        try:
            import spacy
        except ImportError as error:
            raise InputImportError(
                "SpacyTagger needs the package spacy and a model of it: pip install spacy, then"
                f" python -m spacy download {self.model}; or give NounVerbMasker a tagger of your"
                " own, a function from words to bools"
            ) from error
        try:
            return spacy.load(self.model, exclude=["parser", "ner"])
        except OSError as error:
            reason = " ".join(str(error).split())[:150]
            raise InputError(
                f"spaCy has no model {self.model!r} on this machine: python -m spacy download"
                f" {self.model}, or give the folder of one. spaCy says: {reason}"
            ) from error


def word_flags(
    tagger: Callable[[Sequence[str]], Sequence[bool]], words: Sequence[str]
) -> list[bool]:
    """Ask a tagger about the words of a text, and check the answer.

    Args:
        tagger: Function from the words of a text to a bool for each.
        words: W words.

    Returns:
        W bools.

    Raises:
        InputError: It returns another number of values, or other values.
    """
    flags = list(tagger(words))
    if len(flags) != len(words):
        raise InputError(
            f"the tagger returned {len(flags)} values for {len(words)} words: it must return a bool"
            " for each word as it is given"
        )
    # Tags such as "NOUN" would all count as true.
    if wrong := [flag for flag in flags if flag not in (True, False)]:
        raise InputError(
            f"the tagger must return bools, True to mask a word first, not {wrong[0]!r}"
        )
    return [bool(flag) for flag in flags]
