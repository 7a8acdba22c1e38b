"""Image files to tensors."""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import torch
import torchvision.transforms.v2.functional as F
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from lit_ssl.datamodules.reading.deep_pixels import (
    RangeError,
    check_upper_bits,
    has_wide_tiles,
    is_deep,
    to_eight_bits,
)
from lit_ssl.datamodules.reading.jpeg import read_plain
from lit_ssl.errors import InputError, quoted, shortened
from lit_ssl.opening import open_file

__all__ = ["AS_USUAL", "CorruptImageError", "Decoding", "decode_image", "read_image"]

_DECODE_ERRORS = (
    OSError,
    SyntaxError,  # Pillow's word for a broken PNG
    ValueError,
    EOFError,
    RuntimeError,  # of AVIF
    struct.error,
    Image.DecompressionBombError,
)


class CorruptImageError(InputError, RuntimeError):
    """An image file cannot be read: missing, truncated, or no image at all."""


@dataclass(frozen=True)
class Decoding:
    """What files leave open.

    Args:
        background: Colour (red, green, blue; 0 to 255) below transparent pixels. None leaves out
            the transparency, so that the colours hidden below it show; a warning says so.
        max_value: Value of white in grey images of more than 8 bits, such as 4095 for 12 bits in
            files of 16. None: 65535 in files of 16 bits, 1 where floats go from 0 to 1, 255 where
            32 bits hold 8; where it may be another, such as 16 bits that stay below 4096, an image
            counts as unreadable.
    """

    background: tuple[int, ...] | None = None
    max_value: float | None = None

    def __post_init__(self) -> None:
        colour = self.background
        if colour is not None and (len(colour) != 3 or not all(0 <= c <= 255 for c in colour)):
            raise InputError(
                f"background must be three numbers from 0 to 255 (red, green, blue), got {colour}"
            )
        if self.max_value is not None and not 0 < self.max_value < float("inf"):
            raise InputError(f"max_value must be above 0, got {self.max_value}")


AS_USUAL = Decoding()


def read_image(path: str, max_side: int | None = None, decoding: Decoding = AS_USUAL) -> Tensor:
    """Decode an image file to RGB. EXIF rotation is ignored, as in the ImageNet protocols.

    Args:
        path: File in any format that Pillow reads: grey (8, 16 or 32 bits), palette, CMYK, with or
            without transparency; of several pictures in it, the first.
        max_side: If given, an image whose longer side is larger is shrunk to it, in proportion.
        decoding: What is below transparent pixels, and which value is white.

    Returns:
        uint8 ``[3, H, W]``, with the strides of ``[H, W, 3]``: so decoders write them, and so
        resizing and cutting are fastest.

    Raises:
        CorruptImageError: The file cannot be decoded; the message names it and says why.
    """
    try:
        with open_file(path) as file:
            return _decoded(file, path, max_side, decoding)
    except OSError as error:
        raise _unreadable(path, error) from error


def decode_image(
    content: bytes, name: str, max_side: int | None = None, decoding: Decoding = AS_USUAL
) -> Tensor:
    """Decode an image in memory to RGB, as ``read_image`` does a file.

    Args:
        content: What such a file holds.
        name: What messages call it.
        max_side: See there.
        decoding: See there.

    Returns:
        uint8 ``[3, H, W]``, as there.

    Raises:
        CorruptImageError: It cannot be decoded.
    """
    return _decoded(io.BytesIO(content), name, max_side, decoding)


def _decoded(file: BinaryIO, name: str, max_side: int | None, decoding: Decoding) -> Tensor:
    try:
        with Image.open(file) as image:
            if image.format == "EPS":  # PostScript, for which Pillow starts another program
                raise UnidentifiedImageError
            if max_side is not None and max(image.size) > max_side:
                return _shrunk(image, file, max_side, decoding)
            return _whole(image, file, decoding)
    except RangeError as error:
        raise CorruptImageError(f"Cannot read the image {name}: {error}") from error
    except UnidentifiedImageError as error:  # Pillow names the opened file as Python does
        named = UnidentifiedImageError(f"cannot identify image file {quoted(name, 200)}")
        raise _unreadable(name, named) from named.with_traceback(error.__traceback__)
    except _DECODE_ERRORS as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> CorruptImageError:
    why = getattr(error, "strerror", None) or shortened(error)
    return CorruptImageError(
        f"Cannot read the image {name} ({type(error).__name__}: {why}). Repair or remove the"
        " file, or set on_corrupt: skip to use the next readable image in its place"
    )


def _whole(image: Image.Image, file: BinaryIO, decoding: Decoding) -> Tensor:
    pixels = read_plain(image, file)
    return _as_tensor(_to_rgb(image, decoding)) if pixels is None else pixels


def _shrunk(image: Image.Image, file: BinaryIO, max_side: int, decoding: Decoding) -> Tensor:
    scale = max_side / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    # JPEG only: decode at 1/2, 1/4 or 1/8, never below the wanted size; much faster for
    # photographs.
    image.draft(None, (width, height))
    if image.format == "JPEG":
        pixels = _whole(image, file, decoding)
        return F.resize(pixels, [height, width], F.InterpolationMode.BICUBIC, antialias=True)
    rgb = _to_rgb(image, decoding)
    return _as_tensor(rgb.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0))


def _as_tensor(rgb: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(rgb, dtype=np.uint8)).permute(2, 0, 1)


def _to_rgb(image: Image.Image, decoding: Decoding) -> Image.Image:
    if is_deep(image):
        return _deep_to_rgb(image, decoding)
    is_wide = has_wide_tiles(image)
    if image.has_transparency_data:
        rgb = _without_transparency(image.convert("RGBA"), decoding.background)
    else:
        rgb = image.convert("RGB")
    if is_wide:
        check_upper_bits(rgb, decoding.max_value, rounded=image.format == "PPM")
    return rgb


def _deep_to_rgb(image: Image.Image, decoding: Decoding) -> Image.Image:
    grey = Image.fromarray(to_eight_bits(image, decoding.max_value))
    transparent = image.info.get("transparency")  # of a PNG: the value that counts as such
    if transparent is None:
        return grey.convert("RGB")
    grey.putalpha(Image.fromarray(np.where(np.array(image) == transparent, 0, 255).astype("uint8")))
    return _without_transparency(grey.convert("RGBA"), decoding.background)


def _without_transparency(rgba: Image.Image, colour: tuple[int, ...] | None) -> Image.Image:
    if colour is not None:
        below = Image.new("RGBA", rgba.size, (*colour, 255))
        return Image.alpha_composite(below, rgba).convert("RGB")
    if rgba.getchannel("A").getextrema()[0] != 255:
        # always the same text, so that it is shown once
        warnings.warn(
            "Some images have transparent pixels, which are read as if they were none: colours that"
            " are hidden show, and pictures made of transparency alone are lost. Set background, "
            "such as [255, 255, 255], to put a colour below",
            stacklevel=2,
        )
    return rgba.convert("RGB")
