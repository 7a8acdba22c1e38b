"""What happens to images without randomness: resize, centre crop, normalise."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal

import torch
import torchvision.transforms.v2.functional as F
from torch import Tensor

from lit_ssl.errors import InputError, check_choice
from lit_ssl.transforms.views.some_views import upload

_LONGEST = 16  # times the shorter side: far beyond what a centre crop and its filter look at


class EvalTransform:
    """Resizes the shorter side, then cuts out the centre.

    Args:
        size: pixels per side of the result, >= 1.
        resize: pixels of the shorter side before the crop, >= ``size``; ``size`` by default.
        channels: of the result: 1 makes colours grey, 3 repeats grey images; None leaves them as
            they are. For networks that were trained on other images.
        interpolation: of the resize, "bilinear" or "bicubic"; both with antialiasing.

    Raises:
        ValueError: if ``size`` is not positive, ``resize`` is smaller than ``size``, ``channels``
            is neither 1 nor 3, or ``interpolation`` is another one.

    Examples:
        >>> EvalTransform(224, resize=256)(torch.zeros(3, 375, 500, dtype=torch.uint8)).shape
        torch.Size([3, 224, 224])
    """

    def __init__(
        self,
        size: int,
        resize: int | None = None,
        channels: Literal[1, 3] | None = None,
        interpolation: Literal["bilinear", "bicubic"] = "bilinear",
    ) -> None:
        if size < 1:
            raise InputError(f"EvalTransform.size must be >= 1 pixel, got {size}.")
        if resize is not None and resize < size:
            raise InputError(
                f"EvalTransform.resize must be at least size = {size}, got {resize}: "
                "the crop would reach beyond the image."
            )
        if channels not in (None, 1, 3):
            raise InputError(f"EvalTransform.channels must be 1 or 3, got {channels}.")
        check_choice("EvalTransform.interpolation", interpolation, ("bilinear", "bicubic"))
        self.size = size
        self.resize = size if resize is None else resize
        self.channels = channels
        self.interpolation = F.InterpolationMode(interpolation)

    def __call__(self, image: Tensor) -> Tensor:
        """Transforms one image.

        Args:
            image: ``[C, H, W]`` uint8.

        Returns:
            ``[C, size, size]`` uint8; ``image`` itself where nothing has to be done.

        Raises:
            ValueError: if ``channels`` are wanted and the image is neither grey nor in colours.
        """
        if self.channels is not None and self.channels != image.shape[-3]:
            image = _with_channels(image, self.channels)
        image = F.resize(_trimmed(image), [self.resize], self.interpolation, antialias=True)
        if image.shape[-2:] == (self.size, self.size):
            return image
        return F.center_crop(image, [self.size, self.size])

    def __repr__(self) -> str:
        return (
            f"EvalTransform(size={self.size}, resize={self.resize}, channels={self.channels},"
            f" interpolation={self.interpolation.value})"
        )


def _trimmed(image: Tensor) -> Tensor:
    """Cut off both ends of a very long image, which a centre crop would not keep."""
    height, width = image.shape[-2:]
    cut = long_ends(height, width)
    if not cut:
        return image
    return image[..., cut:-cut, :] if height > width else image[..., cut:-cut]


def long_ends(height: int, width: int) -> int:
    """Return how many pixels to cut off both ends of an image before it is resized and cropped.

    Resizing the shorter side of an image of 1 x 20,000 pixels to 256 would make 1.3 billion pixels
    out of it, of which the centre crop keeps one square.

    Args:
        height: Of the image, in pixels.
        width: Of the image, in pixels.

    Returns:
        0 unless one side is more than 16 times the other; then as many as leave 16 times.
    """
    short, long = sorted((height, width))
    return max(0, long - _LONGEST * short) // 2


def _with_channels(image: Tensor, channels: int) -> Tensor:
    found = image.shape[-3]
    if found not in (1, 3):
        raise InputError(f"images with {found} channels cannot be given {channels} channels.")
    if channels == 1:
        return F.rgb_to_grayscale(image)
    return image.expand(*image.shape[:-3], 3, -1, -1)


@functools.lru_cache
def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """``[C, 1, 1]`` constants; cached, so that no training step waits for their copy."""
    with torch.inference_mode(False):
        return upload(torch.tensor(values, dtype=torch.float32).view(-1, 1, 1), device)


def _statistics(
    images: Tensor, mean: Sequence[float], std: Sequence[float]
) -> tuple[Tensor, Tensor]:
    channels = images.shape[-3]
    if len(mean) != len(std) or len(mean) not in (1, channels):
        raise InputError(
            f"mean and std must have 1 or {channels} values for images with {channels} channels, "
            f"got {len(mean)} and {len(std)}."
        )
    if min(std) <= 0:
        raise InputError(f"std must be positive, got {list(std)}.")
    return _per_channel(tuple(mean), images.device), _per_channel(tuple(std), images.device)


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Scales 8-bit images to [0, 1], subtracts the mean and divides by the standard deviation.

    Args:
        images: ``[..., C, H, W]``; uint8, or float in [0, 1].
        mean: one value per channel, or one for all.
        std: likewise, > 0.

    Returns:
        float32 of the same shape.

    Raises:
        ValueError: if the number of values does not fit or ``std`` is not positive.
    """
    centre, spread = _statistics(images, mean, std)
    values = images.to(torch.float32)
    if not images.is_floating_point():
        values = values / 255
    return (values - centre) / spread


def denormalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Inverse of [`normalize`][lit_ssl.transforms.normalize].

    Args:
        images: ``[..., C, H, W]`` float, normalised.
        mean: as given to ``normalize``.
        std: as given to ``normalize``.

    Returns:
        float32 of the same shape, in [0, 1] up to rounding.

    Raises:
        ValueError: if the number of values does not fit or ``std`` is not positive.
    """
    centre, spread = _statistics(images, mean, std)
    return images.to(torch.float32) * spread + centre
