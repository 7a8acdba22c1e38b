"""Images with captions: what vision-language models are pretrained and searched on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.utils.data import Dataset

from lit_ssl.datamodules.loading.batches import Key, Served, split_keys
from lit_ssl.datamodules.reading.decoding import CorruptImageError
from lit_ssl.datamodules.reading.found import images_with_captions
from lit_ssl.datamodules.reading.images import Images, PackedStrings
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.reading.skip_corrupt import ReadableRows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.vision_language.image_batches import stack_images
from lit_ssl.datamodules.vision_language.image_text import BYTES, ImageTextModule
from lit_ssl.errors import InputError, InputTypeError, check_choice
from lit_ssl.seeding import Stream, sample_seeds, uniform
from lit_ssl.text.collocations.pmi_vocabulary import PMIVocabulary
from lit_ssl.text.masking.word_tags import word_flags
from lit_ssl.text.tokens import Tokens, WordColumn, tokenize_words

__all__ = ["CaptionedImages", "ImageCaptionModule"]


@dataclass(frozen=True)
class CaptionedImages:
    """Captions of images, a row each: a source of rows.

    Args:
        images: The images.
        image_of: int64 ``[N]``: the image of each caption, a row of ``images``; several captions
            may be of one.
        texts: N captions; empty once they are tokens.
        tokens: Their tokens; None before they are made.
    """

    images: Images
    image_of: np.ndarray
    texts: Sequence[str]
    tokens: Tokens | None = None

    def __len__(self) -> int:
        return len(self.image_of)

    def name(self, row: int) -> str | None:
        """Return the name of the image of a row.

        Args:
            row: of the caption.
        """
        return self.images.name(int(self.image_of[row]))

    def select(self, rows: np.ndarray) -> CaptionedImages:
        """Return the captions at ``rows`` (int64 ``[N]``), in that order; images stay.

        Args:
            rows: their numbers.

        Raises:
            NotImplementedError: The captions are tokenized already.
        """
        if self.tokens is not None:
            raise NotImplementedError("rows are chosen before their texts are tokenized")
        texts = self.texts
        if isinstance(texts, PackedStrings):
            chosen: Sequence[str] = texts.select(rows)
        else:
            chosen = [texts[row] for row in rows] if texts else ()
        return replace(self, image_of=self.image_of[rows], texts=chosen)

    def outline(self) -> CaptionedImages:
        """Return the captions without texts and tokens: their images still have names."""
        return replace(self, texts=(), tokens=None)

    def read(self, row: int) -> Tensor:
        """Return the image of a row, uint8 ``[3, H, W]``.

        Args:
            row: of the caption.

        Raises:
            CorruptImageError: It cannot be read.
        """
        return self.images.read(int(self.image_of[row]))

    def with_tokens(self, tokens: Tokens) -> CaptionedImages:
        """Return the captions with tokens in place of texts.

        Args:
            tokens: of all captions, in their order.
        """
        return replace(self, texts=(), tokens=tokens)


class _CaptionSet(Served):
    """Captioned images with a transform.

    Args:
        captions: With tokens.
        transform: Maps (uint8 ``[3, H, W]``, seed) to uint8 ``[3, h, w]``.
        width: Tokens per text; None: as many as the longest of a batch has.
        with_others: Draw another image for each row.
        readable: What is read in the place of rows whose image cannot be.
    """

    def __init__(
        self,
        captions: CaptionedImages,
        transform: Callable[[Tensor, int], Tensor],
        width: int | None,
        with_others: bool,
        readable: ReadableRows,
    ) -> None:
        super().__init__(captions)
        self.readable = readable
        self.transform = transform
        self.width = width
        self.with_others = with_others

    def __getitems__(self, keys: Sequence[Key]) -> tuple[dict[str, Tensor], Tensor]:
        rows, seeds = split_keys(keys)
        images, rows = self._images(rows, seeds)
        if self.with_others:
            images += self._images(*_other_images(seeds, len(self)))[0]
        stacked = stack_images(images)
        inputs = {name: values[: len(rows)] for name, values in stacked.items()}
        if self.with_others:
            inputs |= {f"other_{name}": values[len(rows) :] for name, values in stacked.items()}
        return {**inputs, **self.reader.tokens.batch(rows, self.width)}, torch.from_numpy(rows)

    def _images(self, rows: np.ndarray, seeds: np.ndarray) -> tuple[list[Tensor], np.ndarray]:
        """Views, and the rows that they are of."""
        read = [self.readable.read(int(row), self.reader.read, self.reader.name) for row in rows]
        views = [
            self.transform(image, int(seed)) for (image, _), seed in zip(read, seeds, strict=True)
        ]
        return views, np.array([row for _, row in read], dtype=np.int64)


def _other_images(seeds: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows that are drawn for samples, uniformly from ``size``, and the seeds of their views.

    They depend on the seeds of the samples alone, which are functions of (seed, epoch, row).
    """
    rows = uniform(Stream.OTHER_IMAGE, seeds, 0) * size
    return rows.astype(np.int64), sample_seeds(Stream.OTHER_IMAGE, seeds, 1)


class ImageCaptionModule(ImageTextModule):
    """Images with captions.

    A data set gives ``load_rows``, whose source is a ``CaptionedImages``, with the columns
    ``image_number`` (int64, equal for captions of one image) and ``label`` (−1). A batch is
    ``({"images", "input_ids", "attention_mask", "word_ids"}, image numbers)``: images
    ``[B, C, H, W]``, uint8 from the workers and normalised on the device; the others ``[B, L]``:
    ids, mask (1 where a token is) and the tokenizer's number of the word that a token is of (−1 for
    special tokens and padding), int64; image numbers int64 ``[B]``. ``candidates`` (bool: words
    that content or noun-verb maskers prefer), ``unit_ids`` (int64: collocations) and others are
    there where ``word_columns`` has a function for them.

    Where the images of a batch differ in size, they are padded at the right and at the bottom, with
    0 once they are normalised, and ``pixel_mask`` (bool ``[B, H, W]``) is True where one is.

    Args:
        val_size: Training images held out, with all their captions, as validation split. 0: the
            data set's own validation split, or its test split where it has none.
        val_file: List of the training images held out, in place of ``val_size``.
        tagger: Says of the words of a caption, normalised as the tokenizer does, which a masker
            prefers, such as ``lit_ssl.text.ContentWords``; batches then have ``candidates``.
        pmi_vocabulary: File of collocations that ``lit-ssl pmi-vocabulary`` wrote with this
            tokenizer; batches then have ``unit_ids``.
        other_images: Give each row of a training batch a second image, ``other_images`` of the form
            of ``images`` (and ``other_pixel_mask``, wherever there is a ``pixel_mask``): that of a
            row that is drawn uniformly from the split, for matching images with texts as ViLT does.
            It may be the row's own, by chance; it is a function of (seed, epoch, row).
        on_corrupt: "raise" stops at an image that cannot be read; "skip" takes the next caption of
            the split whose image can be, with that image, and warns once per caption.
        kwargs: Arguments of ``ImageTextModule``; "bytes" are no tokenizer here, since they have
            no [MASK]. ``subset`` chooses images, with all their captions.

    Attributes:
        word_columns: Name → function from the words of a caption to a bool or an integer from 0 for
            each; what a data set puts there before ``setup`` is in its batches.

    Raises:
        InputTypeError: ``tagger`` is a class.
        InputError: ``tokenizer`` is that of bytes.
    """

    inputs: ClassVar[str] = "captions"
    carried: ClassVar[tuple[str, ...]] = ("image_number",)
    class_names: ClassVar[Sequence[str]] = ()
    # Captions of one image on both sides would make a validation of what was trained on.
    chosen_by: ClassVar[tuple[str, str] | None] = ("image_number", "images")
    objects: ClassVar[tuple[str, ...]] = ("tagger",)

    def __init__(
        self,
        *,
        other_images: bool = False,
        on_corrupt: Literal["raise", "skip"] = "raise",
        val_size: int = 0,
        val_file: str | None = None,
        tagger: Callable[[Sequence[str]], Sequence[bool]] | None = None,
        pmi_vocabulary: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_choice("on_corrupt", on_corrupt, ("raise", "skip"))
        self.hold_out(val_size, val_file)
        self.other_images = other_images
        self.on_corrupt = on_corrupt
        self._readable: dict[Split, ReadableRows] = {}
        self.pmi_vocabulary = pmi_vocabulary
        self.word_columns: dict[str, WordColumn] = {}
        if isinstance(tagger, type):
            raise InputTypeError(
                f"tagger is the class {tagger.__name__}: give an object of it (class_path and"
                " init_args)"
            )
        if tagger is not None:
            self.word_columns["candidates"] = partial(word_flags, tagger)
        if pmi_vocabulary is not None:
            self.word_columns["unit_ids"] = self._collocations_of
        if self.tokenizer == BYTES:
            raise InputError(
                f"{type(self).__name__} needs words to mask, which bytes do not tell: give"
                " tokenizer a folder, a vocab.txt, or a CorpusWordPiece"
            )

    def tokens_of(self, texts: Sequence[str], max_length: int) -> Tokens:
        """Return the tokens of some captions, longer ones cut, with their words."""
        return tokenize_words(self.text_tokenizer, texts, max_length, self.word_columns)

    def say_found(self, split: Split) -> None:
        """Find the rows of a split, and say once what there is."""
        is_new = split not in self._said
        super().say_found(split)
        if is_new and self.rows(split):
            for line in self.what_is_there(split):
                rank_zero_info(f"{split}: {line}")

    def what_is_there(self, split: Split) -> Iterable[str]:
        """Return what the run is to say of a split that has rows, a text a line.

        Args:
            split: As it is used.
        """
        return [images_with_captions(self.column("image_number", split))]

    def opened(self, rows: Rows, split: Split) -> Rows:
        """Tokenize a split; warn where no word of the training captions is marked."""
        rows = super().opened(rows, split)
        assert isinstance(rows.source, CaptionedImages)
        tokens = rows.source.tokens
        if split != "train" or tokens is None:
            return rows
        extra = tokens.extra
        if "candidates" in extra and not np.any(extra["candidates"] == 1):
            rank_zero_warn(
                f"no word of {len(rows):,} training captions is a candidate, so that maskers of"
                " nouns, verbs or content words mask any words: give another tagger"
            )
        if self.pmi_vocabulary is not None and (
            _runs(extra["unit_ids"]) == _runs(extra["word_ids"])
        ):
            rank_zero_warn(
                f"no collocation of {self.pmi_vocabulary} occurs in {len(rows):,}"
                " training captions, so that PMI masking masks single words: write the file with"
                " this tokenizer, from such captions"
            )
        return rows

    def _collocations_of(self, words: Sequence[str]) -> list[int]:
        return self._collocations.segment(words)

    @cached_property
    def _collocations(self) -> PMIVocabulary:
        assert self.pmi_vocabulary is not None
        return PMIVocabulary.load(Path(self.pmi_vocabulary).expanduser())

    def served(self, split: Split, training: bool = False) -> Dataset:
        """Return a data set that gives batches (images and tokens, rows)."""
        source = self._require(split).source
        assert isinstance(source, CaptionedImages)
        if split not in self._readable:
            skip = self.on_corrupt == "skip"
            self._readable[split] = ReadableRows(len(source), "captions", CorruptImageError, skip)
        return _CaptionSet(
            source,
            self.view(training),
            self.width,
            with_others=training and self.other_images,
            readable=self._readable[split],
        )

    @property
    def num_corrupt(self) -> int:
        """Captions whose image this process has found unreadable so far (``on_corrupt: skip``)."""
        return sum(int(readable.corrupt.sum()) for readable in self._readable.values())


def _runs(numbers: np.ndarray) -> int:
    """How many runs of one number, of numbers from 0, there are."""
    begins = np.diff(numbers, prepend=-1) != 0
    return int((begins & (numbers >= 0)).sum())
