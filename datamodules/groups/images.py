"""Images with a class and an attribute."""

from __future__ import annotations

from typing import Any

import torchvision.transforms.v2.functional as F
from torch import Tensor

from lit_ssl.datamodules.groups.data import GroupedData
from lit_ssl.datamodules.loading.image_module import ImageDataModule
from lit_ssl.errors import InputError
from lit_ssl.transforms import EvalTransform

__all__ = [
    "CropThenResize",
    "GroupImageDataModule",
    "SquareThenCrop",
]


class GroupImageDataModule(GroupedData, ImageDataModule):
    """Images whose class goes along with an attribute in training, such as its background.

    A batch is ``(images, labels, groups)``, see ``GroupedData``; rows have the columns ``label``
    and ``attribute``.

    Args:
        group_label_fraction: Share of the training rows whose attribute is known, in (0, 1], drawn
            uniformly from those that have one; the others count as unknown (−1). A larger share
            keeps the rows of a smaller one.
        group_label_seed: Seed of that choice; it does not depend on ``seed``, so that methods and
            repetitions are compared on the same rows.
        group_labels: CSV file with an attribute of every training row, predicted where it was not
            known (``lit_ssl.groups.label_files``); with probabilities in it, training batches carry
            float32 ``[B, G]``.
        kwargs: Arguments of ``ImageDataModule``.

    Raises:
        InputError: ``classes_per_batch`` or ``repeats`` is given.
    """

    def __init__(
        self,
        *,
        group_label_fraction: float = 1.0,
        group_label_seed: int = 0,
        group_labels: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if self.classes_per_batch is not None:
            raise InputError(
                f"{type(self).__name__} takes no classes_per_batch: the method weights its training"
                " rows. Leave it out"
            )
        if self.repeats > 1:
            raise InputError(
                f"{type(self).__name__} takes no repeats: the method says how often a row is drawn."
                " Leave it out"
            )
        self._init_groups(group_label_fraction, group_label_seed, group_labels)


class SquareThenCrop(EvalTransform):
    """Resizes to a square, whatever the shape of the image, then cuts out the centre.

    Args:
        size: Pixels per side of the result.
        resize: Pixels per side of the square, >= ``size``.

    Source: the released code of arXiv 1911.08731, for Waterbirds.
    """

    def __init__(self, size: int, resize: int) -> None:
        super().__init__(size, resize=resize)

    def __call__(self, image: Tensor) -> Tensor:
        """Transform uint8 ``[..., C, H, W]``."""
        square = F.resize(image, [self.resize, self.resize], antialias=True)
        return F.center_crop(square, [self.size, self.size])


class CropThenResize(EvalTransform):
    """Cuts out the largest centred square, at most ``crop`` pixels wide, then resizes it.

    Args:
        size: Pixels per side of the result.
        crop: Pixels per side of the part of the image to keep.

    Source: the released code of arXiv 1911.08731, for CelebA (178 of 178 x 218).
    """

    def __init__(self, size: int, crop: int) -> None:
        super().__init__(size)
        self.crop = crop

    def __call__(self, image: Tensor) -> Tensor:
        """Transform uint8 ``[..., C, H, W]``."""
        side = min(self.crop, *image.shape[-2:])
        return F.resize(F.center_crop(image, [side, side]), [self.size, self.size], antialias=True)
