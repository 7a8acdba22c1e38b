from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as TF
from torchvision.transforms import InterpolationMode

from lit_ssl.transforms import CropSpec


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def make_image():
    """A function that makes a colourful uint8 image with both smooth parts and sharp edges."""

    def make(channels: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.rand(1, channels, 5, 7, generator=generator)
        smooth = F.interpolate(coarse, (height, width), mode="bicubic")[0]
        blocks = F.interpolate(coarse.flip(-1), (height, width), mode="nearest")[0]
        noise = torch.rand(channels, height, width, generator=generator)
        image = 0.5 * smooth + 0.3 * blocks + 0.2 * noise
        return (image.clamp(0, 1) * 255).round().to(torch.uint8)

    return make


@pytest.fixture
def oracle():
    """The recipe for one view, written with nothing but torchvision's functions on floats."""
    functions = (
        TF.adjust_brightness,
        TF.adjust_contrast,
        TF.adjust_saturation,
        TF.adjust_hue,
    )

    def apply(image: torch.Tensor, params, i: int, spec: CropSpec) -> torch.Tensor:
        p = type(params)(*(field[i].tolist() for field in params))
        view = TF.resized_crop(
            image.float() / 255, p.top, p.left, p.height, p.width, list(spec.shape), antialias=True
        )
        view = TF.hflip(view) if p.flip else view
        view = TF.affine(
            view,
            p.angle,
            [p.shift_x, p.shift_y],
            scale=1.0,
            shear=[p.shear, 0.0],
            interpolation=InterpolationMode.BILINEAR,
        )
        factors = (p.brightness, p.contrast, p.saturation, p.hue)
        for operation in p.order:
            view = functions[operation](view, factors[operation])
        if p.grayscale:
            view = TF.rgb_to_grayscale(view, num_output_channels=view.shape[0])
        if p.blur_sigma > 0:
            # The kernel reaches three standard deviations, and less than the view.
            reach = [min(-int(-3 * p.blur_sigma // 1), side - 1) for side in reversed(spec.shape)]
            view = TF.gaussian_blur(view, [2 * taps + 1 for taps in reach], [p.blur_sigma] * 2)
        if p.solarize:
            view = torch.where(view >= p.solarize_level, TF.invert(view), view)
        return view.clamp(0, 1)

    return apply


@pytest.fixture
def draw():
    """A function that draws parameters of ``count`` views for images of the given sizes."""
    from lit_ssl.transforms import draw_params

    def apply(spec: CropSpec, sizes: list[tuple[int, int]], seed: int = 0):
        heights, widths = torch.tensor(sizes).repeat_interleave(spec.count, dim=0).unbind(1)
        return draw_params(spec, heights, widths, torch.Generator().manual_seed(seed))

    return apply
