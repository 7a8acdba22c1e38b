"""Values of patches, painted over the image that they are of."""

from __future__ import annotations

import numpy as np
from PIL import Image

from lit_ssl.drawing.palette import heat_colours
from lit_ssl.drawing.thumbnails import shown_as_rgb
from lit_ssl.errors import InputError

__all__ = ["heat_over"]

_EDGE = 224  # pixels that the longer side of a small image is enlarged to, about


def heat_over(image: Image.Image, values: np.ndarray, most: float | None = None) -> Image.Image:
    """Paint patches from dark (0) to light (the most) over an image in grey.

    Args:
        image: of any mode; the patches cover all of it.
        values: ``[h, w]``, >= 0.
        most: the value that is painted lightest; None: the largest.

    Returns:
        RGB; small images are enlarged, so that patches can be seen.

    Raises:
        InputError: if the values have no two dimensions.
    """
    if values.ndim != 2 or not values.size:
        raise InputError(f"patches need values [h, w], got {list(values.shape)}")
    top = float(np.nan_to_num(values).max()) if most is None else most
    strength = np.clip(np.nan_to_num(values) / top, 0, 1) if top > 0 else np.zeros_like(values)
    factor = max(1, _EDGE // max(image.size))
    size = image.width * factor, image.height * factor
    grey = np.asarray(shown_as_rgb(image).convert("L").resize(size, Image.Resampling.NEAREST))
    cells = Image.fromarray(np.asarray(strength, dtype=np.float32))
    spread = np.asarray(cells.resize(size, Image.Resampling.NEAREST))
    # The image shades the colour, so that both can be seen.
    shade = 0.45 + 0.55 * grey.astype(np.float64)[:, :, None] / 255
    return Image.fromarray((heat_colours(spread) * shade).round().astype(np.uint8))
