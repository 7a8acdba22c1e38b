"""Everything that happens to a view after it has been cut out, in the order of the recipe."""

from __future__ import annotations

from torch import Tensor

from lit_ssl.transforms.views.blur import gaussian_blur
from lit_ssl.transforms.views.color import equalize, grayscale, jitter, solarize
from lit_ssl.transforms.views.draw import CropParams
from lit_ssl.transforms.views.geometry import affine
from lit_ssl.transforms.views.some_views import on_subset
from lit_ssl.transforms.views.spec import CropSpec


def apply_filters(views: Tensor, params: CropParams, spec: CropSpec) -> Tensor:
    """Blur, solarize and equalize, what follows the colours; see ``apply_effects``.

    Args:
        views: ``[n, C, h, w]`` in [0, 1]; may be overwritten.
        params: drawn parameters of the n views.
        spec: what they were drawn for.
    """
    if spec.blur > 0:
        blurred = params.blur_sigma.nonzero()[:, 0]
        sigma = params.blur_sigma[blurred].numpy()
        views = on_subset(views, blurred, lambda part: gaussian_blur(part, sigma))
    if spec.solarize > 0:
        views = solarize(views, params)
    if spec.equalize > 0:
        views = equalize(views, params)
    return views


def apply_effects(views: Tensor, params: CropParams, spec: CropSpec) -> Tensor:
    """Affine map, jitter, grayscale, blur, solarize and equalize, with each view's own parameters.

    Args:
        views: ``[n, C, h, w]`` float in [0, 1]; may be overwritten.
        params: of the n views, on the CPU.
        spec: the recipe that the parameters were drawn for.

    Returns:
        ``[n, C, h, w]`` float in [0, 1].
    """
    if spec.has_affine:
        views = affine(views, params)
    if spec.has_color:
        views = grayscale(jitter(views, params, spec), params)
    views = apply_filters(views, params, spec)
    return views.clamp_(0, 1)  # rounding may have left 1 + 1e-7
