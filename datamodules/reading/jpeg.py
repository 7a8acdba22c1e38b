"""JPEG files that torchvision may decode: the pixels that Pillow gives, in half of the time."""

from __future__ import annotations

import io
import warnings
from functools import cache
from typing import BinaryIO

import torch
import torchvision  # noqa: F401 - registers the operator
from PIL import Image
from torch import Tensor

__all__ = ["decode_plain", "is_plain", "read_plain"]

_LONGEST = 64 << 20  # bytes that are held in memory beside the pixels
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
_START_OF_SCAN = 0xDA
_RGB = 3  # torchvision.io.ImageReadMode.RGB
# tables of Huffman codes, of quantisation, restart interval, applications' own, comments
_SEGMENTS = (0xC4, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE)


def read_plain(image: Image.Image, file: BinaryIO) -> Tensor | None:
    """Decode a file that Pillow has opened and found to be a plain JPEG.

    Pillow is asked first, since its header checks (what the file is, how many pixels it may claim)
    hold for all formats.

    Args:
        image: What Pillow made of the file's header; nothing of it is loaded yet.
        file: The file; where it stands afterwards is open.

    Returns:
        uint8 ``[3, H, W]`` with the strides of ``[H, W, 3]``; None where Pillow is to decode:
        another format, colours that are neither RGB nor grey, a draft in a smaller size, a header
        that is not in order, or a file that torchvision refuses.
    """
    if image.format != "JPEG" or image.mode not in ("RGB", "L"):
        return None
    file.seek(0)
    content = file.read(_LONGEST + 1)
    return decode_plain(content) if is_plain(image, content) else None


def is_plain(image: Image.Image, content: bytes) -> bool:
    """Whether a file is a JPEG that every decoder of libjpeg reads as Pillow does.

    Args:
        image: What Pillow made of its header.
        content: What the file holds.
    """
    return (
        image.format == "JPEG"
        and image.mode in ("RGB", "L")
        and len(content) <= _LONGEST
        # else a decoder would reserve as many pixels as it finds where Pillow did not look
        and _frame_size(content) == image.size
    )


def decode_plain(content: bytes) -> Tensor | None:
    """Decode what ``is_plain`` has agreed to; None if torchvision cannot.

    Args:
        content: What the file holds.

    Returns:
        uint8 ``[3, H, W]`` with the strides of ``[H, W, 3]``.
    """
    if not _has_decoder():
        return None
    try:
        return _decoded(content)
    except RuntimeError:  # cut short or damaged: Pillow knows the words, or reads it after all
        return None


def _decoded(content: bytes) -> Tensor:
    data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    # The operator below torchvision.io.decode_jpeg, which warns at each call, since 0.29, that a
    # later release will leave decoding to torchcodec.
    pixels: Tensor = torch.ops.image.decode_jpeg(data, _RGB)
    return pixels


@cache
def _has_decoder() -> bool:
    """Whether this torchvision was built with libjpeg."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG")
    try:
        _decoded(file.getvalue())
    except (RuntimeError, AttributeError, OSError) as error:
        warnings.warn(
            f"torchvision decodes no JPEG files here ({type(error).__name__}), so Pillow does, in"
            " twice the time: install a torchvision that was built with libjpeg",
            stacklevel=2,
        )
        return False
    return True


def _frame_size(content: bytes) -> tuple[int, int] | None:
    """Width and height by the one frame before the first scan; None if segments are not in order.

    Decoders differ in what they take for a segment when bytes lie between two of them.
    """
    size = None
    place = 2  # behind the start of the image
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == _START_OF_SCAN:
            return size
        if marker in _FRAMES and size is None:
            height, width = content[place + 5 : place + 7], content[place + 7 : place + 9]
            size = int.from_bytes(width, "big"), int.from_bytes(height, "big")
        elif marker not in _SEGMENTS:
            return None
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return None
