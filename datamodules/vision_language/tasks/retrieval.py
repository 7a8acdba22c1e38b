"""Images and texts to be found by each other: training with other texts, all pairs compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lit_ssl.contracts.retrieval import RetrievalTexts
from lit_ssl.datamodules.loading.batches import Key, Served, split_keys
from lit_ssl.datamodules.loading.resumable import RowsLoader
from lit_ssl.datamodules.reading.decoding import CorruptImageError
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.vision_language.caption_source import CaptionSource
from lit_ssl.datamodules.vision_language.image_captions import CaptionedImages, ImageCaptionModule
from lit_ssl.datamodules.vision_language.tasks.negative_texts import NegativeTexts
from lit_ssl.errors import InputError
from lit_ssl.seeding import keyed_permutation
from lit_ssl.text.tokens import Tokens
from lit_ssl.trainer.hparams import not_plain

__all__ = ["RetrievalDataModule", "RetrievalModule"]

_TEXT = ("input_ids", "attention_mask")
_OF_IMAGES = ("images", "pixel_mask")
# Which images are searched must not depend on the seed of a run, else runs cannot be compared.
_CHOICE_SEED = 0


class _WithNegatives(Served):
    """Captioned images, and for each row texts of other images.

    Args:
        pairs: Gives batches (images and tokens, rows).
        tokens: Of all rows.
        negatives: Draws the other texts.
        width: Tokens per text; None: as many as the longest has.
    """

    def __init__(
        self, pairs: Any, tokens: Tokens, negatives: NegativeTexts, width: int | None
    ) -> None:
        super().__init__(pairs.reader)
        self.pairs = pairs
        self.tokens = tokens._replace(extra={})
        self.negatives = negatives
        self.width = width

    def __getitems__(self, keys: Sequence[Key]) -> tuple[dict[str, Tensor], Tensor]:
        inputs, rows = self.pairs.__getitems__(keys)
        # Of the rows that were read, which on_corrupt may have put in the place of others.
        drawn = self.negatives.draw(rows.numpy(), split_keys(keys)[1])
        texts = self.tokens.batch(drawn.flatten(), self.width)
        others = {f"negative_{name}": texts[name].unflatten(0, drawn.shape) for name in _TEXT}
        return {**inputs, **others}, rows


class _ImagesAlone(Served):
    """Images without their captions, each once.

    Args:
        pairs: Gives batches (images and tokens, rows).
        rows: int64 ``[I]``: a row of each image.
    """

    def __init__(self, pairs: Any, rows: np.ndarray) -> None:
        super().__init__(pairs.reader)
        self.pairs = pairs
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, keys: Sequence[Key]) -> tuple[dict[str, Tensor], Tensor]:
        places, _ = split_keys(keys)
        wanted = self.rows[places]
        inputs, read = self.pairs.__getitems__(wanted.tolist())
        if len(other := wanted[read.numpy() != wanted]):
            raise CorruptImageError(
                f"The image {self.reader.name(int(other[0]))} cannot be read, and no other one can"
                " be searched in its place (on_corrupt: skip is for training): fetch it again, or"
                " leave out its captions"
            )
        return {k: inputs[k] for k in _OF_IMAGES if k in inputs}, torch.from_numpy(places)


class RetrievalModule(ImageCaptionModule):
    """Images with captions that are found by each other.

    Training batches have ``negative_input_ids`` and ``negative_attention_mask`` too, int64
    ``[B, num_negatives, L]``. Validation and test batches are ``({"images", …}, image numbers)``,
    each image once; the texts to compare them with come from ``retrieval_texts``. An image without
    a caption is in neither.

    Args:
        num_negatives: K, captions of other images per training row.
        max_images: Validate on so many images and their captions only, the same in every run; None:
            all. Recall is higher among fewer.
        kwargs: Arguments of ``ImageCaptionModule``. An image that cannot be read stops an
            evaluation even where ``on_corrupt`` is "skip".

    Raises:
        InputError: A number is below 1, or ``other_images`` is set.
    """

    def __init__(
        self, *, num_negatives: int = 15, max_images: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if num_negatives < 1:
            raise InputError(f"num_negatives must be at least 1, got {num_negatives}")
        if max_images is not None and max_images < 1:
            raise InputError(f"max_images must be at least 1, or null, got {max_images}")
        if self.other_images:
            raise InputError(
                f"{type(self).__name__} compares images with other texts, not texts with other"
                " images: leave out other_images"
            )
        self.num_negatives = num_negatives
        self.max_images = max_images

    def setup(self, stage: str | None = None) -> None:
        """Find the rows of a stage; make sure that there are enough texts of other images."""
        super().setup(stage)
        if stage in ("fit", None):
            _ = self._negatives()
        if stage in ("fit", "validate", None) and self.rows("val"):
            all_images, chosen = len(np.unique(self._numbers("val"))), len(self._images("val"))
            if chosen < all_images:
                rank_zero_info(
                    f"val: {chosen:,} of {all_images:,} images are searched, which is easier than"
                    " all (max_images)"
                )

    def served(self, split: Split, training: bool = False) -> Dataset:
        """Return a data set that gives batches (images and tokens, rows)."""
        pairs = super().served(split, training)
        if not training:
            return pairs
        return _WithNegatives(pairs, self._tokens(split), self._negatives(), self.width)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """Return the images to search; an empty list if there are no rows for it."""
        return self.retrieval_images("val", keep_workers=True) if self.rows("val") else []

    def test_dataloader(self) -> DataLoader:
        """Return the images to search; of validation where there is no test split."""
        return self.retrieval_images("test")

    def retrieval_images(self, split: Split, keep_workers: bool = False) -> RowsLoader:
        """Return batches ``({"images", …}, image numbers)``, each image once.

        With several processes, image ``i`` of the loader on process ``r`` of ``W`` is image
        ``r + i * W``; nothing is padded.

        Args:
            split: The images of which split.
            keep_workers: Let workers live between passes.

        Raises:
            InputError: There are no images, or fewer than processes.
        """
        images = _ImagesAlone(self.served(split), self._images(split))
        processes, _ = self.shard()
        if len(images) < processes:
            raise InputError(
                f"{split}: {len(images)} images cannot be shared out to {processes} processes: use"
                f" at most {len(images)}"
            )
        return self.loader_in_order(images, partial(self._image_targets, split), keep_workers)

    def retrieval_texts(self, split: Split) -> RetrievalTexts:
        """Return the texts of these images.

        Args:
            split: The texts of which split.

        Returns:
            ``input_ids`` and ``attention_mask``, int64 ``[T, L]``, and the number of the image of
            each text, int64 ``[T]``; T is 0 without such a split.
        """
        numbers = self._numbers(split)
        rows = np.flatnonzero(np.isin(numbers, numbers[self._images(split)]))
        if not len(rows):
            nothing = torch.empty(0, 0, dtype=torch.int64)
            return RetrievalTexts(dict.fromkeys(_TEXT, nothing), torch.empty(0, dtype=torch.int64))
        tokens = self._tokens(split).batch(rows, self.width)
        return RetrievalTexts({k: tokens[k] for k in _TEXT}, torch.from_numpy(numbers[rows]))

    def _images(self, split: Split) -> np.ndarray:
        """The first row of each image that is searched, in their order."""
        numbers = self._numbers(split)
        rows = np.sort(np.unique(numbers, return_index=True)[1])
        if split != "val" or self.max_images is None or len(rows) <= self.max_images:
            return rows
        chosen = keyed_permutation(len(rows), _CHOICE_SEED)[: self.max_images]
        return rows[np.sort(chosen)]

    def _image_targets(self, split: Split) -> tuple[np.ndarray, ...]:
        return (self._numbers(split)[self._images(split)],)

    def _tokens(self, split: Split) -> Tokens:
        source = self._require(split).source
        assert isinstance(source, CaptionedImages)
        assert source.tokens is not None
        return source.tokens

    def _numbers(self, split: Split) -> np.ndarray:
        return cast(np.ndarray, self.column("image_number", split))

    def _negatives(self) -> NegativeTexts:
        return NegativeTexts(self._numbers("train"), self.num_negatives)


class RetrievalDataModule(RetrievalModule):
    """Images with captions of any source, to be found by each other.

    Each training row comes with its image, its caption and ``num_negatives`` different captions of
    other images, drawn uniformly and anew in each epoch: a function of (seed, epoch, row). Two
    images may have the same words as caption, and one is then a negative of the other.

    In evaluation every image is compared with every text of the split, whose number is the product
    of both: 125 million pairs for the 5,000 images of COCO's test, which always is complete.

    Args:
        source: Where images and captions are.
        kwargs: Arguments of ``RetrievalModule`` (num_negatives, max_images) and
            ``ImageCaptionModule``.

    Source: training as in ViLT (arXiv 2102.03334), whose other texts may be of the same image.
    """

    def __init__(self, source: CaptionSource, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in not_plain(source=source):
            self.hparams.pop(name, None)  # else no checkpoint could be read
        self.source = source

    def load_rows(self, split: Split) -> Rows | None:
        """Return the captions of a split of the source; None if it has no such split."""
        return self.source.load_rows(split)

    def what_is_there(self, split: Split) -> Iterable[str]:
        """Say what the source has."""
        return [f"{self.source.name}, {found}" for found in super().what_is_there(split)]
