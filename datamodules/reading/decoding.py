"""Image files to tensors."""

from __future__ import annotations

import struct

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lit_ssl.errors import InputError

__all__ = ["CorruptImageError", "read_image"]

_DECODE_ERRORS = (
    OSError,
    SyntaxError,  # Pillow's word for a broken PNG
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)


class CorruptImageError(InputError, RuntimeError):
    """An image file cannot be read: missing, truncated, or no image at all."""


def read_image(path: str, max_side: int | None = None) -> Tensor:
    """Decode an image file to RGB. EXIF rotation is ignored, as in the ImageNet protocols.

    Args:
        path: File in any format that Pillow reads: grey (8 or 16 bit), palette, CMYK, with or
            without transparency (which is dropped).
        max_side: If given, an image whose longer side is larger is shrunk to it, in proportion.

    Returns:
        uint8 ``[3, H, W]``.

    Raises:
        CorruptImageError: The file cannot be decoded; the message names it and says why.
    """
    try:
        with Image.open(path) as image:
            if max_side is not None and max(image.size) > max_side:
                rgb = _shrunk(image, max_side)
            else:
                rgb = _to_rgb(image)
            pixels = np.array(rgb, dtype=np.uint8)
    except _DECODE_ERRORS as error:
        raise CorruptImageError(
            f"Cannot read the image {path} ({type(error).__name__}: {error}). Repair or remove the"
            " file, or set on_corrupt: skip to use the next readable image in its place"
        ) from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _shrunk(image: Image.Image, max_side: int) -> Image.Image:
    scale = max_side / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    # JPEG only: decode at 1/2, 1/4 or 1/8, never below the wanted size; much faster for
    # photographs.
    image.draft(None, (width, height))
    return _to_rgb(image).resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey; Pillow would clip it at 255
        grey = np.array(image).astype(np.int64) >> 8
        return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")
