"""The transform that a published classifier was trained for, as data modules use it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torchvision.transforms as T
from PIL import Image
from torch import Tensor

from lit_ssl.transforms.evaluation import long_ends

__all__ = ["Preprocessing", "vanilla_preprocessing", "without_long_ends"]

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """From a decoded image to what a network takes.

    Runs on Pillow images, as the libraries that published the network do: resizing tensors
    instead gives slightly other pixels.

    Attributes:
        transform: Maps a Pillow image to a tensor or array ``[3, h, w]``: uint8, which ``mean``
            and ``std`` still have to normalise, or float, which is ready.
        mean: Of each channel, for images in [0, 1].
        std: Of each channel.
        text: What it does, for reports.
    """

    transform: Callable[[Image.Image], Any]
    mean: Sequence[float] = _MEAN
    std: Sequence[float] = _STD
    text: str = ""

    def __call__(self, image: Tensor) -> Tensor:
        """Transform an image, uint8 ``[3, H, W]``."""
        pixels = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        return torch.as_tensor(self.transform(pixels))


def without_long_ends(image: Image.Image) -> Image.Image:
    """Cut off both ends of a very long image, for transforms that end with a centre crop.

    Args:
        image: of any size; one that is not very long comes back as it is.
    """
    width, height = image.size
    cut = long_ends(height, width)
    across, down = (0, cut) if height > width else (cut, 0)
    return image.crop((across, down, width - across, height - down)) if cut else image


def vanilla_preprocessing(
    size: int = 224, mean: Sequence[float] = _MEAN, std: Sequence[float] = _STD
) -> Preprocessing:
    """Shorter side to 8/7 of ``size`` (256 for 224), centre crop: ImageNet's usual evaluation.

    Args:
        size: Height and width of the result, >= 1.
        mean: Of each channel.
        std: Of each channel.
    """
    resize = round(size * 8 / 7)
    steps = T.Compose([without_long_ends, T.Resize(resize), T.CenterCrop(size), T.PILToTensor()])
    text = f"resize {resize} (bilinear), centre crop {size}"
    return Preprocessing(steps, tuple(mean), tuple(std), text)
