"""Batched colour operations with one parameter per view, in the arithmetic of torchvision.

All work on float views ``[n, C, h, w]`` in [0, 1] with C = 1 or 3.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
import torchvision.transforms.v2.functional as F
from torch import Tensor

from lit_ssl.transforms.views.draw import CONTRAST, HUE, SATURATION, CropParams
from lit_ssl.transforms.views.some_views import on_subset, upload
from lit_ssl.transforms.views.spec import CropSpec


@functools.lru_cache
def _hue_offsets(device: torch.device) -> Tensor:
    """Where red, green and blue peak on the colour wheel, ``[3, 1, 1]`` in turns."""
    with torch.inference_mode(False):
        return upload(torch.tensor([0, -1 / 3, -2 / 3]).view(3, 1, 1), device)


def luminance(views: Tensor) -> Tensor:
    """Grey value of each pixel, ``[n, 1, h, w]`` (ITU-R 601 weights).

    Args:
        views: ``[n, C, h, w]``, C 3 (red, green, blue) or 1, which is grey already.
    """
    if views.shape[-3] == 1:
        return views
    red, green, blue = views.split(1, dim=-3)
    return (red * 0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)


def shift_hue(views: Tensor, shift: Tensor | float) -> Tensor:
    """Turns the hue of each view.

    Args:
        views: ``[n, 3, h, w]`` float in [0, 1].
        shift: in turns, ``[n, 1, 1, 1]`` or one number.

    Returns:
        ``[n, 3, h, w]``.
    """
    red, green, blue = views.split(1, dim=-3)
    # Sorting the channels step by step gives value, chroma and, from the swaps, the sector of the
    # hue. Comparisons in place yield 0.0 or 1.0 and vectorise, boolean masks do not.
    upper, lower = torch.maximum(green, blue), torch.minimum(green, blue)
    value, middle = torch.maximum(red, upper), torch.minimum(red, upper)
    chroma = value - torch.minimum(red, lower)
    swapped = green.clone().lt_(blue)
    red_below = red.clone().lt_(upper)
    sector = torch.addcmul(swapped, red_below, swapped - 1 / 6, value=-2)
    slope = (middle - lower).div_(chroma + 1e-20)
    hue = torch.add(sector, slope, alpha=-1 / 6).abs_()  # in turns
    # A channel is the value where its distance on the colour wheel is below 1/6, and less by the
    # chroma beyond 1/3.
    distance = hue + (_hue_offsets(views.device) + shift)
    distance.sub_(distance.round()).abs_().clamp_(1 / 6, 1 / 3)
    return torch.addcmul(value + chroma, distance, chroma, value=-6)


class Step(NamedTuple):
    """One position of the jitter's order, for all views.

    Brightness, contrast and saturation are one formula: ``scale * view + (1 - scale) * reference``,
    with black, the mean luminance or the pixel's luminance as the reference.
    """

    scale: Tensor  # [n], 1 where the operation is hue
    to_mean: Tensor  # [n], 1 - scale where the operation is contrast, else 0
    to_gray: Tensor  # [n], 1 - scale where the operation is saturation, else 0
    hue: Tensor  # indices of the views whose operation is hue


def plan_jitter(params: CropParams, spec: CropSpec, channels: int) -> list[Step]:
    """Splits the jitter into steps; operations that cannot change anything take no part.

    Args:
        params: drawn parameters of n views.
        spec: whose strengths they were drawn for.
        channels: 3 or 1; grey views have no saturation and no hue.

    Returns:
        At most four steps, with the operations of each view in the order that was drawn for it.
    """
    strength = [spec.brightness, spec.contrast, spec.saturation, spec.hue]
    if channels == 1:
        strength[SATURATION] = strength[HUE] = 0
    active = torch.tensor([value > 0 for value in strength])
    num_steps = int(active.sum()) if spec.jitter_prob > 0 else 0
    if num_steps == 0:
        return []
    order = params.order
    if num_steps < len(strength):
        order = order[active[order]].view(-1, num_steps)
    factors = torch.stack(
        [params.brightness, params.contrast, params.saturation, torch.ones_like(params.hue)], dim=1
    )
    scale = factors.gather(1, order)
    to_mean = (order == CONTRAST) * (1 - scale)
    to_gray = (order == SATURATION) * (1 - scale)
    turns = (order == HUE) & (params.hue != 0)[:, None]
    return [
        Step(scale[:, i], to_mean[:, i], to_gray[:, i], turns[:, i].nonzero()[:, 0])
        for i in range(num_steps)
    ]


def _blend(views: Tensor, step: Step) -> Tensor:
    """Brightness, contrast and saturation of one step, in place."""
    device = views.device
    reference: Tensor | None = None
    mixes_mean, mixes_gray = bool(step.to_mean.any()), bool(step.to_gray.any())
    if not mixes_mean and not mixes_gray and bool((step.scale == 1).all()):
        return views
    scale, to_mean, to_gray = upload(torch.stack([step.scale, step.to_mean, step.to_gray]), device)[
        :, :, None, None, None
    ]
    if mixes_mean or mixes_gray:
        gray = luminance(views)
        if mixes_mean:
            reference = gray.mean((-2, -1), keepdim=True).mul_(to_mean)
        if mixes_gray:
            colored = gray * to_gray
            reference = colored if reference is None else colored.add_(reference)
    views.mul_(scale)
    return (views if reference is None else views.add_(reference)).clamp_(0, 1)


def jitter(views: Tensor, params: CropParams, spec: CropSpec) -> Tensor:
    """Colour jitter, each view in its own order.

    Args:
        views: ``[n, C, h, w]`` float in [0, 1]; may be overwritten.
        params: of the n views, on the CPU.
        spec: tells which operations are on.

    Returns:
        ``[n, C, h, w]``.
    """
    for step in plan_jitter(params, spec, views.shape[-3]):
        views = _blend(views, step)
        if len(step.hue) > 0:
            shift = upload(params.hue[step.hue], views.device).view(-1, 1, 1, 1)
            views = on_subset(views, step.hue, functools.partial(shift_hue, shift=shift))
    return views


def grayscale(views: Tensor, params: CropParams) -> Tensor:
    """Replaces the colours of the chosen views by their luminance; may overwrite ``views``.

    Args:
        views: ``[n, C, h, w]`` in [0, 1], C 3 or 1.
        params: drawn parameters, which choose.
    """
    if views.shape[-3] == 1:
        return views
    chosen = params.grayscale.nonzero()[:, 0]
    return on_subset(views, chosen, lambda part: luminance(part).expand_as(part))


def solarize(views: Tensor, params: CropParams) -> Tensor:
    """Inverts the bright pixels of the chosen views; may overwrite ``views``.

    Args:
        views: ``[n, C, h, w]`` in [0, 1].
        params: drawn parameters, which choose, and say from which value on.
    """
    chosen = params.solarize.nonzero()[:, 0]
    levels = params.solarize_level[chosen].view(-1, 1, 1, 1)

    def invert(part: Tensor) -> Tensor:
        return torch.where(part >= upload(levels, part.device), 1 - part, part)

    return on_subset(views, chosen, invert)


def equalize(views: Tensor, params: CropParams) -> Tensor:
    """Equalises the 8-bit histograms of the chosen views' channels; may overwrite ``views``.

    Args:
        views: ``[n, C, h, w]`` in [0, 1].
        params: drawn parameters, which choose.
    """
    return on_subset(views, params.equalize.nonzero()[:, 0], equalized)


def equalized(views: Tensor) -> Tensor:
    """Equalises the 8-bit histogram of each view's channels.

    Args:
        views: ``[n, C, h, w]`` in [0, 1], rounded to 8 bits first.
    """
    pixels = views.mul(255).round_().to(torch.uint8)
    return F.equalize_image(pixels).to(views.dtype).div_(255)
