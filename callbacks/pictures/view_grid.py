"""Drawing of views and masks as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from lit_ssl.errors import InputError

_GAP = 4
_CAPTION = 22
_GREY = (0.55, 0.55, 0.55)
_COLOURLESS = 0.02  # between the channels of one pixel
_BLUE = (0.25, 0.5, 0.9)


def draw_dropped(images: Tensor, kept: Tensor, patch_size: tuple[int, int]) -> Tensor:
    """Paint over the patches that a network did not see: grey, or blue in images without colour.

    Args:
        images: ``[B, C, H, W]`` in [0, 1].
        kept: Row-major indices of the patches that were kept, int64 ``[B, n]``.
        patch_size: Height and width of a patch in pixels.

    Returns:
        Images in which dropped patches are nearly plain, ``[B, 3, H, W]``, of other numbers of
        channels the first; pixels beyond the last whole patch, which no patch covers, count as
        dropped.

    Raises:
        ValueError: If an index lies outside the grid of patches.
    """
    height, width = images.shape[-2:]
    rows, columns = height // patch_size[0], width // patch_size[1]
    if kept.numel() and (int(kept.min()) < 0 or int(kept.max()) >= rows * columns):
        raise InputError(
            f"kept_patches run from {int(kept.min())} to {int(kept.max())}, but images of "
            f"{height}×{width} with patch_size {patch_size} have {rows * columns} patches"
        )
    seen = torch.zeros(len(images), rows * columns).scatter_(1, kept.cpu(), 1.0)
    seen = seen.view(-1, 1, rows, columns)
    mask = seen.repeat_interleave(patch_size[0], dim=2).repeat_interleave(patch_size[1], dim=3)
    mask = F.pad(mask, (0, width - mask.shape[3], 0, height - mask.shape[2]))
    if images.shape[1] != 3:  # as they are shown
        images = images[:, :1].expand(-1, 3, -1, -1)
    has_colour = (images.amax(dim=1) - images.amin(dim=1)).amax(dim=(1, 2)) > _COLOURLESS
    paint = torch.where(has_colour[:, None], torch.tensor(_GREY), torch.tensor(_BLUE))
    paint = paint[:, :, None, None]
    return torch.where(mask > 0, images, paint + 0.12 * (images - paint))


def view_grid(columns: Sequence[tuple[str, Tensor]], min_cell: int = 84) -> Tensor:
    """Put columns of images side by side under captions.

    Args:
        columns: Caption and images ``[N, C, H, W]`` in [0, 1] of each column; C is 1 or 3 (of other
            numbers the first channel is shown); sizes may differ between columns.
        min_cell: Smallest edge of the largest images in the picture, pixels; small images are
            enlarged by a whole factor, without smoothing.

    Returns:
        A picture, uint8 ``[3, height, width]``.
    """
    largest = max(max(images.shape[-2:]) for _, images in columns)
    factor = max(1, -(-min_cell // largest))
    drawn = [(caption, _to_uint8(images, factor)) for caption, images in columns]
    font = ImageFont.load_default(13)
    widths = [
        max(images.shape[2], round(font.getlength(caption)) + 4) + _GAP for caption, images in drawn
    ]
    height = max(images.shape[1] for _, images in drawn) + _GAP
    count = len(drawn[0][1])
    canvas = Image.new("RGB", (sum(widths) + _GAP, _CAPTION + count * height + _GAP), "white")
    pen = ImageDraw.Draw(canvas)
    left = _GAP
    for (caption, images), width in zip(drawn, widths, strict=True):
        pen.text((left, 4), caption, fill="black", font=font)
        for row, pixels in enumerate(images):
            # Smaller views sit in the middle of the row.
            top = _CAPTION + row * height + (height - _GAP - pixels.shape[0]) // 2
            canvas.paste(Image.fromarray(pixels), (left, top))
        left += width
    return torch.from_numpy(np.array(canvas)).permute(2, 0, 1)


def unnormalised(images: Tensor, source: Any) -> Tensor:
    """Bring images back to [0, 1].

    Args:
        images: ``[N, C, H, W]``.
        source: Data module whose ``mean`` and ``std`` they have; without, they are stretched.
    """
    mean, std = getattr(source, "mean", None), getattr(source, "std", None)
    if mean is None or std is None:
        low, high = images.min(), images.max()
        return (images - low) / (high - low).clamp(min=1e-6)
    mean, std = (torch.as_tensor(v, dtype=torch.float32).view(-1, 1, 1) for v in (mean, std))
    return (images * std + mean).clamp(0, 1)


def _to_uint8(images: Tensor, factor: int) -> np.ndarray:
    """``[N, C, H, W]`` in [0, 1] to enlarged uint8 pixels ``[N, H, W, 3]``."""
    if images.shape[1] != 3:
        images = images[:, :1].expand(-1, 3, -1, -1)
    images = images.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    return (images * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
