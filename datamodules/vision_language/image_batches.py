"""Images of different sizes as one tensor, padded until they are normalised and beyond."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from lit_ssl.transforms import normalize

__all__ = ["normalize_images", "stack_images"]

# names of images in a batch → their masks
_IMAGES = {"images": "pixel_mask", "other_images": "other_pixel_mask"}


def stack_images(images: Sequence[Tensor]) -> dict[str, Tensor]:
    """Put images into one tensor, padded at the right and at the bottom where sizes differ.

    Args:
        images: B of them, at least one, uint8 ``[C, h, w]``.

    Returns:
        ``images`` uint8 ``[B, C, H, W]``, H and W those of the highest and of the widest one, 0
        where no image is; and, only where sizes differ, ``pixel_mask`` bool ``[B, H, W]``, True
        where one is.
    """
    sizes = [image.shape[-2:] for image in images]
    if all(size == sizes[0] for size in sizes):
        return {"images": torch.stack(list(images))}
    height, width = (max(side) for side in zip(*sizes, strict=True))
    padded = images[0].new_zeros(len(images), len(images[0]), height, width)
    mask = torch.zeros(len(images), height, width, dtype=torch.bool)
    for row, (image, (rows, columns)) in enumerate(zip(images, sizes, strict=True)):
        padded[row, :, :rows, :columns] = image
        mask[row, :rows, :columns] = True
    return {"images": padded, "pixel_mask": mask}


def normalize_images(
    inputs: Mapping[str, Tensor],
    mean: Sequence[float],
    std: Sequence[float],
    convert: Callable[[Tensor], Tensor],
) -> dict[str, Tensor]:
    """Normalise the images of a batch that are uint8; padding is exactly 0 afterwards.

    Networks that read padding, such as ViLT's patches at the edge, know it as 0.

    Args:
        inputs: ``images`` and ``other_images``, ``[..., C, H, W]``, whichever are there, with
            their ``pixel_mask`` and ``other_pixel_mask``, bool ``[..., H, W]``, where they are
            padded. Anything else stays as it is.
        mean: Of each channel, for images in [0, 1].
        std: Of each channel.
        convert: What is done to normalised images at last, such as rounding them to bfloat16.
    """
    changed = dict(inputs)
    for name, mask_name in _IMAGES.items():
        if name not in inputs or inputs[name].dtype != torch.uint8:
            continue
        images = normalize(inputs[name], mean, std)
        if mask_name in inputs:
            images.masked_fill_(~inputs[mask_name].unsqueeze(-3), 0.0)
        changed[name] = convert(images)
    return changed
