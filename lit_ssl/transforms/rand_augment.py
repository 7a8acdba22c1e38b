"""RandAugment after the crop, for fine-tuning."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from timm.data import rand_augment_transform
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from lit_ssl.errors import InputError
from lit_ssl.transforms.views.multicrop import SingleView
from lit_ssl.transforms.views.spec import CropSpec

__all__ = ["RandAugmentView"]


class RandAugmentView(SingleView):
    """One random view per image, and timm's RandAugment on it. In workers and for RGB only.

    Args:
        crop: the kind of view, with ``count`` 1.
        policy: in timm's notation: ``rand-m9-mstd0.5-inc1`` is two operations of magnitude 9 ± 0.5,
            all of which grow stronger with it.

    Raises:
        ValueError: if ``count`` is not 1, or timm does not know the policy.

    Source: arXiv 1909.13719; the policy of DeiT and MAE.
    """

    def __init__(self, crop: CropSpec, policy: str = "rand-m9-mstd0.5-inc1") -> None:
        super().__init__(crop)
        self.policy = policy
        # timm's usual values: largest shift, and ImageNet's mean colour to fill with
        options = {"translate_const": int(0.45 * min(self.crop.shape)), "img_mean": (124, 116, 104)}
        try:
            self._augment = rand_augment_transform(policy, options)
        except (AssertionError, ValueError) as error:
            raise InputError(
                f"timm knows no RandAugment policy {policy!r}: give one such as "
                "rand-m9-mstd0.5-inc1 (magnitude 9, its standard deviation 0.5)"
            ) from error

    def __call__(self, image: Tensor, seed: int) -> Tensor:
        """Makes the view of one image, in a worker.

        Args:
            image: ``[3, H, W]`` uint8.
            seed: the only source of randomness.

        Returns:
            ``[3, h, w]`` uint8.

        Raises:
            ValueError: if the image has not three channels.
        """
        if len(image) != 3:
            raise InputError(
                f"RandAugmentView needs images with 3 channels, got {len(image)}: use SingleView"
            )
        view = to_pil_image(super().__call__(image, seed))
        with _seeded(seed):
            return pil_to_tensor(self._augment(view))

    def batched(
        self,
        images: Tensor,
        sizes: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Not possible on the device.

        Raises:
            ValueError: always.
        """
        raise InputError("RandAugmentView works on single images in workers: set augment: worker")

    def __repr__(self) -> str:
        return f"RandAugmentView({self.crop}, {self.policy!r})"


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the generators that timm draws from, and give them their state back."""
    state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)  # noqa: NPY002
