"""View recipes: several kinds of views per image, or a single augmented one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lit_ssl.errors import InputError, InputTypeError
from lit_ssl.transforms.views.device import check_batch, make_batched_views
from lit_ssl.transforms.views.draw import draw_params
from lit_ssl.transforms.views.spec import CropSpec
from lit_ssl.transforms.views.worker import check_image, make_views


def _worker_views(crops: Sequence[CropSpec], image: Tensor, seed: int) -> list[Tensor]:
    check_image(image)
    generator = torch.Generator().manual_seed(seed)
    views = []
    for spec in crops:
        heights, widths = torch.tensor(image.shape[-2:])[:, None].expand(2, spec.count)
        params = draw_params(spec, heights, widths, generator)
        views.append(make_views(image, params, spec))
    return views


def _device_views(
    crops: Sequence[CropSpec],
    images: Tensor,
    sizes: Tensor | None,
    generator: torch.Generator | None,
) -> list[Tensor]:
    check_batch(images, sizes)
    if sizes is None:
        sizes = torch.tensor(images.shape[-2:]).expand(len(images), 2)
    drawn = []
    for spec in crops:
        heights, widths = sizes.repeat_interleave(spec.count, dim=0).unbind(1)
        drawn.append((draw_params(spec, heights, widths, generator), spec))
    return make_batched_views(images, drawn)


def _as_spec(crop: CropSpec | Mapping[str, Any], owner: str) -> CropSpec:
    if isinstance(crop, Mapping):
        return CropSpec(**crop)
    if not isinstance(crop, CropSpec):
        raise InputTypeError(
            f"{owner} takes CropSpec or a mapping of its arguments, got {type(crop).__name__}."
        )
    return crop


class MultiCrop:
    """Several random views per image, of one or more kinds.

    Args:
        crops: the kinds of views, large ones first.

    Raises:
        ValueError: if there is no kind of view.
        TypeError: if an entry is not a ``CropSpec``.

    Examples:
        >>> recipe = MultiCrop([CropSpec(size=224, count=2), CropSpec(size=96, count=10)])
        >>> image = torch.zeros(3, 375, 500, dtype=torch.uint8)
        >>> [list(views.shape) for views in recipe(image, seed=0)]
        [[2, 3, 224, 224], [10, 3, 96, 96]]
    """

    def __init__(self, crops: list[CropSpec]) -> None:
        if len(crops) == 0:
            raise InputError("MultiCrop needs at least one CropSpec, got an empty list.")
        self.crops = [_as_spec(crop, "MultiCrop") for crop in crops]

    def __call__(self, image: Tensor, seed: int) -> list[Tensor]:
        """Makes the views of one image, in a worker.

        Args:
            image: ``[C, H, W]`` uint8.
            seed: the only source of randomness.

        Returns:
            One uint8 tensor ``[count, C, h, w]`` per kind of view.
        """
        return _worker_views(self.crops, image, seed)

    def batched(
        self,
        images: Tensor,
        sizes: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> list[Tensor]:
        """Makes the views of a batch on its device, each view with its own random parameters.

        Args:
            images: ``[B, C, H, W]``; uint8, or float in [0, 1]. Smaller images lie top left.
            sizes: ``[B, 2]`` CPU integers, height and width of each image; all of H and W by
                default.
            generator: CPU generator, the only source of randomness; the global one by default.

        Returns:
            One float32 tensor ``[B, count, C, h, w]`` in [0, 1] per kind of view.
        """
        return _device_views(self.crops, images, sizes, generator)

    def __repr__(self) -> str:
        return f"MultiCrop({self.crops})"


class SingleView:
    """One random view per image: the augmentation of supervised training and of linear probes.

    Args:
        crop: the kind of view, with ``count`` 1.

    Raises:
        ValueError: if ``count`` is not 1.
    """

    def __init__(self, crop: CropSpec) -> None:
        crop = _as_spec(crop, "SingleView")
        if crop.count != 1:
            raise InputError(
                f"SingleView makes one view, got a CropSpec with count {crop.count}. "
                "Set count to 1 or use MultiCrop."
            )
        self.crop = crop

    def __call__(self, image: Tensor, seed: int) -> Tensor:
        """Makes the view of one image, in a worker.

        Args:
            image: ``[C, H, W]`` uint8.
            seed: the only source of randomness.

        Returns:
            ``[C, h, w]`` uint8.
        """
        return _worker_views([self.crop], image, seed)[0][0]

    def batched(
        self,
        images: Tensor,
        sizes: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Makes one view per image of a batch, on its device.

        Args:
            images: ``[B, C, H, W]``; uint8, or float in [0, 1]. Smaller images lie top left.
            sizes: ``[B, 2]`` CPU integers, height and width of each image; all of H and W by
                default.
            generator: CPU generator, the only source of randomness; the global one by default.

        Returns:
            ``[B, C, h, w]`` float32 in [0, 1].
        """
        return _device_views([self.crop], images, sizes, generator)[0][:, 0]

    def __repr__(self) -> str:
        return f"SingleView({self.crop})"
