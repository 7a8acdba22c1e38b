"""RandAugment for images that a text speaks of."""

from __future__ import annotations

from typing import Any, Literal

from PIL import Image, ImageOps
from timm.data.auto_augment import RandAugment, rand_augment_ops
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from lit_ssl.errors import InputError
from lit_ssl.transforms.evaluation import EvalTransform
from lit_ssl.transforms.keep_aspect import ImageView, KeepAspect
from lit_ssl.transforms.rand_augment import seeded

__all__ = ["CaptionRandAugment", "CenterCropRandAugment", "KeepAspectRandAugment"]

_OPERATIONS = (
    "AutoContrast", "Equalize", "Rotate", "Posterize", "Solarize", "SolarizeAdd", "Color",
    "Contrast", "Brightness", "Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY",
)  # fmt: skip
_STRONGEST = 30  # magnitude on ViLT's scale; 10 on timm's
_LARGEST_SHIFT = 100  # pixels, at that magnitude
_BLACK = (0, 0, 0)


class CaptionRandAugment(ImageView):
    """Base of views that are resized, and then distorted by the RandAugment of ViLT and METER.

    Each of ``num_ops`` steps takes one of fourteen operations, all equally likely, and always does
    it: AutoContrast, Equalize, Rotate (9° at magnitude 9, either way), Posterize (1 bit), Solarize
    (values from 76 up are inverted), SolarizeAdd (33 more where a value is below 128), Color,
    Contrast, Brightness, Sharpness (factor 0.64), ShearX, ShearY (0.09, either way), TranslateX,
    TranslateY (30 pixels, either way). Invert and Cutout are left out, since texts speak of colours
    and of small things, and no image is flipped, since they speak of left and right.

    The magnitude goes from 0 to 30. Only moves grow with it: Posterize, Solarize and the factors
    are the stronger, the smaller it is, and Solarize at 0 is Invert.

    The operations are timm's. In the code of ViLT images are distorted before they are resized,
    not after, and moved to the nearest pixel in place of bilinear interpolation (what comes in from
    outside is black in both); its SolarizeAdd adds to all values, and inverts those from 128 up.

    Args:
        resize: what is done first, the same for every seed.
        num_ops: operations per image, >= 0.
        magnitude: their strength, in [0, 30].

    Attributes:
        resize: as given: evaluation images are transformed by it alone.

    Raises:
        ValueError: if a number is out of its range.

    Source: arXiv 2102.03334, section 3.4 (dandelin/ViLT); arXiv 2111.02387.
    """

    def __init__(self, resize: EvalTransform | KeepAspect, num_ops: int, magnitude: float) -> None:
        if num_ops < 0:
            raise InputError(f"{type(self).__name__}.num_ops must be >= 0, got {num_ops}.")
        if not 0 <= magnitude <= _STRONGEST:
            raise InputError(
                f"{type(self).__name__}.magnitude must be in [0, {_STRONGEST}], got {magnitude}."
            )
        self.resize = resize
        self.num_ops = num_ops
        self.magnitude = magnitude
        options = {
            "translate_const": _LARGEST_SHIFT,
            "img_mean": _BLACK,
            "interpolation": Image.Resampling.BILINEAR,
        }
        operations = rand_augment_ops(
            magnitude=magnitude * 10 / _STRONGEST,
            prob=1.0,
            hparams=options,
            transforms=list(_OPERATIONS),
        )
        for operation in operations:
            if operation.name == "Posterize":
                operation.aug_fn = _posterize
        self._augment = RandAugment(operations, num_ops)

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
                f"{type(self).__name__} needs images with 3 channels, got {len(image)}"
            )
        view = to_pil_image(self.resize(image))
        with seeded(seed):
            return pil_to_tensor(self._augment(view))

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.resize}, num_ops={self.num_ops},"
            f" magnitude={self.magnitude})"
        )


class KeepAspectRandAugment(CaptionRandAugment):
    """``KeepAspect``, then RandAugment: the views that ViLT is fine-tuned on.

    Args:
        shorter: pixels of the shorter side; this and the next three as in
            [`KeepAspect`][lit_ssl.transforms.KeepAspect].
        longer: most pixels of the longer side.
        multiple: both sides are a multiple of it.
        interpolation: of the resize.
        num_ops: operations per image; see ``CaptionRandAugment``.
        magnitude: their strength, in [0, 30].
    """

    def __init__(
        self,
        shorter: int = 384,
        longer: int | None = None,
        multiple: int = 32,
        interpolation: Literal["bilinear", "bicubic"] = "bicubic",
        num_ops: int = 2,
        magnitude: float = 9,
    ) -> None:
        super().__init__(KeepAspect(shorter, longer, multiple, interpolation), num_ops, magnitude)


class CenterCropRandAugment(CaptionRandAugment):
    """Shorter side resized, centre cut out, then RandAugment: the views METER is fine-tuned on.

    All views have one size, as networks need them that read no padding.

    Args:
        size: pixels per side of the view; this and the next two as in
            [`EvalTransform`][lit_ssl.transforms.EvalTransform].
        resize: pixels of the shorter side before the crop.
        interpolation: of the resize.
        num_ops: operations per image; see ``CaptionRandAugment``.
        magnitude: their strength, in [0, 30].
    """

    def __init__(
        self,
        size: int = 384,
        resize: int | None = None,
        interpolation: Literal["bilinear", "bicubic"] = "bicubic",
        num_ops: int = 2,
        magnitude: float = 9,
    ) -> None:
        transform = EvalTransform(size, resize, interpolation=interpolation)
        super().__init__(transform, num_ops, magnitude)


def _posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """Keep the highest bits, at least one: timm's would make a black image of none."""
    return ImageOps.posterize(image, max(bits, 1))
