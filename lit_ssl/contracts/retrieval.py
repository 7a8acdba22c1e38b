"""What retrieval between images and texts asks of a data module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import lightning.pytorch as pl
from torch import Tensor

from lit_ssl.contracts.batches import describe, parts_of
from lit_ssl.contracts.data import data_source
from lit_ssl.errors import InputAttributeError, InputError

__all__ = [
    "RetrievalData",
    "RetrievalTexts",
    "image_batch",
    "texts_with_negatives",
    "to_be_searched",
]

_USE = "use RetrievalDataModule, DigitScenesRetrievalDataModule or another one with"


class RetrievalTexts(NamedTuple):
    """All texts of a split, each to be compared with all of its images.

    Attributes:
        inputs: ``input_ids`` and ``attention_mask``, int64 ``[T, L]``, on the CPU.
        image_numbers: The image of each text, int64 ``[T]``.
    """

    inputs: dict[str, Tensor]
    image_numbers: Tensor


@runtime_checkable
class RetrievalData(Protocol):
    """A data module whose images and texts are searched.

    Its loaders for validation and test are those of ``retrieval_images``. Training batches are
    those of images with captions and, beside them, ``negative_input_ids`` and
    ``negative_attention_mask``, int64 ``[B, K, L]``: K texts of other images for each row.
    """

    def retrieval_images(self, split: Any) -> Iterable[Any]:
        """Return batches ``({"images", …}, image numbers)``: images that have a text, each once.

        Over all processes together; a process may have more batches than another.

        Args:
            split: ``val`` or ``test``.
        """

    def retrieval_texts(self, split: Any) -> RetrievalTexts:
        """Return all texts of these images, the same on every process.

        Args:
            split: ``val`` or ``test``.
        """


def to_be_searched(trainer: pl.Trainer, split: str) -> RetrievalTexts:
    """All texts of a split, as the data module gives them.

    Args:
        trainer: The running trainer.
        split: ``val`` or ``test``.

    Raises:
        AttributeError: The data module has none.
    """
    source = data_source(trainer)
    if not isinstance(source, RetrievalData):
        kind = "module" if isinstance(source, pl.LightningModule) else "data module"
        raise InputAttributeError(
            f"needs images and texts to compare, which {kind} {type(source).__name__} does not "
            f"give: {_USE} retrieval_images(split) and retrieval_texts(split)"
        )
    return source.retrieval_texts(split)


def image_batch(batch: Any) -> tuple[Mapping[str, Tensor], Tensor]:
    """Images and their numbers ``[B]`` of a batch of images to be compared with texts.

    Args:
        batch: what a loader gave.

    Raises:
        ValueError: It is another kind of batch, such as one of images with their captions.
    """
    inputs, numbers, _ = parts_of(batch)
    if not isinstance(inputs, dict) or numbers is None or "images" not in inputs:
        raise InputError(f"needs batches of images and their numbers, got {describe(batch)}")
    if "input_ids" in inputs:
        raise InputError(
            "needs batches of images alone, each once, to compare them with all texts; these have "
            f"captions: {_USE} retrieval_images(split)"
        )
    return inputs, numbers


def texts_with_negatives(batch: Any) -> Mapping[str, Tensor]:
    """The inputs of a training batch: images, their own texts, and texts of other images.

    Args:
        batch: what a loader gave.

    Returns:
        Images ``[B, C, H, W]``, ``input_ids`` ``[B, L]``, ``negative_input_ids`` ``[B, K, L]`` and
        what goes with them, by name.

    Raises:
        ValueError: It is another kind of batch.
    """
    inputs = parts_of(batch).inputs
    if isinstance(inputs, dict) and {"images", "input_ids", "negative_input_ids"} <= set(inputs):
        return inputs
    found = sorted(inputs) if isinstance(inputs, dict) else describe(batch)
    raise InputError(
        "trains on images, their own texts and texts of other images (images, input_ids, "
        f"negative_input_ids, …), got {found}: {_USE} num_negatives"
    )
