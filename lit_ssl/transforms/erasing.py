"""Random erasing of a batch, for fine-tuning."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from lit_ssl.errors import InputError
from lit_ssl.transforms.views.some_views import on_subset, upload

__all__ = ["RandomErasing"]

_TRIES = 10


class RandomErasing:
    """Replaces a rectangle of some images by noise, on a batch on its device.

    For normalised images: the noise is standard normal, for each pixel and channel on its own. The
    rectangle's area and the logarithm of its aspect ratio are uniform; the first of ten draws that
    is smaller than the image counts, and where none is, the image stays. All random numbers follow
    from torch's global CPU generator; the host never waits for the device.

    Args:
        probability: of each image, in [0, 1].
        area: smallest and largest area as a share of the image, in (0, 1].
        ratio: smallest and largest height / width, > 0.

    Raises:
        ValueError: if a value lies outside its range.

    Source: arXiv 1708.04896; noise per pixel as in the fine-tuning of DeiT and MAE, with 0.25.
    """

    def __init__(
        self,
        probability: float,
        area: tuple[float, float] = (0.02, 1 / 3),
        ratio: tuple[float, float] = (0.3, 1 / 0.3),
    ) -> None:
        if not (0 <= probability <= 1 and 0 < area[0] <= area[1] <= 1 and 0 < ratio[0] <= ratio[1]):
            raise InputError(
                "random erasing needs a probability in [0, 1], 0 < min <= max <= 1 for the area "
                f"and 0 < min <= max for the ratio, not {probability}, {area} and {ratio}"
            )
        self.probability = probability
        self.area = area
        self.ratio = ratio

    def __call__(self, images: Tensor) -> Tensor:
        """Erase.

        Args:
            images: ``[B, C, H, W]``, float; left as they are.

        Returns:
            ``[B, C, H, W]``.
        """
        boxes = self._draw_boxes(len(images), *images.shape[-2:])
        seed = int(torch.randint(2**62, ()))
        chosen = (boxes[:, 1] > 0).nonzero()[:, 0]
        if len(chosen) == 0:
            return images
        top, height, left, width = upload(boxes[chosen], images.device)[:, :, None, None].unbind(1)
        noise = torch.Generator(images.device).manual_seed(seed)

        def erase(part: Tensor) -> Tensor:
            rows = torch.arange(part.shape[-2], device=part.device)[:, None]
            columns = torch.arange(part.shape[-1], device=part.device)
            inside = (rows >= top) & (rows < top + height)
            inside = inside & (columns >= left) & (columns < left + width)  # [n, H, W]
            noised = torch.empty_like(part).normal_(generator=noise)
            return torch.where(inside[:, None], noised, part)

        return on_subset(images.clone(), chosen, erase)

    def _draw_boxes(self, count: int, height: int, width: int) -> Tensor:
        """Top, height, left and width of each image's rectangle, int64 ``[B, 4]`` on the CPU.

        The height is 0 where nothing is erased.
        """
        uniform = torch.rand(count, 3 + 2 * _TRIES, dtype=torch.float64).numpy()
        share, place = uniform[:, 3 : 3 + _TRIES], uniform[:, 1:3]
        area = (self.area[0] + (self.area[1] - self.area[0]) * share) * height * width
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        root = np.exp(0.5 * (low + (high - low) * uniform[:, 3 + _TRIES :]))
        heights, widths = np.rint(np.sqrt(area) * root), np.rint(np.sqrt(area) / root)
        fits = (heights < height) & (widths < width) & (heights > 0) & (widths > 0)
        first = fits.argmax(axis=1)[:, None]
        box_h, box_w = (np.take_along_axis(side, first, axis=1)[:, 0] for side in (heights, widths))
        erased = (uniform[:, 0] < self.probability) & fits.any(axis=1)
        top = np.floor(place[:, 0] * (height - box_h + 1))
        left = np.floor(place[:, 1] * (width - box_w + 1))
        boxes = np.stack([top, box_h * erased, left, box_w], axis=1)
        return torch.from_numpy(boxes.astype(np.int64))
