"""ViLT's image tokens: patches and positions of images of any size, computed once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_ssl.errors import InputError

__all__ = ["image_sizes", "kept_tokens", "position_grid"]


def image_sizes(mask: Tensor) -> list[tuple[int, int]]:
    """Heights and widths of padded images, in patches.

    Args:
        mask: bool ``[B, h, w]``, True where a patch of the image is; images lie at the top left.

    Raises:
        ValueError: if an image has no patch, or is no rectangle at the top left.
    """
    heights, widths = mask[:, :, 0].sum(dim=1), mask[:, 0].sum(dim=1)
    found: list[list[int]] = torch.stack((heights, widths, mask.sum(dim=(1, 2))), dim=1).tolist()
    for row, (height, width, count) in enumerate(found):
        if not count:
            raise InputError(
                f"image {row} of the batch has no patch by its pixel_mask: it is empty or smaller "
                "than a patch"
            )
        if height * width != count:
            raise InputError(
                f"the pixel_mask of image {row} is no rectangle at the top left: pad images at the "
                "right and at the bottom"
            )
    return [(height, width) for height, width, _ in found]


def position_grid(
    table: Tensor, grid: tuple[int, int], sizes: list[tuple[int, int]], padded: tuple[int, int]
) -> Tensor:
    """Positions of patches, interpolated to the size of each image.

    Args:
        table: ``[1, grid h · grid w, D]``.
        grid: height and width of the table, in patches.
        sizes: height and width of each image; one for all where they are equal.
        padded: height and width of the batch.

    Returns:
        ``[len(sizes), h · w, D]``; 0 where padding is.

    Source: dandelin/ViLT (bilinear, with the corners aligned).
    """
    flat = table.mT.unflatten(2, grid)
    made: dict[tuple[int, int], Tensor] = {}
    for size in dict.fromkeys(sizes):
        image = flat
        if size != grid:
            image = F.interpolate(flat, size=size, mode="bilinear", align_corners=True)
        room = (0, padded[1] - size[1], 0, padded[0] - size[0])
        made[size] = F.pad(image, room).flatten(2).mT
    return torch.cat([made[size] for size in sizes])


def kept_tokens(mask: Tensor, most: int | None = None) -> Tensor:
    """Which patches of padded images go on: all of the largest image, or a random part.

    Args:
        mask: bool ``[B, n]``, True where a patch is.
        most: keep at most so many of each image, drawn from torch's generator; None: all.

    Returns:
        int64 ``[B, k]``, the patches of an image in their order, then padding.
    """
    longest = int(mask.sum(dim=1).max())
    if most is None or longest <= most:
        return mask.int().argsort(dim=1, descending=True, stable=True)[:, :longest]
    noise = torch.rand(mask.shape, device=mask.device).masked_fill(~mask, 2.0)  # padding last
    chosen = noise.argsort(dim=1)[:, :most].sort(dim=1).values
    # an image with fewer patches is filled up: its own come first again
    order = mask.gather(1, chosen).int().argsort(dim=1, descending=True, stable=True)
    return chosen.gather(1, order)
