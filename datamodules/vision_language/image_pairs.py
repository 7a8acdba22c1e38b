"""Two images and a text: how they are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lit_ssl.datamodules.loading.batches import Key, Served, split_keys
from lit_ssl.datamodules.reading.decoding import CorruptImageError, read_image
from lit_ssl.datamodules.reading.images import PackedStrings
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.vision_language.image_batches import stack_images
from lit_ssl.datamodules.vision_language.image_text import ImageTextModule
from lit_ssl.seeding import Stream, sample_seeds
from lit_ssl.text.tokens import Tokens

__all__ = ["ArrayPairs", "ImagePairTextModule", "ImagePairs"]


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
        """Return the name of a row.

        Args:
            row: of the pair.
        """
        return self.names[row]

    def select(self, rows: np.ndarray) -> ImagePairs:
        """Return the pairs at ``rows`` (int64 ``[N]``), in that order; no file is read.

        Args:
            rows: their numbers.

        Raises:
            NotImplementedError: The texts are tokenized already.
        """
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

        Args:
            row: of the pair.

        Raises:
            CorruptImageError: One cannot be read.
        """
        return self._image(self.first[row]), self._image(self.second[row])

    def with_tokens(self, tokens: Tokens) -> ImagePairs:
        """Return the pairs with tokens in place of texts.

        Args:
            tokens: of all texts, in their order.
        """
        return replace(self, texts=(), tokens=tokens)

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


@dataclass(frozen=True)
class ArrayPairs:
    """Pairs of images in memory with a text: a source of rows.

    Args:
        pixels: uint8 ``[N, 2, 3, H, W]``.
        texts: N texts; empty once they are tokens.
        tokens: Their tokens; None before they are made.
    """

    pixels: Tensor
    texts: Sequence[str]
    tokens: Tokens | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def name(self, row: int) -> None:
        """Return None: images in memory have no file names.

        Args:
            row: not used.
        """

    def select(self, rows: np.ndarray) -> ArrayPairs:
        """Return the pairs at ``rows`` (int64 ``[N]``), in that order.

        Args:
            rows: their numbers.

        Raises:
            NotImplementedError: The texts are tokenized already.
        """
        if self.tokens is not None:
            raise NotImplementedError("rows are chosen before their texts are tokenized")
        return ArrayPairs(self.pixels[torch.from_numpy(rows)], [self.texts[row] for row in rows])

    def read(self, row: int) -> tuple[Tensor, Tensor]:
        """Return both images of a row, uint8 ``[3, H, W]`` each.

        Args:
            row: of the pair.
        """
        first, second = self.pixels[row]
        return first, second

    def with_tokens(self, tokens: Tokens) -> ArrayPairs:
        """Return the pairs with tokens in place of texts.

        Args:
            tokens: of all texts, in their order.
        """
        return replace(self, texts=(), tokens=tokens)


class _PairSet(Served):
    """Pairs with a transform of each image.

    Args:
        pairs: ``ImagePairs`` or ``ArrayPairs``, with tokens.
        transform: Maps (uint8 ``[3, H, W]``, seed) to uint8 ``[3, h, w]``.
        width: Tokens per text; None: as many as the longest of a batch has.
    """

    def __init__(
        self, pairs: Any, transform: Callable[[Tensor, int], Tensor], width: int | None
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
            images += [self.transform(image, int(seed)) for image, seed in pair]
        stacked = stack_images(images)
        pairs = {name: values.unflatten(0, (len(rows), 2)) for name, values in stacked.items()}
        text = self.reader.tokens.batch(rows, self.width)
        return {**pairs, **text}, torch.from_numpy(rows)


class ImagePairTextModule(ImageTextModule):
    """Labelled pairs of images with a text.

    A data set gives ``load_rows``, whose source is an ``ImagePairs`` or ``ArrayPairs``, and
    ``class_names``. A batch is ``({"images", "input_ids", "attention_mask"}, labels)``: images
    ``[B, 2, C, H, W]``, uint8 from the workers and normalised on the device, ids and mask int64
    ``[B, L]``, mask 1 where a token is. Where the images of a batch differ in size, they are padded
    at the right and at the bottom, with 0 once they are normalised, and ``pixel_mask`` (bool
    ``[B, 2, H, W]``) is True where one is.

    Its arguments are those of ``ImageTextModule``.
    """

    def served(self, split: Split, training: bool = False) -> Dataset:
        """Return a data set that gives batches (images and tokens, rows)."""
        return _PairSet(self._require(split).source, self.view(training), self.width)
