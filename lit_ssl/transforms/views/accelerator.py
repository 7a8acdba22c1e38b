"""Views of a batch on an accelerator: one upload of parameters, one kernel per step of colours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor

from lit_ssl.transforms.views.blur import blur_by_matrices, blur_taps
from lit_ssl.transforms.views.color import equalized, luminance, plan_jitter
from lit_ssl.transforms.views.compiled import fused
from lit_ssl.transforms.views.draw import CropParams
from lit_ssl.transforms.views.geometry import affine_by, affine_matrices, boxes, cut_boxes
from lit_ssl.transforms.views.some_views import on_places, upload_together
from lit_ssl.transforms.views.spec import CropSpec


@dataclass
class _Parameters:
    """Parameters of n views of one kind, float32; an entry is empty where its operation is off.

    Attributes:
        boxes: ``[4, n]``, top, height, left, width.
        flip: ``[n]``, 1 where a view is mirrored.
        theta: ``[n, 2, 3]``, affine maps.
        steps: ``[S, 4, n, 1, 1, 1]``, the steps of the colours: see ``recolored``.
        level: ``[n, 1, 1, 1]``, of solarize; above all values where it is off.
        blurred: ``[m]``, which views are blurred.
        taps_y: ``[m, r]``, their kernels along the height; empty for squares.
        taps_x: ``[m, r]``, along the width.
        equalize: ``[k]``, which views' histograms are equalised.
    """

    boxes: Tensor
    flip: Tensor
    theta: Tensor
    steps: Tensor
    level: Tensor
    blurred: Tensor
    taps_y: Tensor
    taps_x: Tensor
    equalize: Tensor

    def tensors(self) -> list[Tensor]:
        return [getattr(self, field.name) for field in fields(self)]


def accelerated_views(parts: Sequence[tuple[Tensor, CropParams, CropSpec]]) -> Iterator[Tensor]:
    """Applies drawn parameters; the host copies them once and waits for nothing.

    Args:
        parts: pieces of a batch ``[B, C, H, W]``, uint8 or float in [0, 1], with the parameters of
            the n = B * count views of each and their recipe.

    Yields:
        For each piece ``[n, C, h, w]`` float32 in [0, 1].
    """
    parameters = [_parameters(params, spec, images.shape[1]) for images, params, spec in parts]
    together = [tensor for one in parameters for tensor in one.tensors()]
    moved = iter(upload_together(together, parts[0][0].device))
    count = len(fields(_Parameters))
    for images, _, spec in parts:
        yield _views(images, _Parameters(*(next(moved) for _ in range(count))), spec)


def _parameters(params: CropParams, spec: CropSpec, channels: int) -> _Parameters:
    none = torch.empty(0)
    views = len(params.top)
    blurred = params.blur_sigma.nonzero()[:, 0] if spec.blur > 0 else none
    taps_y = taps_x = none
    if len(blurred):
        sigma = params.blur_sigma[blurred].numpy()
        taps_x = torch.from_numpy(blur_taps(sigma, spec.shape[1]))
        if spec.shape[0] != spec.shape[1]:
            taps_y = torch.from_numpy(blur_taps(sigma, spec.shape[0]))
    level = none
    if spec.solarize > 0:
        level = params.solarize_level.where(params.solarize, torch.inf).view(views, 1, 1, 1)
    return _Parameters(
        boxes=boxes(params),
        flip=params.flip.float() if spec.hflip > 0 else none,
        theta=affine_matrices(params, spec.shape) if spec.has_affine else none,
        steps=_steps(params, spec, channels) if spec.has_color else none,
        level=level,
        blurred=blurred.float(),
        taps_y=taps_y,
        taps_x=taps_x,
        equalize=params.equalize.nonzero()[:, 0].float() if spec.equalize > 0 else none,
    )


def _steps(params: CropParams, spec: CropSpec, channels: int) -> Tensor:
    """The jitter's steps, and grayscale as one more: a saturation of 0."""
    off = torch.zeros(len(params.top))
    steps = []
    for step in plan_jitter(params, spec, channels):
        turn = off.index_copy(0, step.hue, params.hue[step.hue])
        steps.append(torch.stack([step.scale, step.to_mean, step.to_gray, turn]))
    if spec.grayscale > 0 and channels == 3:
        gray = params.grayscale.float()
        steps.append(torch.stack([1 - gray, off, gray, off]))
    if not steps:
        return torch.empty(0)
    return torch.stack(steps)[:, :, :, None, None, None]


def _views(images: Tensor, own: _Parameters, spec: CropSpec) -> Tensor:
    device = images.device
    views = cut_boxes(images, own.boxes, own.flip > 0 if len(own.flip) else None, spec.shape)
    if len(own.theta):
        views = affine_by(views, own.theta)
    for step in own.steps:
        mean = luminance(views.mean((-2, -1), keepdim=True)) if spec.contrast > 0 else step[1]
        views = fused(recolored, device)(views, step, mean)
    if len(own.blurred):
        taps = [part for part in (own.taps_y, own.taps_x) if len(part)]
        views = on_places(views, own.blurred.long(), partial(blur_by_matrices, taps=taps))
    if len(own.level):
        views = fused(solarized, device)(views, own.level)
    if len(own.equalize):
        views = on_places(views, own.equalize.long(), equalized)
    return views.clamp_(0, 1)  # rounding may have left 1 + 1e-7


def recolored(views: Tensor, step: Tensor, mean: Tensor) -> Tensor:
    """Brightness, contrast, saturation or hue of each view: whichever its turn is.

    ``scale * view + to_mean * mean + to_gray * luminance``, then the hue turned by ``turn``.

    Args:
        views: ``[n, C, h, w]`` float in [0, 1], with C = 1 or 3.
        step: ``[4, n, 1, 1, 1]``, scale, to_mean, to_gray and turn of each view.
        mean: ``[n, 1, 1, 1]``, mean luminance of each view.

    Returns:
        ``[n, C, h, w]``.
    """
    scale, to_mean, to_gray, turn = step.unbind()
    if views.shape[1] == 1:
        return (views * scale + to_mean * mean).clamp(0, 1)
    added = to_mean * mean + to_gray * luminance(views)
    red, green, blue = ((views * scale) + added).clamp(0, 1).split(1, dim=1)
    upper, lower = torch.maximum(green, blue), torch.minimum(green, blue)
    value = torch.maximum(red, upper)
    chroma = value - torch.minimum(red, lower)
    slope = (torch.minimum(red, upper) - lower) / (chroma + 1e-20)
    # The hue in turns, from the order of the channels, as in ``shift_hue``.
    swapped = (green < blue).to(views.dtype)
    sector = swapped - 2 * (red < upper).to(views.dtype) * (swapped - 1 / 6)
    hue = (sector - slope / 6).abs() + turn

    def turned(channel: Tensor, offset: float) -> Tensor:
        distance = hue - offset
        distance = (distance - distance.round()).abs().clamp(1 / 6, 1 / 3)
        return torch.where(turn == 0, channel, value + chroma - 6 * distance * chroma)

    return torch.cat([turned(red, 0), turned(green, 1 / 3), turned(blue, 2 / 3)], dim=1)


def solarized(views: Tensor, level: Tensor) -> Tensor:
    """Inverts the pixels that reach the level of their view, ``[n, 1, 1, 1]``.

    Args:
        views: ``[n, C, h, w]`` in [0, 1].
        level: of each view; above 1 nothing changes.
    """
    return torch.where(views >= level, 1 - views, views)
