"""Text as tensors: tokens, and masks for masked language modelling."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lit_ssl.lazy import lazy_names

if TYPE_CHECKING:
    from lit_ssl.text.caption_words import bert_words as bert_words
    from lit_ssl.text.caption_words import encoded_words as encoded_words
    from lit_ssl.text.caption_words import token_columns as token_columns
    from lit_ssl.text.collator import MaskingCollator as MaskingCollator
    from lit_ssl.text.corpus_wordpiece import CorpusWordPiece as CorpusWordPiece
    from lit_ssl.text.corruption import corrupt as corrupt
    from lit_ssl.text.corruption import prediction_subset as prediction_subset
    from lit_ssl.text.corruption import replacement_units as replacement_units
    from lit_ssl.text.fixed_mask import fixed_word_mask as fixed_word_mask
    from lit_ssl.text.maskers import ContentWordMasker as ContentWordMasker
    from lit_ssl.text.maskers import Masker as Masker
    from lit_ssl.text.maskers import NounVerbMasker as NounVerbMasker
    from lit_ssl.text.maskers import PMIMasker as PMIMasker
    from lit_ssl.text.maskers import UniformMasker as UniformMasker
    from lit_ssl.text.maskers import WholeWordMasker as WholeWordMasker
    from lit_ssl.text.maskers import checked_mask as checked_mask
    from lit_ssl.text.pmi import build_collocations as build_collocations
    from lit_ssl.text.pmi_files import write_vocabulary as write_vocabulary
    from lit_ssl.text.pmi_vocabulary import PMIVocabulary as PMIVocabulary
    from lit_ssl.text.rates import ConstantRate as ConstantRate
    from lit_ssl.text.rates import CosineRate as CosineRate
    from lit_ssl.text.rates import LinearRate as LinearRate
    from lit_ssl.text.span_masker import SpanMasker as SpanMasker
    from lit_ssl.text.step_random import step_generator as step_generator
    from lit_ssl.text.word_tags import ContentWords as ContentWords
    from lit_ssl.text.word_tags import SpacyTagger as SpacyTagger

__all__, __getattr__, __dir__ = lazy_names(__name__)
