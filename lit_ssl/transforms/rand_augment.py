"""RandAugment after the crop, for fine-tuning."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from timm.data import rand_augment_transform
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from lit_ssl.errors import InputError
from lit_ssl.transforms.rand_augment_batched import MOVES, Operation, apply_operations
from lit_ssl.transforms.views.multicrop import SingleView
from lit_ssl.transforms.views.spec import CropSpec

__all__ = ["RandAugmentView", "seeded"]

_FILL = (124, 116, 104)  # ImageNet's mean colour


class RandAugmentView(SingleView):
    """One random view per image, and timm's RandAugment on it. For RGB only.

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
        # timm's usual values: largest shift, and the colour to fill with
        options = {"translate_const": int(0.45 * min(self.crop.shape)), "img_mean": _FILL}
        try:
            self._augment = rand_augment_transform(policy, options)
        except (AssertionError, ValueError) as error:
            raise InputError(
                f"timm knows no RandAugment policy {policy!r}: give one such as "
                "rand-m9-mstd0.5-inc1 (magnitude 9, its standard deviation 0.5)"
            ) from error
        for operation in self._augment.ops:
            if operation.name.startswith("Posterize"):
                operation.aug_fn = _posterize

    @property
    def inverts(self) -> bool:
        """Whether the policy may invert an image, so that its colours are others."""
        return any(operation.name == "Invert" for operation in self._augment.ops)

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
        _check_channels(len(image))
        view = to_pil_image(super().__call__(image, seed))
        with seeded(seed):
            return pil_to_tensor(self._augment(view))

    def batched(
        self,
        images: Tensor,
        sizes: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Makes the views of a batch on its device.

        What is done to an image is drawn as in a worker; it is done to all images that share an
        operation at once, and the host never waits for the device. Pixels differ from those of a
        worker by rounding, and moved images by their filter.

        Args:
            images: ``[B, 3, H, W]``; uint8, or float in [0, 1]. Smaller images lie top left.
            sizes: ``[B, 2]`` CPU integers, height and width of each image; all of H and W by
                default.
            generator: CPU generator, the only source of randomness; the global one by default.

        Returns:
            ``[B, 3, h, w]`` float32 in [0, 1].

        Raises:
            ValueError: if the images have not three channels.
        """
        if images.ndim == 4:
            _check_channels(images.shape[1])
        views = super().batched(images, sizes, generator)
        with seeded(int(torch.randint(2**32, (), generator=generator))):
            drawn = [self._draw() for _ in range(len(views))]
        return apply_operations(views, list(zip(*drawn, strict=True)), _FILL)

    def _draw(self) -> list[Operation | None]:
        """What timm's RandAugment would do to one image, one entry for each step."""
        policy: Any = self._augment
        done: list[Operation | None] = []
        chosen = np.random.choice(  # noqa: NPY002
            len(policy.ops), policy.num_layers, policy.choice_weights is None, policy.choice_weights
        )
        for index in chosen:
            operation = copy.copy(policy.ops[index])
            operation.aug_fn = partial(_record, operation.name)
            done.append(operation(None))
        return done

    def __repr__(self) -> str:
        return f"RandAugmentView({self.crop}, {self.policy!r})"


def _check_channels(channels: int) -> None:
    if channels != 3:
        raise InputError(
            f"RandAugmentView needs images with 3 channels, got {channels}: use SingleView"
        )


def _posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """Keep the highest bits; none: black, which newer versions of Pillow refuse to make."""
    black = Image.new(image.mode, image.size)
    return ImageOps.posterize(image, min(bits, 8)) if bits >= 1 else black


def _record(name: str, image: None, *values: float, resample: Any, fillcolor: Any) -> Operation:
    """Stands for an operation of timm, and says what it would do."""
    smooth = name in MOVES and random.choice(resample) == Image.Resampling.BICUBIC
    return Operation(name, values[0] if values else 0.0, smooth)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the generators that timm draws from, and give them their state back.

    Args:
        seed: >= 0.
    """
    state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)  # noqa: NPY002
