"""Views of one image, made in a data loader's worker.

Resizing, brightness, contrast, saturation and grayscale are torchvision's; the affine map, hue and
blur are those of the device engine, which give the same values faster.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torchvision.transforms.v2.functional as F
from torch import Tensor
from torch.nn.functional import interpolate

from lit_ssl.errors import InputError, InputTypeError
from lit_ssl.transforms.views.color import shift_hue
from lit_ssl.transforms.views.draw import HUE, CropParams
from lit_ssl.transforms.views.effects import apply_filters
from lit_ssl.transforms.views.geometry import affine
from lit_ssl.transforms.views.spec import CropSpec


def check_image(image: Tensor) -> None:
    """Raises unless ``image`` is what a worker recipe takes.

    Args:
        image: to check.

    Raises:
        TypeError: if it is not a uint8 tensor.
        ValueError: if it is not ``[C, H, W]``.
    """
    if not isinstance(image, Tensor) or image.dtype != torch.uint8:
        found = image.dtype if isinstance(image, Tensor) else type(image).__name__
        raise InputTypeError(
            f"A view recipe takes one image as a uint8 tensor [C, H, W], got {found}. Convert "
            "Pillow images with torchvision.transforms.v2.functional.pil_to_tensor."
        )
    if image.ndim != 3 or 0 in image.shape:
        raise InputError(
            f"A view recipe takes one image of shape [C, H, W], got {list(image.shape)}. "
            "For a batch call its method `batched`."
        )


def _adjust_hue(view: Tensor, shift: float) -> Tensor:
    # Torchvision's function takes three to eight times as long.
    return shift_hue(view[None], shift)[0] if view.shape[0] == 3 else view


_JITTER: tuple[Callable[[Tensor, float], Tensor], ...] = (
    F.adjust_brightness_image,
    F.adjust_contrast_image,
    F.adjust_saturation_image,
    _adjust_hue,
)


def _change_colors(view: Tensor, drawn: CropParams) -> Tensor:
    """Jitter and grayscale of one float view ``[C, h, w]`` in [0, 1]; ``drawn`` holds numbers."""
    factors = (drawn.brightness, drawn.contrast, drawn.saturation, drawn.hue)
    for operation in drawn.order:
        if factors[operation] != (0 if operation == HUE else 1):
            view = _JITTER[operation](view, factors[operation])
    if drawn.grayscale and view.shape[0] == 3:
        view = F.rgb_to_grayscale_image(view, num_output_channels=3)
    return view


def _cut(image: Tensor, drawn: CropParams, shape: tuple[int, int]) -> Tensor:
    """The resized crop of one view, uint8 ``[1, C, h, w]``; ``drawn`` holds numbers."""
    top, left = drawn.top, drawn.left
    crop = image[None, :, top : top + drawn.height, left : left + drawn.width]
    crop = interpolate(crop, shape, mode="bilinear", antialias=True)
    return crop.flip(-1) if drawn.flip else crop


def make_views(image: Tensor, params: CropParams, spec: CropSpec) -> Tensor:
    """Applies drawn parameters to one image.

    The crop is resized in 8 bits; what follows runs in float32 and is rounded once, at the end.

    Args:
        image: ``[C, H, W]`` uint8.
        params: of n views.
        spec: the recipe that the parameters were drawn for.

    Returns:
        ``[n, C, h, w]`` uint8.
    """
    spec.check_channels(image.shape[0])
    rows = list(map(CropParams._make, zip(*(field.tolist() for field in params), strict=True)))
    result = torch.empty(len(rows), image.shape[0], *spec.shape, dtype=torch.uint8)
    # Inference mode only saves overhead; the result, made outside of it, is an ordinary tensor.
    with torch.inference_mode():
        cuts = torch.cat([_cut(image, drawn, spec.shape) for drawn in rows])
        if spec.only_crops:
            return result.copy_(cuts)
        views = cuts / 255
        if spec.has_affine:
            views = affine(views, params)
        if spec.has_color:
            for view, drawn in zip(views, rows, strict=True):
                view.copy_(_change_colors(view, drawn))
        views = apply_filters(views, params, spec)
        return result.copy_(views.mul_(255).round_())
