"""Maskers: which tokens of texts a masked language model has to guess.

A masker is an object that is called with a batch and returns the mask; any of your own with this
interface does. Those here are plain functions of their inputs and a generator: they keep no state,
work on the device of the batch without a loop over texts, and move nothing to the host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from lit_ssl.errors import InputError, check_choice
from lit_ssl.text.collocations.pmi_vocabulary import PMIVocabulary
from lit_ssl.text.masking.unit_sampling import (
    check_batch,
    fill_up,
    needed_words,
    rate_column,
    sample_units,
    target_tokens,
)
from lit_ssl.text.masking.word_tags import ContentWords
from lit_ssl.text.shares import check_rate

__all__ = [
    "ContentWordMasker",
    "Masker",
    "MaskerLike",
    "NounVerbMasker",
    "PMIMasker",
    "UniformMasker",
    "WholeWordMasker",
    "checked_mask",
]

Sampling = Literal["bernoulli", "budget"]
# A masker in the signature of what a configuration builds: of a protocol whose calls return tensors
# jsonargparse believes that it makes tensors.
MaskerLike = Callable[..., Any]
# str | PMIVocabulary | None; of a class jsonargparse would take the file for its configuration.
VocabularyLike = Any
Tagger = Callable[[Sequence[str]], Sequence[bool]]


class Masker(Protocol):
    """What is asked of a masker.

    Two attributes are optional, for whoever prepares the batch: ``tagger``, a function from a
    text's words to a bool for each, which makes ``candidates``; and ``vocabulary``, a
    [`PMIVocabulary`][lit_ssl.text.PMIVocabulary], which makes ``unit_ids``. So is a method
    ``replacement_units``, see [`replacement_units`][lit_ssl.text.replacement_units].
    """

    def __call__(
        self,
        input_ids: Tensor,
        maskable: Tensor,
        word_ids: Tensor | None,
        rate: float | Tensor | None = None,
        generator: torch.Generator | None = None,
        unit_ids: Tensor | None = None,
        candidates: Tensor | None = None,
    ) -> Tensor:
        """Choose tokens of a batch.

        Args:
            input_ids: int64 ``[B, L]``.
            maskable: bool ``[B, L]``: tokens that are neither special nor padding; n in a text.
            word_ids: int64 ``[B, L]``: the word of each token, −1 for special ones and padding;
                None where words are not known.
            rate: r, the share of maskable tokens to mask, in [0, 1]; a number or ``[B]``. None:
                the masker's own.
            generator: Source of the random numbers, on the batch's device; None: torch's own.
            unit_ids: int64 ``[B, L]``: the unit of each token (collocations), −1 as above.
            candidates: bool ``[B, L]``: tokens of preferred words (nouns and verbs, content words).

        Returns:
            bool ``[B, L]``, a subset of ``maskable``.
        """
        ...


def checked_mask(mask: Tensor, maskable: Tensor) -> Tensor:
    """Return what a masker returned, or say what is wrong with it.

    Args:
        mask: What a masker returned.
        maskable: bool ``[B, L]`` that it was given.

    Raises:
        InputError: It is not bool ``[B, L]``, or has a special token or padding in it.
    """
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != maskable.shape:
        found = (
            f"{mask.dtype} {list(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
        )
        raise InputError(f"a masker returns bool {list(maskable.shape)}, this one {found}")
    if bool((mask & ~maskable).any()):
        raise InputError(
            "the masker chose special tokens or padding: it may choose only where maskable is True"
        )
    return mask


class UniformMasker:
    """Every token is as likely as any other, independent of words.

    Args:
        rate: Share of tokens to mask, in [0, 1].
        sampling: "bernoulli": each token with this probability, as in BERT's and ViLT's code;
            "budget": floor(r n + u) tokens of each text, u uniform in [0, 1).
        min_masked: Mask at least so many tokens of a text, as far as it has them. Short texts are
            then masked more than the rate says.

    Source: a strategy that arXiv 2212.05195 compares (ours: ``budget``, ``min_masked``). With
    one generator, mask and [`corrupt`][lit_ssl.text.corrupt] draw the numbers of transformers'
    collator for language modelling.
    """

    def __init__(
        self, rate: float = 0.6, sampling: Sampling = "bernoulli", min_masked: int = 0
    ) -> None:
        self.rate, self.sampling = check_rate("rate", rate), _sampling(sampling)
        self.min_masked = _min_masked(min_masked)

    def __call__(
        self,
        input_ids: Tensor,
        maskable: Tensor,
        word_ids: Tensor | None,
        rate: float | Tensor | None = None,
        generator: torch.Generator | None = None,
        unit_ids: Tensor | None = None,
        candidates: Tensor | None = None,
    ) -> Tensor:
        """Choose tokens, see [`Masker`][lit_ssl.text.Masker]; words are not looked at."""
        check_batch(input_ids, maskable)
        rate = self.rate if rate is None else rate
        if self.sampling == "bernoulli":
            chances = rate_column(rate, maskable) * maskable
            mask = torch.bernoulli(chances, generator=generator).bool()
        else:
            target = target_tokens(maskable, rate, "budget", generator)
            keys = torch.rand(maskable.shape, generator=generator, device=maskable.device)
            order = keys.masked_fill_(~maskable, 2.0).argsort(1)
            places = torch.arange(maskable.shape[1], device=maskable.device)
            mask = torch.zeros_like(maskable).scatter(1, order, places < target)
        if self.min_masked:
            mask = fill_up(mask, maskable, self.min_masked, generator)
        return mask


class WholeWordMasker:
    """Every word is as likely as any other; all pieces of a word are masked together.

    Args:
        rate: Share of tokens to mask, in [0, 1].
        sampling: "bernoulli": each word with this probability; "budget": words in random order up
            to r · n tokens, see ``lit_ssl.text.masking.unit_sampling.sample_units``.
        min_masked: Mask words until a text has at least so many masked tokens.

    Source: a strategy that arXiv 2212.05195 compares; the rule of transformers 5 with the
    tokenizer's own words.
    """

    def __init__(
        self, rate: float = 0.15, sampling: Sampling = "bernoulli", min_masked: int = 0
    ) -> None:
        self.rate, self.sampling = check_rate("rate", rate), _sampling(sampling)
        self.min_masked = _min_masked(min_masked)

    def __call__(
        self,
        input_ids: Tensor,
        maskable: Tensor,
        word_ids: Tensor | None,
        rate: float | Tensor | None = None,
        generator: torch.Generator | None = None,
        unit_ids: Tensor | None = None,
        candidates: Tensor | None = None,
    ) -> Tensor:
        """Choose whole words, see [`Masker`][lit_ssl.text.Masker]."""
        word_ids = needed_words(self, word_ids)
        check_batch(input_ids, maskable, word_ids=word_ids)
        rate = self.rate if rate is None else rate
        return sample_units(
            word_ids, maskable, rate, self.sampling, generator, min_masked=self.min_masked
        )


class PMIMasker:
    """Collocations and single words are the units; all pieces of a unit are masked together.

    Args:
        rate: Share of tokens to mask, in [0, 1].
        vocabulary: Collocations, or the file of them that ``lit-ssl pmi-vocabulary`` writes;
            whoever prepares the batch makes ``unit_ids`` with it. None: the batch brings its own.
        sampling: "budget": units in random order up to r · n tokens; "bernoulli": each unit with
            probability r.
        min_masked: Mask units until a text has at least so many masked tokens.

    Raises:
        InputError: A rate is none, the file is no vocabulary; in a call: there are no ``unit_ids``.

    Source: PMI-Masking (arXiv 2010.01825, and its published notes), with our exact mean.
    """

    def __init__(
        self,
        rate: float = 0.15,
        vocabulary: VocabularyLike = None,
        sampling: Sampling = "budget",
        min_masked: int = 0,
    ) -> None:
        self.rate, self.sampling = check_rate("rate", rate), _sampling(sampling)
        self.min_masked = _min_masked(min_masked)
        if isinstance(vocabulary, str):
            vocabulary = PMIVocabulary.load(vocabulary)
        self.vocabulary = vocabulary

    def __call__(
        self,
        input_ids: Tensor,
        maskable: Tensor,
        word_ids: Tensor | None,
        rate: float | Tensor | None = None,
        generator: torch.Generator | None = None,
        unit_ids: Tensor | None = None,
        candidates: Tensor | None = None,
    ) -> Tensor:
        """Choose whole units, see [`Masker`][lit_ssl.text.Masker]."""
        if unit_ids is None:
            raise InputError(
                "PMIMasker needs unit_ids, the collocation of each token, in the batch: give the"
                " data module pmi_vocabulary, or the masker of a MaskingCollator vocabulary, the"
                " file that `lit-ssl pmi-vocabulary TEXT.txt OUT` writes"
            )
        check_batch(input_ids, maskable, unit_ids=unit_ids)
        rate = self.rate if rate is None else rate
        return sample_units(
            unit_ids, maskable, rate, self.sampling, generator, min_masked=self.min_masked
        )

    def replacement_units(
        self, mask: Tensor, word_ids: Tensor | None, unit_ids: Tensor | None = None
    ) -> Tensor | None:
        """Units that share one draw of what stands in their place: the collocations and words.

        Args:
            mask: bool ``[B, L]``, the masked tokens; not used.
            word_ids: int64 ``[B, L]``, the word of each token; what counts where there are no
                units.
            unit_ids: int64 ``[B, L]``, the collocation of each token, or None.
        """
        return word_ids if unit_ids is None else unit_ids


class NounVerbMasker:
    """Nouns and verbs first: other words are masked only where these are used up.

    Args:
        rate: Share of all maskable tokens to mask, in [0, 1].
        tagger: Function from the words of a text to a bool for each, such as
            [`SpacyTagger`][lit_ssl.text.SpacyTagger]; whoever prepares the batch makes
            ``candidates`` with it. None: the batch brings its own.
        fallback: "rest": other words follow, so that the rate holds; "none": none do, and the share
            of nouns and verbs bounds it.
        sampling: "budget": words in random order up to r · n tokens; "bernoulli": up to the
            number of tokens of words drawn with probability r.
        min_masked: Mask words until a text has at least so many masked tokens (with "none": as far
            as it has nouns and verbs).

    Raises:
        InputError: A value is out of range; in a call: there are no ``candidates``.

    Source: arXiv 2212.05195 names the strategy; tag set, order and fallback are ours, since the
    paper's are not known to us.
    """

    def __init__(
        self,
        rate: float = 0.15,
        tagger: Tagger | None = None,
        fallback: Literal["rest", "none"] = "rest",
        sampling: Sampling = "budget",
        min_masked: int = 0,
    ) -> None:
        check_choice("fallback", fallback, ("rest", "none"))
        self.rate, self.sampling = check_rate("rate", rate), _sampling(sampling)
        self.tagger, self.fallback = tagger, fallback
        self.min_masked = _min_masked(min_masked)

    def __call__(
        self,
        input_ids: Tensor,
        maskable: Tensor,
        word_ids: Tensor | None,
        rate: float | Tensor | None = None,
        generator: torch.Generator | None = None,
        unit_ids: Tensor | None = None,
        candidates: Tensor | None = None,
    ) -> Tensor:
        """Choose whole words, candidates first, see [`Masker`][lit_ssl.text.Masker]."""
        if candidates is None:
            raise InputError(
                f"{type(self).__name__} needs candidates, a bool for each token, in the batch: give"
                " the data module, or the masker of a MaskingCollator, a tagger, such as"
                " lit_ssl.text.SpacyTagger, lit_ssl.text.ContentWords or a function of your own"
            )
        word_ids = needed_words(self, word_ids)
        check_batch(input_ids, maskable, word_ids=word_ids, candidates=candidates)
        return sample_units(
            word_ids,
            maskable,
            self.rate if rate is None else rate,
            self.sampling,
            generator,
            first=candidates.bool(),
            fallback=self.fallback == "rest",
            min_masked=self.min_masked,
        )


class ContentWordMasker(NounVerbMasker):
    """Content words first: those that are neither punctuation nor in a list of stop words.

    Args:
        rate: Share of all maskable tokens to mask, in [0, 1].
        stop_words: Words in lower case that are no content words; None: our list of English
            function words, ``lit_ssl.text.masking.stop_words.STOP_WORDS``.
        fallback: As in [`NounVerbMasker`][lit_ssl.text.NounVerbMasker].
        sampling: As in [`NounVerbMasker`][lit_ssl.text.NounVerbMasker].
        min_masked: As in [`NounVerbMasker`][lit_ssl.text.NounVerbMasker].

    Source: "content words" of arXiv 2109.02040; the list is ours.
    """

    def __init__(
        self,
        rate: float = 0.15,
        stop_words: Sequence[str] | None = None,
        fallback: Literal["rest", "none"] = "rest",
        sampling: Sampling = "budget",
        min_masked: int = 0,
    ) -> None:
        super().__init__(rate, ContentWords(stop_words), fallback, sampling, min_masked)


def _sampling(sampling: Sampling) -> Sampling:
    check_choice("sampling", sampling, ("bernoulli", "budget"))
    return sampling


def _min_masked(number: int) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise InputError(f"min_masked must be a whole number >= 0, not {number!r}")
    return number
