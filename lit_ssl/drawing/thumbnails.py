"""Images of any form and size brought to the size at which they are shown."""

from __future__ import annotations

import numpy as np
from PIL import Image

__all__ = ["GROUND", "fitted", "shown_as_rgb"]

GROUND = (236, 236, 236)  # behind what does not fill its place
_TINY = 48  # pixels up to which single ones are to be seen


def fitted(image: Image.Image, edge: int) -> Image.Image:
    """Bring an image to a size and keep its aspect.

    Very small images (below 48 pixels) are enlarged by a whole factor, without smoothing.

    Args:
        image: of any mode.
        edge: the longest edge that it may have, pixels, >= 1.

    Returns:
        RGB.
    """
    width, height = image.size
    longest = max(width, height)
    if longest <= min(_TINY, edge):
        factor = edge // longest
        size = width * factor, height * factor
        return shown_as_rgb(image).resize(size, Image.Resampling.NEAREST)
    size = max(1, round(width * edge / longest)), max(1, round(height * edge / longest))
    # reduced by a whole factor first, which is faster and looks the same
    return shown_as_rgb(image).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def shown_as_rgb(image: Image.Image) -> Image.Image:
    """An image as a screen shows it: RGB, what is transparent on a neutral ground.

    Args:
        image: of any mode; wide greys (16 bits, float) are stretched from their least to their
            largest value.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        low, high = values.min(), values.max()
        grey = (values - low) * (255 / (high - low)) if high > low else np.zeros_like(values)
        return Image.fromarray(grey.round().astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        ground = Image.new("RGBA", image.size, (*GROUND, 255))
        return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
