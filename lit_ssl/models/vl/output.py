"""What every network over an image and a text gives, and how it reads a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from torch import Tensor

from lit_ssl.errors import InputError

__all__ = ["EmbeddedImages", "VLOutput", "check_text", "embedded_images"]


class VLOutput(NamedTuple):
    """Final states of a batch of pairs.

    Attributes:
        text: ``[B, L, D]``.
        image: ``[B, N, D]``. The order of patches is no contract.
        image_mask: bool ``[B, N]``, True where a token of an image is.
        pooled: ``[B, P]``, one vector per pair.
    """

    text: Tensor
    image: Tensor
    image_mask: Tensor
    pooled: Tensor


class EmbeddedImages(NamedTuple):
    """Tokens of images before they meet a text: the same for every text.

    Attributes:
        embeds: ``[B, N, E]``.
        mask: bool ``[B, N]``, True where a token is.
    """

    embeds: Tensor
    mask: Tensor


class _Embeds(Protocol):
    def embed_images(self, images: Tensor, pixel_mask: Tensor | None = None) -> EmbeddedImages: ...


def embedded_images(backbone: _Embeds, batch: Mapping[str, Tensor]) -> EmbeddedImages:
    """The image tokens of a batch: those that it brings along, else of its images.

    Args:
        backbone: with ``embed_images``.
        batch: with ``images`` and, where they are padded, ``pixel_mask``; or with ``image_embeds``
            and ``image_mask``, as ``embed_images`` gave them.

    Raises:
        ValueError: if it has neither, or both.
    """
    if ("images" in batch) == ("image_embeds" in batch):
        found = ", ".join(sorted(batch))
        raise InputError(
            f"a batch of pairs needs either images or image_embeds and image_mask; it has {found}"
        )
    if "images" in batch:
        return backbone.embed_images(batch["images"], batch.get("pixel_mask"))
    if "image_mask" not in batch:
        raise InputError("image_embeds go with the image_mask that embed_images gave with them")
    return EmbeddedImages(batch["image_embeds"], batch["image_mask"].bool())


def check_text(batch: Mapping[str, Tensor], images: int, longest: int) -> None:
    """Make sure that texts fit the images and the positions of a network.

    Args:
        batch: with ``input_ids`` and ``attention_mask``, ``[B, L]``.
        images: number of images.
        longest: most tokens that the network has positions for.

    Raises:
        ValueError: if they do not.
    """
    ids, mask = batch["input_ids"], batch["attention_mask"]
    if ids.shape != mask.shape or ids.ndim != 2 or len(ids) != images:
        raise InputError(
            f"texts of {images} images need input_ids and attention_mask [{images}, L], got "
            f"{list(ids.shape)} and {list(mask.shape)}"
        )
    if ids.shape[1] > longest:
        raise InputError(
            f"texts have {ids.shape[1]} tokens, but the network has {longest} positions: give the "
            f"data max_length: {longest}, which cuts longer ones, or the network more positions"
        )
