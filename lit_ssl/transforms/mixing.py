"""Mixup and CutMix of a batch with soft labels."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms import v2

from lit_ssl.errors import InputError

__all__ = ["BatchMixing"]


class BatchMixing:
    """Mixup or CutMix, torchvision's, on a batch on its device.

    One of the two is chosen at random for each batch where both are on. All random numbers come
    from torch's global CPU generator.

    Args:
        mixup: parameter α of mixup's Beta distribution; 0 leaves mixup out.
        cutmix: likewise for CutMix.

    Raises:
        ValueError: if a value is negative, or both are 0.

    Source: arXiv 1710.09412 and 1905.04899; the even choice between them as in DeiT.
    """

    def __init__(self, mixup: float = 0.0, cutmix: float = 0.0) -> None:
        if min(mixup, cutmix) < 0 or mixup == cutmix == 0:
            raise InputError(
                f"mixup and cutmix must be >= 0 and one of them positive, not {mixup} and {cutmix}"
            )
        kinds = [v2.MixUp(alpha=mixup)] if mixup else []
        self.kinds = kinds + ([v2.CutMix(alpha=cutmix)] if cutmix else [])

    def __call__(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Mix each image and its target with those of another of the batch.

        Args:
            images: ``[B, C, H, W]``, float.
            targets: ``[B, K]``, float.

        Returns:
            Tensors of the same shapes.
        """
        index = int(torch.randint(len(self.kinds), ())) if len(self.kinds) > 1 else 0
        return self.kinds[index](images, targets)
