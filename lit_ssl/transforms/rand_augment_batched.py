"""The operations of timm's RandAugment on a batch on its device, each image with its own."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as TF
from torch import Tensor

from lit_ssl.transforms.views.blur import gaussian_blur
from lit_ssl.transforms.views.some_views import on_subset, upload

__all__ = ["MOVES", "Operation", "apply_operations"]


class Operation(NamedTuple):
    """What happens to an image in one step.

    Attributes:
        name: of timm's operation, such as ``Rotate``.
        value: its argument (degrees, factor, threshold …); 0 where it has none.
        smooth: bicubic in place of bilinear interpolation, where the image is moved.
    """

    name: str
    value: float = 0.0
    smooth: bool = False


def apply_operations(
    images: Tensor, steps: Sequence[Sequence[Operation | None]], fill: Sequence[int]
) -> Tensor:
    """Apply one operation after another to each image, in the arithmetic of Pillow's 8-bit images.

    Colours are Pillow's to one level of 255. So are images moved with the bilinear filter; torch's
    bicubic filter is a bit sharper, and Pillow approximates the Gaussian blur.

    Args:
        images: ``[B, 3, H, W]``, float in [0, 1].
        steps: for each step and image, what to do; None: nothing.
        fill: red, green and blue, 0 to 255, of what a moved image leaves open.

    Returns:
        ``[B, 3, H, W]`` float in [0, 1].
    """
    levels = images.mul(255).round_()
    for step in steps:
        groups: dict[Callable[..., Tensor], dict[int, Operation]] = defaultdict(dict)
        for index, operation in enumerate(step):
            if operation is not None:
                groups[_kernel(operation)][index] = operation
        for kernel, done in groups.items():
            changed = partial(_levels_after, kernel, list(done.values()), fill)
            levels = on_subset(levels, torch.tensor(list(done)), changed)
    return levels.div_(255)


def _levels_after(
    kernel: Callable[..., Tensor], done: Sequence[Operation], fill: Sequence[int], part: Tensor
) -> Tensor:
    """Whole levels: cut off as Pillow does, but for the errors of float32."""
    return kernel(part, done, fill).add(1e-3).floor_().clamp_(0, 255)


def _kernel(operation: Operation) -> Callable[..., Tensor]:
    if operation.name in MOVES:
        return _move_smoothly if operation.smooth else _move
    return _KERNELS[operation.name]


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return upload(torch.tensor(values, dtype=like.dtype), like.device).view(-1, 1, 1, 1)


def _values(done: Sequence[Operation], like: Tensor) -> Tensor:
    """Arguments ``[n, 1, 1, 1]`` on the device."""
    return _column([operation.value for operation in done], like)


# Moves: from the coordinates of the result to those of the image, in pixels: (a, b, c, d, e, f).


def _rotation(degrees: float, height: int, width: int) -> tuple[float, ...]:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = width / 2, height / 2
    return cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y


MOVES: dict[str, Callable[[float, int, int], tuple[float, ...]]] = {
    "Rotate": _rotation,
    "ShearX": lambda value, height, width: (1, value, 0, 0, 1, 0),
    "ShearY": lambda value, height, width: (1, 0, 0, value, 1, 0),
    "TranslateX": lambda value, height, width: (1, 0, value, 0, 1, 0),
    "TranslateY": lambda value, height, width: (1, 0, 0, 0, 1, value),
    "TranslateXRel": lambda value, height, width: (1, 0, value * width, 0, 1, 0),
    "TranslateYRel": lambda value, height, width: (1, 0, 0, 0, 1, value * height),
}


def _move(
    part: Tensor, done: Sequence[Operation], fill: Sequence[int], mode: str = "bilinear"
) -> Tensor:
    height, width = part.shape[-2:]
    maps = torch.tensor(
        [MOVES[op.name](op.value, height, width) for op in done], dtype=torch.float64
    ).view(-1, 2, 3)
    # In [-1, 1] from border to border, as grid_sample has them; what lies outside is filled.
    size = torch.tensor([width, height], dtype=torch.float64)
    linear, shift = maps[:, :, :2], maps[:, :, 2]
    scaled = linear * size / size[:, None]
    offset = linear @ size / size + 2 * shift / size - 1
    theta = upload(torch.cat([scaled, offset[:, :, None]], dim=2).float(), part.device)
    grid = F.affine_grid(theta, list(part.shape), align_corners=False)
    moved = F.grid_sample(part, grid, mode, "border", align_corners=False)
    outside = ((grid < -1) | (grid >= 1)).any(dim=3)[:, None]
    colour = upload(torch.tensor(fill, dtype=part.dtype), part.device).view(1, 3, 1, 1)
    return torch.where(outside, colour, moved)


def _move_smoothly(part: Tensor, done: Sequence[Operation], fill: Sequence[int]) -> Tensor:
    return _move(part, done, fill, "bicubic")


# Colours: levels 0 … 255.


def _gray(part: Tensor) -> Tensor:
    """Luminance ``[n, 1, H, W]`` in whole levels."""
    red, green, blue = part.split(1, dim=1)
    return (red * 0.299 + green * 0.587 + blue * 0.114).round_()


def _blend(part: Tensor, done: Sequence[Operation], reference: Tensor) -> Tensor:
    return reference + _values(done, part) * (part - reference)


def _color(part: Tensor, done: Sequence[Operation], _: Any) -> Tensor:
    return _blend(part, done, _gray(part))


def _desaturate(part: Tensor, done: Sequence[Operation], _: Any) -> Tensor:
    return _color(part, [op._replace(value=min(1.0, max(0.0, 1 - op.value))) for op in done], _)


def _contrast(part: Tensor, done: Sequence[Operation], _: Any) -> Tensor:
    return _blend(part, done, _gray(part).mean((1, 2, 3), keepdim=True).round_())


def _brightness(part: Tensor, done: Sequence[Operation], _: Any) -> Tensor:
    return part * _values(done, part)


def _sharpness(part: Tensor, done: Sequence[Operation], _: Any) -> Tensor:
    kernel = part.new_ones(3, 1, 3, 3)
    kernel[:, :, 1, 1] = 5
    smooth = part.clone()  # Pillow leaves the border as it is
    if min(part.shape[-2:]) > 2:
        smooth[..., 1:-1, 1:-1] = F.conv2d(part, kernel / 13, groups=3).round_()
    return _blend(part, done, smooth)


def _auto_contrast(part: Tensor, *_: Any) -> Tensor:
    low, high = part.amin((2, 3), keepdim=True), part.amax((2, 3), keepdim=True)
    stretched = (part - low) * (255 / (high - low).clamp_min(1))
    return torch.where(high > low, stretched, part)


def _equalize(part: Tensor, *_: Any) -> Tensor:
    return TF.equalize_image(part.to(torch.uint8)).to(part.dtype)


def _invert(part: Tensor, *_: Any) -> Tensor:
    return 255 - part


def _posterize(part: Tensor, done: Sequence[Operation], _: Any) -> Tensor:
    width = _column([2.0 ** (8 - min(8, int(op.value))) for op in done], part)
    return (part / width).floor_() * width


def _solarize(part: Tensor, done: Sequence[Operation], _: Any) -> Tensor:
    return torch.where(part < _values(done, part), part, 255 - part)


def _solarize_add(part: Tensor, done: Sequence[Operation], _: Any) -> Tensor:
    return torch.where(part < 128, part + _values(done, part), part)


def _blur(part: Tensor, done: Sequence[Operation], _: Any) -> Tensor:
    sigma = torch.tensor([op.value for op in done], dtype=torch.float32).numpy()
    return gaussian_blur(part / 255, sigma).mul_(255).round_()


_KERNELS: dict[str, Callable[..., Tensor]] = {
    "AutoContrast": _auto_contrast, "Equalize": _equalize, "Invert": _invert,
    "Posterize": _posterize, "Solarize": _solarize, "SolarizeAdd": _solarize_add,
    "Color": _color, "Contrast": _contrast, "Brightness": _brightness, "Sharpness": _sharpness,
    "Desaturate": _desaturate, "GaussianBlur": _blur,
}  # fmt: skip
for _name in ("Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness"):
    _KERNELS[f"{_name}Increasing"] = _KERNELS[_name]
