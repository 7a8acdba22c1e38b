"""JPEG files that are handed on as they are, to be decoded on the training device."""

from __future__ import annotations

import io
from typing import NamedTuple

from PIL import Image
from torch import Tensor

from lit_ssl.datamodules.reading.decoding import AS_USUAL, Decoding, decode_image, read_image
from lit_ssl.datamodules.reading.jpeg import is_plain
from lit_ssl.opening import open_file

__all__ = ["Jpeg", "encoded", "read_encoded"]

_LONGEST = 64 << 20  # bytes; a longer file is decoded where it is read
_END = b"\xff\xd9"
_RGB_LETTERS = [ord(letter) for letter in "RGB"]


class Jpeg(NamedTuple):
    """A JPEG file that every decoder reads alike.

    Attributes:
        content: What the file holds.
        size: Height and width of the image.
    """

    content: bytes
    size: tuple[int, int]


def read_encoded(
    path: str, max_side: int | None = None, decoding: Decoding = AS_USUAL
) -> Jpeg | Tensor:
    """Return a file as it is where a device can decode it, else its pixels as ``read_image`` does.

    Args:
        path: See ``read_image``.
        max_side: See there; a ``Jpeg`` is as large as it is.
        decoding: See there.

    Returns:
        A ``Jpeg``, or uint8 ``[C, H, W]``.

    Raises:
        CorruptImageError: See there. What a file with an orderly header and end has between them
            shows only where it is decoded.
    """
    try:
        with open_file(path) as file:
            content = file.read(_LONGEST + 1)
    except OSError:
        return read_image(path, max_side, decoding)  # which says why
    if len(content) > _LONGEST:
        return read_image(path, max_side, decoding)
    return encoded(content, path, max_side, decoding)


def encoded(
    content: bytes, name: str, max_side: int | None = None, decoding: Decoding = AS_USUAL
) -> Jpeg | Tensor:
    """Do what ``read_encoded`` does with a file in memory.

    Args:
        content: What such a file holds.
        name: What messages call it.
        max_side: See there.
        decoding: See there.

    Returns:
        A ``Jpeg``, or uint8 ``[C, H, W]``.

    Raises:
        CorruptImageError: See there.
    """
    size = _size_for_device(content)
    return decode_image(content, name, max_side, decoding) if size is None else Jpeg(content, size)


def _size_for_device(content: bytes) -> tuple[int, int] | None:
    """Height and width of a JPEG in the usual colours that is all there; None for all others."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            usual = is_plain(image, content) and image.mode == "RGB" and _is_ycbcr(image)
            width, height = image.size
    except Exception:  # whatever it is, the one who decodes it says it
        return None
    return (height, width) if usual and content.rstrip(b"\0").endswith(_END) else None


def _is_ycbcr(image: Image.Image) -> bool:
    """Whether colours are stored as luminance and chroma; decoders guess RGB in different ways."""
    if image.info.get("adobe_transform", 1) != 1:
        return False
    return [component[0] for component in vars(image)["layer"]] != _RGB_LETTERS
