"""Grey images of more than 8 bits: which value is white, and the 8 bits that are kept of them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["RangeError", "check_upper_bits", "has_wide_tiles", "is_deep", "to_eight_bits"]

_BITS_16 = 65_535
_BITS_12 = 4_095


class RangeError(ValueError):
    """Nothing says which value of an image is white, or it has values beyond white."""


def is_deep(image: Image.Image) -> bool:
    """Whether an image is grey with more than 8 bits: 16 or 32, integer or float.

    Args:
        image: of Pillow, loaded or not.
    """
    return image.mode[0] in "IF"


def to_eight_bits(image: Image.Image, max_value: float | None) -> np.ndarray:
    """Return the values of a deep grey image as uint8 ``[H, W]``.

    White is 65,535 in images of 16 bits, 1 in images of floats from 0 to 1, and 255 where integers
    in floats or 32 bits do not go beyond it.

    Args:
        image: See ``is_deep``.
        max_value: The value of white, if it is another.

    Raises:
        RangeError: A file of 16 or 32 bits may as well hold 12 bits as dark pixels, floats have
            another range, or a value is negative or beyond ``max_value``.
    """
    wide = _has_16_bits(image)
    # white is in the header of a portable grey map, and Pillow has brought it to 16 bits
    is_scaled = image.format == "PPM" and image.mode[0] == "I" and not wide
    values = np.array(image)
    low, high = values.min().item(), values.max().item()
    are_integers = values.dtype.kind in "iu" or bool((values == np.floor(values)).all())
    white = _BITS_16 if is_scaled else max_value
    if white is None:
        white = _white(high, wide, are_integers, values.dtype.kind == "f")
    # white in the precision of the values, else 3.7 may lie above itself
    if white is None or not 0 <= low <= high <= np.asarray(white).astype(values.dtype):
        expected = (
            "it is not known which value is white" if white is None else f"white is {white:g}"
        )
        raise RangeError(
            f"its values go from {low:g} to {high:g}, and {expected}: set max_value of the data"
            " module (4095 for 12 bits, 65535 for 16 bits), or convert it to 8 bits"
        )
    if are_integers and white > 1:  # the upper bits, as for all images of 16 bits
        return (values.astype(np.int64) * 256 // int(white + 1)).astype(np.uint8)
    return np.rint(values * (255 / white)).astype(np.uint8)


def _white(high: float, wide: bool, are_integers: bool, is_float: bool) -> int | None:
    """White by the largest value; None where it may be several."""
    if wide:
        return None if 0 < high <= _BITS_12 else _BITS_16
    if not are_integers or (is_float and high <= 1):
        return 1 if high <= 1 else None
    if high == 1:  # 8 bits, all but black, or a mask
        return None
    if high <= 255:
        return 255
    return _BITS_16 if _BITS_12 < high <= _BITS_16 else None


def check_upper_bits(rgb: Image.Image, max_value: float | None, rounded: bool) -> None:
    """Raise where the upper 8 of the 16 bits of a colour, all that Pillow reads, tell too little.

    Args:
        rgb: What Pillow made of an image of 16 bits per colour.
        max_value: The value of white that a person has given.
        rounded: Whether Pillow rounded to 8 bits, as for portable maps, instead of cutting off.

    Raises:
        RangeError: The colours do not use the upper 4 bits, and nobody says that they are dark.
    """
    high = max(extremes[1] for extremes in rgb.getextrema())  # type: ignore[index]
    if high < 16 + rounded and max_value != _BITS_16:
        raise RangeError(
            f"it has 16 bits per colour, of which Pillow reads the upper 8, and these go to {high}"
            " only: convert it to 8 bits, or set max_value of the data module to 65535 if it is"
            " dark"
        )


def _has_16_bits(image: Image.Image) -> bool:
    return image.mode.startswith("I;16") or has_wide_tiles(image)


def has_wide_tiles(image: Image.Image) -> bool:
    """Whether an image that is not loaded yet has 16 bits per colour in its file.

    ``BGR;16`` of bitmaps are 16 bits for three colours. A portable map has all 16 where its header
    calls 65,535 white, which most programs write whatever the values are.

    Args:
        image: of Pillow, opened and not loaded.
    """
    tiles: list[Any] = getattr(image, "tile", None) or []
    return any(
        tile[3][-1] == _BITS_16
        if str(tile[0]).startswith("ppm")
        else re.search("(?<!BGR);16", str(tile[3]))
        for tile in tiles
    )
