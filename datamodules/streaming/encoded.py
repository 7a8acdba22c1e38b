"""Images as bytes: the files that they are in, or else PNG, which loses nothing; and back."""

from __future__ import annotations

import io
import os

import numpy as np
import torch
import torchvision.transforms.v2.functional as F
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from lit_ssl.datamodules.reading.boxes import BoxImages
from lit_ssl.datamodules.reading.decoding import CorruptImageError, Decoding, decode_image
from lit_ssl.datamodules.reading.images import ArrayImages, FileImages, Images
from lit_ssl.datamodules.streaming.manifest import Kind
from lit_ssl.datamodules.vision_language.shards.tar_pairs import TarImages
from lit_ssl.errors import InputError
from lit_ssl.files import read_bytes

__all__ = ["decoded", "encoded", "kind_of"]


def kind_of(images: Images) -> Kind:
    """Return how images are kept.

    Args:
        images: a source of images.

    Raises:
        InputError: They are no such images.
    """
    if isinstance(images, ArrayImages):
        if images.pixels.shape[1] not in (1, 3):
            raise InputError(
                f"images of {images.pixels.shape[1]} channels cannot be kept as PNG: give them 1 or"
                " 3"
            )
        return "arrays"
    if isinstance(images, BoxImages):
        return "parts"
    if type(images) is FileImages or isinstance(images, TarImages):
        return "files"
    if isinstance(images, Images):
        return "frames"
    raise InputError(f"{type(images).__name__} is no source of images, so it has no shards")


def encoded(images: Images, row: int) -> bytes:
    """Return an image as bytes: its file where it is one, untouched; else PNG.

    Args:
        images: a source of images.
        row: of the image.

    Raises:
        InputError: It cannot be read.
    """
    if type(images) is FileImages:
        return read_bytes(os.path.join(images.folder, images.names[row]))
    if isinstance(images, TarImages):
        return images.encoded(row)
    pixels = images.read(row).permute(1, 2, 0).numpy()
    if pixels.shape[2] != 3 and not isinstance(images, ArrayImages):
        raise InputError(
            f"{type(images).__name__} gives images of {pixels.shape[2]} channels, and shards keep"
            " other numbers than 3 of images in memory only: repeat grey ones"
        )
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, format="PNG")
    return file.getvalue()


def decoded(
    content: bytes, kind: Kind, name: str, max_side: int | None, decoding: Decoding
) -> Tensor:
    """Return the image that ``encoded`` was given, as its source would read it.

    Args:
        content: What ``encoded`` returned.
        kind: What its source was.
        name: What messages call it.
        max_side: A longer side is shrunk to it, but for images that were in memory.
        decoding: How files are decoded.

    Returns:
        uint8 ``[C, H, W]``.

    Raises:
        CorruptImageError: It cannot be decoded.
    """
    if kind == "files":
        return decode_image(content, name, max_side, decoding)
    if kind == "arrays":
        return _array(content, name)
    image = decode_image(content, name)
    longest = max(image.shape[1:])
    if max_side is None or longest <= max_side:
        return image
    size = [max(1, round(side * max_side / longest)) for side in image.shape[1:]]
    mode = F.InterpolationMode.BICUBIC if kind == "parts" else F.InterpolationMode.BILINEAR
    return F.resize(image, size, mode, antialias=True)


def _array(content: bytes, name: str) -> Tensor:
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            if image.mode not in ("L", "RGB"):
                raise ValueError(f"it is {image.mode}")
            pixels = np.array(image)
    except UnidentifiedImageError as error:
        raise CorruptImageError(f"Cannot read the image {name}: it is no PNG") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise CorruptImageError(f"Cannot read the image {name}: {error}") from error
    channels = pixels[..., None] if pixels.ndim == 2 else pixels
    return torch.from_numpy(channels).permute(2, 0, 1).contiguous()
