"""Random parameters of the views, drawn in one way for both engines."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lit_ssl.transforms.views.spec import CropSpec

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)

# Every view uses the same columns of random numbers, whatever is switched on: changing the blur
# of a recipe leaves its crops as they are.
_TRIES = 10
_AREA = slice(0, _TRIES)
_ROOT_RATIO = slice(_TRIES, 2 * _TRIES)
_TOP, _LEFT = 20, 21
_FLIP, _JITTER, _GRAY, _BLUR, _SOLARIZE = range(22, 27)
_CHANCES = slice(22, 27)
_ANGLE, _SHEAR, _SHIFT_X, _SHIFT_Y, _SIGMA = range(27, 32)
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(32, 36)
_FACTORS = slice(32, 36)
_ORDER = slice(36, 40)
_COLUMNS = 40
# Later additions: numbers of their own, drawn only where they are needed, so that recipes without
# them stay what they were.
_EQUALIZE, _THRESHOLD = range(2)
_MORE_COLUMNS = 2


class CropParams(NamedTuple):
    """Parameters of n views: CPU tensors of length n.

    Attributes:
        top: first row of the crop box in the image, int64.
        left: first column, int64.
        height: rows of the crop box, int64, >= 1.
        width: columns, int64, >= 1.
        flip: whether to flip horizontally, bool.
        angle: rotation in degrees, float32.
        shear: horizontal shear in degrees, float32.
        shift_x: shift to the right in pixels of the view, float32.
        shift_y: shift downwards in pixels of the view, float32.
        order: ``[n, 4]`` int64, the order of brightness (0), contrast (1), saturation (2), hue (3).
        brightness: factor, float32; 1 where there is no jitter.
        contrast: factor, float32; 1 where there is no jitter.
        saturation: factor, float32; 1 where there is no jitter.
        hue: shift in turns, float32; 0 where there is no jitter.
        grayscale: whether to remove the colours, bool.
        blur_sigma: standard deviation of the blur in pixels, float32; 0 where there is no blur.
        solarize: whether to solarize, bool.
        solarize_level: threshold on the [0, 1] scale, half an 8-bit step lower, because pixels
            count as rounded, float32.
        equalize: whether to equalise the histogram, bool.
    """

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    flip: Tensor
    angle: Tensor
    shear: Tensor
    shift_x: Tensor
    shift_y: Tensor
    order: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    hue: Tensor
    grayscale: Tensor
    blur_sigma: Tensor
    solarize: Tensor
    solarize_level: Tensor
    equalize: Tensor

    def rows(self, start: int, stop: int) -> CropParams:
        """The parameters of the views ``start`` to ``stop - 1``.

        Args:
            start: the first view.
            stop: the one after the last.
        """
        return CropParams(*(field[start:stop] for field in self))


@functools.lru_cache
def _ranges(spec: CropSpec) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower ends and lengths of the columns' ranges, and the probabilities of the five choices."""
    low, high = np.zeros(_COLUMNS), np.ones(_COLUMNS)
    low[_AREA], high[_AREA] = spec.scale
    low[_ROOT_RATIO], high[_ROOT_RATIO] = 0.5 * np.log(spec.ratio)
    height, width = spec.shape
    for column, reach in (
        (_ANGLE, spec.rotation),
        (_SHEAR, spec.shear),
        (_SHIFT_X, spec.translate * width),
        (_SHIFT_Y, spec.translate * height),
        (_HUE, spec.hue),
    ):
        low[column], high[column] = -reach, reach
    low[_SIGMA], high[_SIGMA] = spec.blur_sigma
    strength = np.array([spec.brightness, spec.contrast, spec.saturation])
    low[_BRIGHTNESS : _SATURATION + 1] = np.maximum(0, 1 - strength)
    high[_BRIGHTNESS : _SATURATION + 1] = 1 + strength
    chances = (spec.hflip, spec.jitter_prob, spec.grayscale, spec.blur, spec.solarize)
    return low, high - low, np.array(chances)


def _choose_boxes(
    spec: CropSpec, drawn: np.ndarray, heights: np.ndarray, widths: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Crop boxes (top, left, height, width), each ``[n]``, as RandomResizedCrop draws them.

    Area and log aspect ratio are uniform; the first of ten tries that fits into the image counts.
    Where none fits: the largest central box whose aspect ratio is allowed.
    """
    side = np.sqrt((heights * widths)[:, None] * drawn[:, _AREA])
    root = np.exp(drawn[:, _ROOT_RATIO])
    tries_w, tries_h = np.rint(side * root), np.rint(side / root)
    fits = (tries_w <= widths[:, None]) & (tries_h <= heights[:, None])
    fits &= np.minimum(tries_w, tries_h) > 0
    row, first = np.arange(len(fits)), fits.argmax(axis=1)
    box_h, box_w, fitting = tries_h[row, first], tries_w[row, first], fits[row, first]
    top = np.floor(drawn[:, _TOP] * (heights - box_h + 1))
    left = np.floor(drawn[:, _LEFT] * (widths - box_w + 1))
    if not fitting.all():
        none = ~fitting
        full_h, full_w = heights[none], widths[none]
        box_h[none] = np.clip(np.rint(full_w / spec.ratio[0]), 1, full_h)
        box_w[none] = np.clip(np.rint(full_h * spec.ratio[1]), 1, full_w)
        top[none] = (full_h - box_h[none]) // 2
        left[none] = (full_w - box_w[none]) // 2
    return top, left, box_h, box_w


def draw_params(
    spec: CropSpec, heights: Tensor, widths: Tensor, generator: torch.Generator | None = None
) -> CropParams:
    """Draws independent parameters for n views.

    All arithmetic is on the CPU and in double precision, so the result depends on the generator
    alone, not on the device that applies it.

    Args:
        spec: what to draw.
        heights: ``[n]`` integers, height of the image that each view is cut from.
        widths: ``[n]`` integers, its width.
        generator: CPU generator; the global one by default.

    Returns:
        The parameters of the n views.
    """
    uniform = torch.rand(len(heights), _COLUMNS, dtype=torch.float64, generator=generator).numpy()
    low, length, chances = _ranges(spec)
    drawn = low + length * uniform
    boxes = _choose_boxes(
        spec, drawn, heights.numpy().astype(np.float64), widths.numpy().astype(np.float64)
    )
    happens = uniform[:, _CHANCES] < chances
    flip, jitter, gray, blur, solarize = happens.T
    drawn[:, _SIGMA] *= blur
    # No jitter: factors 1 and shift 0.
    neutral = np.array([1, 1, 1, 0])
    drawn[:, _FACTORS] = np.where(jitter[:, None], drawn[:, _FACTORS], neutral)
    angle, shear, shift_x, shift_y, sigma, *factors = (
        drawn[:, _ANGLE : _HUE + 1].astype(np.float32).T
    )
    equalize, level = _draw_more(spec, len(uniform), generator)
    fields = (
        *(side.astype(np.int64) for side in boxes),
        *(flip, angle, shear, shift_x, shift_y),
        uniform[:, _ORDER].argsort(axis=1),
        *(*factors, gray, sigma, solarize, level, equalize),
    )
    return CropParams(*map(torch.from_numpy, fields))


def _draw_more(
    spec: CropSpec, count: int, generator: torch.Generator | None
) -> tuple[np.ndarray, np.ndarray]:
    """Whether to equalise, bool ``[n]``, and the level of solarize, float32 ``[n]``."""
    low, high = spec.solarize_range
    uniform = np.ones((count, _MORE_COLUMNS))
    if spec.equalize > 0 or (spec.solarize > 0 and low < high):
        drawn = torch.rand(count, _MORE_COLUMNS, dtype=torch.float64, generator=generator)
        uniform = drawn.numpy()
    threshold = low + np.floor((high - low) * uniform[:, _THRESHOLD])
    level = ((threshold - 0.5) / 255).astype(np.float32)
    return uniform[:, _EQUALIZE] < spec.equalize, level
