"""What happens to the images of a batch after it has reached the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lit_ssl.datamodules.loading.batches import RawImages
from lit_ssl.seeding import batch_seed
from lit_ssl.transforms import MultiCrop, SingleView, normalize

__all__ = ["finish_images"]


def finish_images(
    images: Any,
    recipe: MultiCrop | SingleView | None,
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor | list[Tensor]:
    """Make the views where that was left to the device, scale to [0, 1] and normalise.

    Args:
        images: `RawImages`, or one tensor or a list of tensors, uint8 or already normalised float.
        recipe: Makes the views of `RawImages`.
        mean: Mean of each channel for images in [0, 1].
        std: Standard deviation of each channel.

    Returns:
        Normalised float images, or a list of views.
    """
    if isinstance(images, RawImages):
        return _device_views(images, recipe, mean, std)
    if isinstance(images, Tensor):
        return _normalized(images, mean, std)
    return [_normalized(view, mean, std) for view in images]


def _device_views(
    raw: RawImages,
    recipe: MultiCrop | SingleView | None,
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor | list[Tensor]:
    assert recipe is not None
    sizes = None if raw.sizes is None else torch.from_numpy(raw.sizes)
    generator = torch.Generator().manual_seed(batch_seed(raw.seeds))
    views = recipe.batched(raw.images, sizes=sizes, generator=generator)
    if isinstance(views, Tensor):
        return normalize(views, mean, std)
    return [normalize(view, mean, std) for view in views]


def _normalized(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    return normalize(images, mean, std) if images.dtype == torch.uint8 else images
