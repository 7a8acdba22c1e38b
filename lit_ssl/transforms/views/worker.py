"""Views of one image, made in a data loader's worker.

Resizing is torch's in 8 bits, fastest for an image with the strides of ``[H, W, C]``, as decoders
write it; the result does not depend on the strides. Jitter and grayscale work in place, one view at
a time; the affine map, hue and blur are those of the device engine.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from lit_ssl.errors import InputError, InputTypeError
from lit_ssl.transforms.views.color import luminance, shift_hue
from lit_ssl.transforms.views.draw import BRIGHTNESS, CONTRAST, HUE, SATURATION, CropParams
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


def _change_colors(view: Tensor, drawn: CropParams) -> None:
    """Jitter and grayscale of one float view ``[C, h, w]`` in [0, 1], in place.

    The arithmetic is that of torchvision's functions, which make a new tensor in every step.
    """
    factors = (drawn.brightness, drawn.contrast, drawn.saturation, drawn.hue)
    is_grey = view.shape[0] == 1
    for operation in drawn.order:
        factor = factors[operation]
        if operation == HUE:
            if factor != 0 and not is_grey:
                view.copy_(shift_hue(view[None], factor)[0])
        elif factor != 1 and not (operation == SATURATION and is_grey):
            _blend(view, operation, float(factor))
    if drawn.grayscale:
        view.copy_(luminance(view))


def _blend(view: Tensor, operation: int, factor: float) -> None:
    """Moves a view away from, or towards, black, its mean luminance or its luminance."""
    if operation == BRIGHTNESS:
        view.mul_(factor)
    else:
        reference = luminance(view)
        if operation == CONTRAST:
            reference = reference.mean((-3, -2, -1), keepdim=True)
        view.mul_(factor).add_(reference, alpha=1 - factor)
    view.clamp_(0, 1)


def _cut_all(image: Tensor, rows: list[CropParams], views: Tensor) -> Tensor:
    """Writes the resized crops of an image, in 8 bits, to ``views``, ``[n, C, h, w]``."""
    shape = views.shape[-2], views.shape[-1]
    for view, drawn in zip(views, rows, strict=True):
        top, left = drawn.top, drawn.left
        crop = image[None, :, top : top + drawn.height, left : left + drawn.width]
        crop = interpolate(crop, shape, mode="bilinear", antialias=True)
        view.copy_(crop[0].flip(-1) if drawn.flip else crop[0])
    return views


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
    size = (len(rows), image.shape[0], *spec.shape)
    result = torch.empty(size, dtype=torch.uint8)
    # Inference mode only saves overhead; the result, made outside of it, is an ordinary tensor.
    with torch.inference_mode():
        if spec.only_crops:
            return _cut_all(image, rows, result)
        # planar from here on: colours work on one channel at a time
        views = _cut_all(image, rows, torch.empty(size)).div_(255)
        if spec.has_affine:
            views = affine(views, params)
        if spec.has_color:
            for view, drawn in zip(views, rows, strict=True):
                _change_colors(view, drawn)
        views = apply_filters(views, params, spec).mul_(255).round_()
        return result.copy_(views.to(torch.int16))  # straight to 8 bits takes three times as long
