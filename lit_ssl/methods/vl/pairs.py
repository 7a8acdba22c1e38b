"""Batches of images with captions: taken apart, put together, images exchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lit_ssl.contracts.batches import parts_of
from lit_ssl.errors import InputTypeError
from lit_ssl.losses.matching import Matching
from lit_ssl.losses.mlm import IGNORED
from lit_ssl.models.vl.output import EmbeddedImages

__all__ = ["exchanged", "joined", "pair_inputs", "with_images", "with_others"]

_TEXT = ("input_ids", "attention_mask", "word_ids")


def pair_inputs(batch: Any) -> tuple[Mapping[str, Tensor], Tensor | None]:
    """Inputs of a batch of captions, and the numbers of their images (None: not known).

    Args:
        batch: (inputs, image numbers), or inputs alone.

    Raises:
        InputTypeError: if it is of another form.
    """
    parts = parts_of(batch)
    inputs = batch if isinstance(batch, dict) else parts.inputs
    missing = [name for name in _TEXT if not isinstance(inputs, dict) or name not in inputs]
    if missing:
        found = sorted(inputs) if isinstance(inputs, dict) else type(inputs).__name__
        raise InputTypeError(
            f"pretraining needs batches ({{images, {', '.join(_TEXT)}}}, image numbers), such as "
            f"those of VLPretrainDataModule; {missing[0]} is missing, found {found}"
        )
    return inputs, parts.labels


def with_others(
    inputs: Mapping[str, Tensor], matching: Matching
) -> tuple[dict[str, Tensor], Tensor]:
    """Images of a batch and after them those other images that a text gets, and no more.

    Args:
        inputs: with ``images`` and ``other_images`` ``[B, C, H, W]``, maybe with ``pixel_mask`` and
            ``other_pixel_mask``.
        matching: of [`draw_matching`][lit_ssl.losses.draw_matching], with B // 2 ones.

    Returns:
        ``images`` ``[B + B − B // 2, C, H, W]`` and maybe ``pixel_mask``; and int64 ``[B]``: row of
        the image that each text gets.
    """
    images, others = inputs["images"], inputs["other_images"]
    size = len(images)
    # rows whose text gets another image; their number is known without a look
    rows = matching.labels.argsort(stable=True)[: size - size // 2]
    sources = torch.arange(size, device=rows.device)
    sources[rows] = torch.arange(size, size + len(rows), device=rows.device)
    both = {"images": torch.cat([images, others[rows]])}
    own, other = inputs.get("pixel_mask"), inputs.get("other_pixel_mask")
    if own is not None or other is not None:
        full = torch.ones_like(images[:, 0], dtype=torch.bool)
        own, other = (full if mask is None else mask.bool() for mask in (own, other))
        both["pixel_mask"] = torch.cat([own, other[rows]])
    return both, sources


def with_images(
    inputs: Mapping[str, Tensor], images: EmbeddedImages, sources: Tensor | None, size: int
) -> dict[str, Tensor]:
    """Texts of a batch with embedded images.

    Args:
        inputs: with ``input_ids`` and ``attention_mask`` ``[B, L]``.
        images: of the batch, and maybe more.
        sources: int64 ``[B]``: row of the image that each text gets; None: its own.
        size: B.
    """
    text = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
    if sources is None:
        return {**text, "image_embeds": images.embeds[:size], "image_mask": images.mask[:size]}
    return {**text, "image_embeds": images.embeds[sources], "image_mask": images.mask[sources]}


def joined(passes: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Several batches as one, row after row.

    Args:
        passes: batches with the same names, of shapes that fit together; at least one.
    """
    if len(passes) == 1:
        return dict(passes[0])
    return {name: torch.cat([one[name] for one in passes]) for name in passes[0]}


def exchanged(
    inputs: Mapping[str, Tensor], numbers: Tensor | None
) -> tuple[dict[str, Tensor], Tensor]:
    """Each text with its image, then each with that of the next row.

    Args:
        inputs: with ``image_embeds`` and ``image_mask``.
        numbers: int64 ``[B]``, equal for captions of one image; None: all differ.

    Returns:
        Inputs of 2 B rows, and labels int64 ``[2 B]``: 1, then 0, or −100 where the next row has
        the same image.
    """
    size = len(inputs["input_ids"])
    images = EmbeddedImages(inputs["image_embeds"], inputs["image_mask"])
    place = images.mask.device
    following = torch.arange(size, device=place).roll(-1)
    numbers = torch.arange(size, device=place) if numbers is None else numbers
    others = torch.where(numbers[following] == numbers, IGNORED, 0)
    labels = torch.cat([torch.ones_like(others), others])
    passes = [with_images(inputs, images, rows, size) for rows in (None, following)]
    return joined(passes), labels
