"""Images that keep their form: the shorter side to one length, the longer one in proportion."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torchvision.transforms.v2.functional as F
from torch import Tensor

from lit_ssl.errors import InputError, check_choice

__all__ = ["ImageView", "KeepAspect"]


class ImageView(ABC):
    """One view of an image, which may have any size: the image and a seed → the view."""

    @abstractmethod
    def __call__(self, image: Tensor, seed: int) -> Tensor:
        """Makes the view of one image, in a worker.

        Args:
            image: ``[3, H, W]`` uint8.
            seed: the only source of randomness.

        Returns:
            ``[3, h, w]`` uint8.
        """


class KeepAspect(ImageView):
    """Resizes the shorter side, as far as the longer one stays short enough; nothing is cut off.

    Both sides are then rounded down to a multiple of the patch size. So images have different
    sizes, and a batch of them is padded: for networks that read padding, such as ViLT. Nothing is
    random: it transforms images of training and of evaluation.

    Args:
        shorter: pixels of the shorter side, a multiple of ``multiple``. Where the longer side would
            exceed ``longer``, the image is made smaller in proportion; of a very long one the
            shorter side is one ``multiple`` at last, whatever the proportion.
        longer: most pixels of the longer side before it is rounded down, >= ``shorter``. None takes
            1333/800 of ``shorter``, rounded down: 639 for 384, which leaves at most 608.
        multiple: both sides are a multiple of it, >= 1: the patch size of the network.
        interpolation: "bilinear" or "bicubic"; both with antialiasing.

    Attributes:
        size: pixels of the shorter side.

    Raises:
        ValueError: if a length is out of its range, or ``interpolation`` is another one.

    Examples:
        >>> KeepAspect(384)(torch.zeros(3, 480, 640, dtype=torch.uint8)).shape
        torch.Size([3, 384, 512])

    Source: arXiv 2102.03334, section 4.2 (dandelin/ViLT), where an image of 1 x 10,000 pixels
    would have a side of 0.
    """

    def __init__(
        self,
        shorter: int = 384,
        longer: int | None = None,
        multiple: int = 32,
        interpolation: Literal["bilinear", "bicubic"] = "bicubic",
    ) -> None:
        if multiple < 1:
            raise InputError(f"KeepAspect.multiple must be >= 1 pixel, got {multiple}.")
        if shorter < 1 or shorter % multiple:
            raise InputError(
                f"KeepAspect.shorter must be a multiple of multiple = {multiple} pixels, got"
                f" {shorter}."
            )
        if longer is not None and longer < shorter:
            raise InputError(
                f"KeepAspect.longer must be at least shorter = {shorter} pixels, got {longer}."
            )
        check_choice("KeepAspect.interpolation", interpolation, ("bilinear", "bicubic"))
        self.size = shorter
        self.longer = shorter * 1333 // 800 if longer is None else longer
        self.multiple = multiple
        self.interpolation = F.InterpolationMode(interpolation)

    def __call__(self, image: Tensor, seed: int = 0) -> Tensor:
        """Transforms one image.

        Args:
            image: ``[C, H, W]`` uint8, at least one pixel.
            seed: has no effect.

        Returns:
            ``[C, h, w]`` uint8; ``image`` itself where nothing has to be done.
        """
        size = self.size_of(*image.shape[-2:])
        return F.resize(image, list(size), self.interpolation, antialias=True)

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width that an image will have, in pixels.

        Args:
            height: of the image, in pixels, >= 1.
            width: of the image, in pixels, >= 1.
        """
        scale = self.size / min(height, width)
        if max(height, width) * scale > self.longer:
            scale = self.longer / max(height, width)
        return self._rounded(height * scale), self._rounded(width * scale)

    def _rounded(self, side: float) -> int:
        return max(int(side + 0.5) // self.multiple, 1) * self.multiple

    def __repr__(self) -> str:
        return (
            f"KeepAspect(shorter={self.size}, longer={self.longer}, multiple={self.multiple},"
            f" interpolation={self.interpolation.value})"
        )
