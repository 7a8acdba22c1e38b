"""Two images and a text: how they are read, and what is done on the device."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils.data import Dataset

from lit_ssl.datamodules.loading.batches import Key, Served, split_keys
from lit_ssl.datamodules.loading.rows_module import RowsModule
from lit_ssl.datamodules.reading.decoding import CorruptImageError, read_image
from lit_ssl.datamodules.reading.images import PackedStrings
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.selection.subset import Subset
from lit_ssl.errors import InputError, InputTypeError, check_choice
from lit_ssl.seeding import Stream, sample_seeds
from lit_ssl.text.byte_tokens import BYTE_VOCABULARY, byte_tokens
from lit_ssl.text.tokens import Tokens, load_tokenizer, tokenize
from lit_ssl.trainer.hparams import not_plain
from lit_ssl.transforms import EvalTransform, SingleView, normalize

__all__ = ["ImagePairTextModule", "ImagePairs"]

_BYTES = "bytes"
_NO_LIMIT = 2**30  # tokens


@dataclass(frozen=True)
class ImagePairs:
    """Pairs of image files with a text: a source of rows.

    Args:
        folder: Folder of the images.
        first: N paths of the first images below it, with ``/``.
        second: N paths of the second images.
        texts: N texts; empty once they are tokens.
        names: What lists may call the rows; N names.
        tokens: Their tokens; None before they are made.
    """

    folder: str
    first: PackedStrings
    second: PackedStrings
    texts: Sequence[str]
    names: PackedStrings
    tokens: Tokens | None = None

    def __len__(self) -> int:
        return len(self.names)

    def name(self, row: int) -> str:
        """Return the name of a row."""
        return self.names[row]

    def select(self, rows: np.ndarray) -> ImagePairs:
        """Return the pairs at ``rows`` (int64 ``[N]``), in that order; no file is read."""
        if self.tokens is not None:
            raise NotImplementedError("rows are chosen before their texts are tokenized")
        return ImagePairs(
            self.folder,
            self.first.select(rows),
            self.second.select(rows),
            [self.texts[row] for row in rows],
            self.names.select(rows),
        )

    def read(self, row: int) -> tuple[Tensor, Tensor]:
        """Return both images of a row, uint8 ``[3, H, W]`` each, which may differ in size.

        Files are opened by what is in them, whatever their names end in.

        Raises:
            CorruptImageError: One cannot be read.
        """
        return self._image(self.first[row]), self._image(self.second[row])

    def _image(self, name: str) -> Tensor:
        path = os.path.join(self.folder, name)
        try:
            return read_image(path)
        except CorruptImageError as error:
            why = error.__cause__ or error
            raise CorruptImageError(
                f"Cannot read the image {path} ({type(why).__name__}: {why}). Fetch the file again;"
                " or delete it and set missing_images: skip to leave out its rows"
            ) from error


class _PairSet(Served):
    """Pairs with a transform of each image.

    Args:
        pairs: The pairs, with tokens.
        transform: Maps (uint8 ``[3, H, W]``, seed) to uint8 ``[3, h, w]``.
        width: Tokens per text; None: as many as the longest of a batch has.
    """

    def __init__(
        self, pairs: ImagePairs, transform: Callable[[Tensor, int], Tensor], width: int | None
    ) -> None:
        super().__init__(pairs)
        self.transform = transform
        self.width = width

    def __getitems__(self, keys: Sequence[Key]) -> tuple[dict[str, Tensor], Tensor]:
        rows, seeds = split_keys(keys)
        images = []
        # Each image of a pair is distorted by itself, as two photographs would differ.
        for row, *both in zip(rows, seeds, sample_seeds(Stream.SECOND_IMAGE, seeds), strict=True):
            pair = zip(self.reader.read(int(row)), both, strict=True)
            images.append(torch.stack([self.transform(image, int(seed)) for image, seed in pair]))
        text = self.reader.tokens.batch(rows, self.width)
        return {"images": torch.stack(images), **text}, torch.from_numpy(rows)


class _WithoutSeed:
    """An evaluation transform where a seed is given too."""

    def __init__(self, transform: EvalTransform) -> None:
        self.transform = transform

    def __call__(self, image: Tensor, seed: int) -> Tensor:
        return self.transform(image)


class ImagePairTextModule(RowsModule):
    """Labelled pairs of images with a text.

    A data set gives ``load_rows``, whose source is an ``ImagePairs``, and ``class_names``. A batch
    is ``({"images", "input_ids", "attention_mask"}, labels)``: images ``[B, 2, C, H, W]``, uint8
    from the workers and normalised on the device, ids and mask int64 ``[B, L]``, mask 1 where a
    token is. All texts of a split are tokenized once, in ``setup``, and kept in memory.

    Args:
        tokenizer: "bytes": ids are the bytes of the text, 256 is padding. Else a folder with a
            pretrained tokenizer (or model) that transformers can read, or a vocabulary of BERT's
            (``vocab.txt``); nothing is downloaded.
        max_length: Longest text in tokens; longer ones are cut, and a warning says how many.
        padding: "longest" fills a batch up to its longest text; "max_length" always to
            ``max_length``, for compiled models.
        train_transform: Random view of each training image, each by itself; None: none. Texts may
            speak of left and right, which a horizontal flip falsifies.
        eval_transform: Transform of all other images. None resizes the shorter side to
            ``image_size`` and cuts out the centre, as CLIP does.
        image_size: Height and width of evaluation images.
        mean: Mean of each channel for images in [0, 1]; ImageNet's, unless given.
        std: Standard deviation of each channel; ImageNet's, unless given.
        batch_size: Pairs per batch and process.
        num_workers: Worker processes per loader.
        seed: Seed of the order and of the views, the same on all processes. None takes the one of
            ``seed_everything`` (``PL_GLOBAL_SEED``), or else 0.
        pin_memory: Copy batches to page-locked memory. None does so where CUDA is available.
        drop_last: Leave out the last, smaller batch of a training epoch, unless it is the only one.
        subset: Train on a part of the training rows only.

    Attributes:
        num_classes: Number of classes.
        class_names: Their names, in the order of the labels.
        vocab_size: Number of different ids, the padding included.
        mean: Mean of each channel.
        std: Standard deviation of each channel.
        image_size: Height and width of images after the evaluation transform.
    """

    inputs: ClassVar[str] = "examples"
    in_channels = 3

    def __init__(
        self,
        *,
        tokenizer: str,
        max_length: int = 64,
        padding: Literal["longest", "max_length"] = "longest",
        train_transform: SingleView | None = None,
        eval_transform: EvalTransform | None = None,
        image_size: int = 224,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        batch_size: int = 32,
        num_workers: int = 4,
        seed: int | None = None,
        pin_memory: bool | None = None,
        drop_last: bool = True,
        subset: Subset | None = None,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            pin_memory=pin_memory,
            drop_last=drop_last,
            subset=subset,
        )
        self.save_hyperparameters(
            logger=False,
            ignore=not_plain(
                train_transform=train_transform, eval_transform=eval_transform, subset=subset
            ),
        )
        check_choice("padding", padding, ("longest", "max_length"))
        if max_length < 1:
            raise InputError(f"max_length must be at least 1, got {max_length}")
        if train_transform is not None and not isinstance(train_transform, SingleView):
            raise InputTypeError(
                f"{type(self).__name__} makes one view of each image: give train_transform a"
                f" SingleView, not {type(train_transform).__name__}"
            )
        if train_transform is not None and train_transform.crop.hflip > 0:
            rank_zero_warn(
                "train_transform flips images (hflip), which makes texts about left and right"
                " wrong: set hflip to 0 unless there are none"
            )
        self.tokenizer = tokenizer if tokenizer == _BYTES else os.path.expanduser(tokenizer)
        self.max_length = max_length
        self.padding = padding
        self.train_transform = train_transform
        self.eval_transform = eval_transform or EvalTransform(image_size)
        self.image_size = self.eval_transform.size
        self.mean, self.std = tuple(mean), tuple(std)

    @property
    def vocab_size(self) -> int:
        """Number of different ids, the padding included; it reads the tokenizer."""
        return BYTE_VOCABULARY if self.tokenizer == _BYTES else len(load_tokenizer(self.tokenizer))

    def opened(self, rows: Rows, split: Split) -> Rows:
        """Tokenize the texts of a split."""
        pairs = rows.source
        assert isinstance(pairs, ImagePairs)
        tokens = self._tokenized(pairs.texts, self.max_length)
        longest = np.flatnonzero(np.diff(tokens.starts) == self.max_length).tolist()
        whole = self._tokenized([pairs.texts[row] for row in longest], _NO_LIMIT)
        cut = int((np.diff(whole.starts) > self.max_length).sum())
        if cut:
            rank_zero_warn(
                f"{split}: {cut:,} of {len(pairs):,} texts are longer than max_length ="
                f" {self.max_length} tokens, and are cut"
            )
        # Of single texts, types say nothing.
        return Rows(replace(pairs, texts=(), tokens=tokens._replace(types=None)), rows.columns)

    def _tokenized(self, texts: Sequence[str], max_length: int) -> Tokens:
        if self.tokenizer == _BYTES:
            return byte_tokens(texts, max_length)
        return tokenize(load_tokenizer(self.tokenizer), texts, None, max_length)

    def served(self, split: Split, training: bool = False) -> Dataset:
        """Return a data set that gives batches (images and tokens, rows)."""
        pairs = self._require(split).source
        assert isinstance(pairs, ImagePairs)
        recipe = self.train_transform if training else None
        transform = _WithoutSeed(self.eval_transform) if recipe is None else recipe
        width = self.max_length if self.padding == "max_length" else None
        return _PairSet(pairs, transform, width)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Scale images to [0, 1] and normalise them, if they are uint8.

        Args:
            batch: (inputs, labels).
            dataloader_idx: Index of the loader, unused.
        """
        inputs, *targets = batch
        if inputs["images"].dtype != torch.uint8:
            return batch
        images = normalize(inputs["images"], self.mean, self.std)
        if self.trainer is not None:
            # Lightning has converted the batch already, while it was uint8.
            images = self.trainer.precision_plugin.convert_input(images)
        return {**inputs, "images": images}, *targets
