"""Images with a text: their tokens, their transforms, and what is done on the device."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, cast

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor

from lit_ssl.datamodules.loading.resumable import RowsLoader
from lit_ssl.datamodules.loading.rows_module import RowsModule
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.selection.subset import Subset
from lit_ssl.datamodules.vision_language.image_batches import normalize_images
from lit_ssl.datamodules.vision_language.image_views import (
    View,
    WithoutSeed,
    check_view,
    evaluation_transform,
)
from lit_ssl.errors import InputError, check_choice
from lit_ssl.text.byte_tokens import BYTE_VOCABULARY, byte_tokens
from lit_ssl.text.corpus_wordpiece import CorpusWordPiece
from lit_ssl.text.tokens import Tokens, load_tokenizer, mask_token_id, tokenize
from lit_ssl.text.wordpiece import tokenizer_of_pieces
from lit_ssl.trainer.hparams import not_plain
from lit_ssl.transforms import EvalTransform, ImageView, KeepAspect, SingleView

__all__ = ["BYTES", "ImageTextModule", "TextSource"]

BYTES = "bytes"
_PIECES = "of the pieces that were given"


class TextSource(Protocol):
    """Rows with a text each, besides their images."""

    texts: Sequence[str]

    def __len__(self) -> int: ...

    def name(self, row: int) -> str | None:
        """Return the name of a row.

        Args:
            row: its number.
        """

    def select(self, rows: np.ndarray) -> TextSource:
        """Return some rows.

        Args:
            rows: their numbers, int64 ``[N]``, in the order that is wanted.
        """

    def with_tokens(self, tokens: Tokens) -> TextSource:
        """Return the rows with tokens in place of texts.

        Args:
            tokens: of all texts, in their order.
        """


class ImageTextModule(RowsModule):
    """Rows of images with a text.

    A data set gives ``load_rows``, whose source is a ``TextSource``, and ``class_names``; a kind of
    row gives ``served``. All texts of a split are tokenized once, in ``setup``, and kept in memory.

    Args:
        tokenizer: "bytes": ids are the bytes of the text, 256 is padding. Else a folder with a
            pretrained tokenizer (or model) that transformers can read, or a vocabulary of BERT's
            (``vocab.txt``); nothing is downloaded. Or a ``CorpusWordPiece``: a vocabulary trained
            on the texts of the official training set, before any hold-out, and kept in its folder.
            Or the pieces of a vocabulary of BERT's.
        max_length: Longest text in tokens; longer ones are cut, and a warning says how many.
        padding: "longest" fills a batch up to its longest text; "max_length" always to
            ``max_length``, for compiled models.
        train_transform: View of each training image, each by itself: ``KeepAspectRandAugment``
            (ViLT), ``CenterCropRandAugment`` (METER), ``SingleView``, or any function of an image
            and a seed; None: as ``eval_transform``. Texts may speak of left and right, which a
            horizontal flip falsifies, and of colours: a warning says so.
        eval_transform: Transform of all other images: ``EvalTransform``, or ``KeepAspect`` for
            networks that read padding, such as ViLT. None: what ``train_transform`` resizes
            images by, where it is one of the first two; else the shorter side is resized to
            ``image_size`` and the centre cut out, as CLIP does.
        image_size: Height and width of evaluation images, where ``eval_transform`` comes from it.
        mean: Mean of each channel for images in [0, 1]; ImageNet's, unless given.
        std: Standard deviation of each channel; ImageNet's, unless given.
        batch_size: Pairs per batch and process.
        num_workers: Worker processes per loader.
        seed: Seed of the order and of the views, the same on all processes. None takes the one of
            ``seed_everything`` (``PL_GLOBAL_SEED``), or else 0.
        pin_memory: Copy batches to page-locked memory. None does so where CUDA is available.
        prefetch_factor: Batches that each worker has ready in memory, at least 1. None: 2. Only
            with workers.
        drop_last: Leave out the last, smaller batch of a training epoch, unless it is the only one.
        subset: Train on a part of the training rows only.

    Attributes:
        num_classes: Number of classes.
        class_names: Their names, in the order of the labels.
        vocab_size: Number of different ids, the padding included.
        mean: Mean of each channel.
        std: Standard deviation of each channel.
        image_size: Height and width of images after the evaluation transform; the shorter one,
            where images keep their form.

    Raises:
        InputError: ``max_length`` is below 1.
    """

    inputs: ClassVar[str] = "examples"
    in_channels = 3
    # Arguments of a subclass that are objects, which no checkpoint can hold.
    objects: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        *,
        tokenizer: str | CorpusWordPiece | Sequence[str],
        max_length: int = 64,
        padding: Literal["longest", "max_length"] = "longest",
        train_transform: SingleView | ImageView | None = None,
        eval_transform: EvalTransform | KeepAspect | None = None,
        image_size: int = 224,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        batch_size: int = 32,
        num_workers: int = 4,
        seed: int | None = None,
        pin_memory: bool | None = None,
        prefetch_factor: int | None = None,
        drop_last: bool = True,
        subset: Subset | None = None,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            pin_memory=pin_memory,
            prefetch_factor=prefetch_factor,
            drop_last=drop_last,
            subset=subset,
        )
        self.save_hyperparameters(
            logger=False,
            ignore=not_plain(
                tokenizer=tokenizer,
                train_transform=train_transform,
                eval_transform=eval_transform,
                subset=subset,
                **dict.fromkeys(self.objects, self),
            ),
        )
        check_choice("padding", padding, ("longest", "max_length"))
        if max_length < 1:
            raise InputError(f"max_length must be at least 1, got {max_length}")
        if train_transform is not None:
            check_view(train_transform, type(self).__name__)
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.padding = padding
        self._longest = 0
        self.train_transform = train_transform
        self.eval_transform = evaluation_transform(eval_transform, train_transform, image_size)
        self.image_size = self.eval_transform.size
        self.mean, self.std = tuple(mean), tuple(std)

    def prepare_data(self) -> None:
        """Train the vocabulary, if one is asked for and not there yet."""
        if isinstance(self.tokenizer, CorpusWordPiece):
            _ = self._trained_vocabulary

    @cached_property
    def text_tokenizer(self) -> Any:
        """The tokenizer of transformers; None for bytes. It is read, or trained, on first use.

        Raises:
            InputError: There is none, or no word fits beside its special tokens.
        """
        tokenizer = self._found_tokenizer()
        special = 0 if tokenizer is None else tokenizer.num_special_tokens_to_add()
        if self.max_length <= special:
            raise InputError(
                f"max_length is {self.max_length} tokens, but the tokenizer adds {special} special"
                " ones to each text, so that no word is left: set it higher"
            )
        return tokenizer

    def _found_tokenizer(self) -> Any:
        if isinstance(self.tokenizer, CorpusWordPiece):
            return load_tokenizer(str(self._trained_vocabulary))
        if not isinstance(self.tokenizer, str):
            return tokenizer_of_pieces(self.tokenizer, _PIECES)
        if self.tokenizer == BYTES:
            return None
        return load_tokenizer(os.path.expanduser(self.tokenizer))

    @property
    def vocab_size(self) -> int:
        """Number of different ids, the padding included; it reads the tokenizer."""
        return BYTE_VOCABULARY if self.text_tokenizer is None else len(self.text_tokenizer)

    @property
    def mask_id(self) -> int:
        """Id of [MASK]; it reads the tokenizer.

        Raises:
            InputError: There is none.
        """
        if self.text_tokenizer is None:
            raise InputError(
                "bytes have no [MASK], which masked language modelling needs: give tokenizer a"
                " folder, a vocab.txt, or a CorpusWordPiece"
            )
        name = self.tokenizer if isinstance(self.tokenizer, str) else _PIECES
        return mask_token_id(self.text_tokenizer, name)

    def opened(self, rows: Rows, split: Split) -> Rows:
        """Tokenize the texts of a split."""
        source = cast(TextSource, rows.source)
        tokens = self.tokens_of(source.texts, self.max_length)
        self._longest = max(self._longest, int(np.diff(tokens.starts).max(initial=0)))
        longest = np.flatnonzero(np.diff(tokens.starts) == self.max_length).tolist()
        # One token more tells, of a text however long.
        whole = self.tokens_of([source.texts[row] for row in longest], self.max_length + 1)
        cut = int((np.diff(whole.starts) > self.max_length).sum())
        if cut:
            rank_zero_warn(
                f"{split}: {cut:,} of {len(source):,} texts are longer than max_length ="
                f" {self.max_length} tokens, and are cut"
            )
        # Of single texts, types say nothing.
        return Rows(source.with_tokens(tokens._replace(types=None)), rows.columns)

    def evaluation_loader(
        self, split: Split, keep_workers: bool = False, positions: np.ndarray | None = None
    ) -> RowsLoader:
        """Return a loader of a split, or of some of its rows, in order, over all processes.

        Args:
            split: Which.
            keep_workers: Let workers live between passes.
            positions: int64, the rows to serve; None: all.

        Raises:
            InputError: There are fewer rows than processes; one without any would let the others
                wait for what it has to log.
        """
        processes, _ = self.shard()
        count = len(self._require(split) if positions is None else positions)
        if count < processes:
            raise InputError(
                f"{split}: {count} {self.inputs} cannot be shared out to {processes} processes: use"
                f" at most {count}"
            )
        return super().evaluation_loader(split, keep_workers, positions)

    def tokens_of(self, texts: Sequence[str], max_length: int) -> Tokens:
        """Return the tokens of some texts, longer ones cut.

        Args:
            texts: as they are written; bytes are their tokens where there is no ``text_tokenizer``.
            max_length: in tokens, special ones included.
        """
        if self.text_tokenizer is None:
            return byte_tokens(texts, max_length)
        return tokenize(self.text_tokenizer, texts, None, max_length)

    def encode(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return any texts as those of a batch: ``[N, L]`` each.

        Args:
            texts: N texts.
        """
        tokens = self.tokens_of(texts, self.max_length)._replace(types=None)
        return tokens.batch(np.arange(len(texts)), self.width)

    @property
    def longest_text(self) -> int:
        """Most tokens that a text has in a batch, of the splits that were opened so far."""
        return self.width or self._longest

    @property
    def width(self) -> int | None:
        """Tokens per text of a batch; None: as many as its longest has."""
        return self.max_length if self.padding == "max_length" else None

    def view(self, training: bool) -> View:
        """Return what is done with each image, a function of the image and a seed.

        Args:
            training: whether it is for training; the others are transformed without chance.
        """
        recipe = self.train_transform if training else None
        return WithoutSeed(self.eval_transform) if recipe is None else recipe

    @cached_property
    def _trained_vocabulary(self) -> Path:
        # Kept: the texts may take minutes to read.
        assert isinstance(self.tokenizer, CorpusWordPiece)
        rows = self.load_rows("train")
        if not rows:
            raise InputError(
                f"The training split has no {self.inputs}, and a CorpusWordPiece is trained on its"
                " texts"
            )
        path = self.tokenizer.vocabulary(cast(TextSource, rows.source).texts)
        rank_zero_info(f"The vocabulary of the training texts is {path}")
        return path

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Scale images to [0, 1] and normalise them, if they are uint8; padding becomes 0.

        Args:
            batch: (inputs, labels).
            dataloader_idx: Index of the loader, unused.
        """
        inputs, *targets = batch

        def convert(images: Tensor) -> Tensor:
            # Lightning has converted the batch already, while it was uint8.
            trainer = self.trainer
            return images if trainer is None else trainer.precision_plugin.convert_input(images)

        return normalize_images(inputs, self.mean, self.std, convert), *targets
