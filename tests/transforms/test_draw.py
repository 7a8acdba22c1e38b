from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from torchvision.transforms import RandomResizedCrop

from lit_ssl.transforms import CropSpec, draw_params

EVERYTHING = CropSpec(
    size=(20, 40),
    scale=(0.2, 0.9),
    hflip=0.5,
    rotation=30.0,
    shear=10.0,
    translate=0.25,
    jitter_prob=0.8,
    brightness=0.4,
    contrast=1.5,
    saturation=0.3,
    hue=0.1,
    grayscale=0.2,
    blur=0.5,
    blur_sigma=(0.1, 2.0),
    solarize=0.1,
    solarize_threshold=(0.0, 256.0),
    equalize=0.3,
)


def _draw(spec: CropSpec, count: int, height: int = 60, width: int = 80, seed: int = 0):
    sides = torch.full((count,), height), torch.full((count,), width)
    return draw_params(spec, *sides, torch.Generator().manual_seed(seed))


def _moments(boxes: torch.Tensor) -> torch.Tensor:
    """Mean and spread of area, log ratio and centre of the boxes (top, left, height, width)."""
    top, left, height, width = boxes.double().unbind(1)
    columns = torch.stack(
        [height * width / 4800, (width / height).log(), top + height / 2, left + width / 2]
    )
    return torch.cat([columns.mean(1), columns.std(1)])


@pytest.mark.parametrize("scale", [(0.3, 1.0), (0.05, 0.3)])
def test_boxes_are_distributed_as_random_resized_crop(scale):
    count = 4000
    params = _draw(CropSpec(size=32, scale=scale), count)
    ours = torch.stack(params[:4], dim=1)
    torch.manual_seed(1)
    image = torch.empty(3, 60, 80)
    ratio = [3 / 4, 4 / 3]
    theirs = torch.tensor(
        [RandomResizedCrop.get_params(image, list(scale), ratio) for _ in range(count)]
    )
    # Two samples of 4000: their moments differ by about 2 % of the spread.
    spread = _moments(theirs)[4:].repeat(2)
    assert ((_moments(ours) - _moments(theirs)).abs() < 0.08 * spread).all()


def test_boxes_lie_inside_images_of_different_sizes():
    heights = torch.tensor([1, 7, 60, 200, 3]).repeat(200)
    widths = torch.tensor([1, 90, 60, 20, 500]).repeat(200)
    params = draw_params(CropSpec(size=8), heights, widths, torch.Generator().manual_seed(0))
    assert (params.height >= 1).all()
    assert (params.width >= 1).all()
    assert (params.top >= 0).all()
    assert (params.left >= 0).all()
    assert (params.top + params.height <= heights).all()
    assert (params.left + params.width <= widths).all()


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (10, 100, (0, 43, 10, 13)),  # too wide: the widest allowed box, 10 * 4 / 3
        (100, 10, (43, 0, 13, 10)),  # too high
        (30, 33, (0, 0, 30, 33)),  # an allowed ratio: the whole image
    ],
)
def test_central_box_where_no_try_fits(height, width, box):
    # Area 1 fits in none of the ten tries unless the drawn ratio is exactly the image's.
    params = _draw(CropSpec(size=8, scale=(1.0, 1.0)), 50, height, width)
    assert {tuple(row) for row in torch.stack(params[:4], dim=1).tolist()} == {box}


def test_whole_square_images_stay_whole():
    params = _draw(CropSpec(size=8, scale=(1.0, 1.0), ratio=(1.0, 1.0)), 20, 28, 28)
    assert (torch.stack(params[:4], dim=1) == torch.tensor([0, 0, 28, 28])).all()


def test_probabilities():
    count = 5000
    params = _draw(EVERYTHING, count)
    happened = {
        "hflip": params.flip,
        "jitter_prob": params.brightness != 1,
        "grayscale": params.grayscale,
        "blur": params.blur_sigma > 0,
        "solarize": params.solarize,
        "equalize": params.equalize,
    }
    for name, values in happened.items():
        probability = getattr(EVERYTHING, name)
        sigma = (probability * (1 - probability) / count) ** 0.5
        assert abs(values.double().mean() - probability) < 4 * sigma, name


def test_ranges_are_filled():
    params = _draw(EVERYTHING, 5000)
    jittered = params.hue != 0
    expected = {
        "angle": (-30, 30),
        "shear": (-10, 10),
        "shift_x": (-10, 10),
        "shift_y": (-5, 5),
        "brightness": (0.6, 1.4),
        "contrast": (0.0, 2.5),
        "saturation": (0.7, 1.3),
        "hue": (-0.1, 0.1),
        "solarize_level": (-0.5 / 255, 255.5 / 255),
    }
    for name, (low, high) in expected.items():
        values = getattr(params, name)[jittered]
        margin = 0.01 * (high - low)
        assert low - 1e-6 <= values.min() < low + margin, name
        assert high - margin < values.max() <= high + 1e-6, name
    sigma = params.blur_sigma[params.blur_sigma > 0]
    assert 0.1 <= sigma.min() < 0.13
    assert 1.97 < sigma.max() <= 2.0


def test_jitter_is_one_choice_for_all_four_operations():
    params = _draw(EVERYTHING, 500)
    still = params.hue == 0
    assert 50 < still.sum() < 150
    for factor in (params.brightness, params.contrast, params.saturation):
        assert ((factor == 1) == still).all()


def test_every_order_is_equally_likely():
    orders = [tuple(row) for row in _draw(EVERYTHING, 4800).order.tolist()]
    counts = [orders.count(order) for order in itertools.permutations(range(4))]
    assert sum(counts) == 4800
    assert min(counts) > 140
    assert max(counts) < 260


def test_same_seed_same_parameters():
    for first, second in zip(_draw(EVERYTHING, 9), _draw(EVERYTHING, 9), strict=True):
        assert torch.equal(first, second)
    other = _draw(EVERYTHING, 9, seed=1)
    assert not torch.equal(_draw(EVERYTHING, 9).top, other.top)


def test_other_options_do_not_move_the_crops():
    plain = _draw(CropSpec(size=(20, 40), scale=(0.2, 0.9)), 9)
    full = _draw(EVERYTHING, 9)
    for name in ("top", "left", "height", "width"):
        assert torch.equal(getattr(plain, name), getattr(full, name))
    without_blur = _draw(dataclasses.replace(EVERYTHING, blur=0.0), 9)
    assert torch.equal(without_blur.hue, full.hue)
    assert (without_blur.blur_sigma == 0).all()


def test_without_a_generator_the_global_one_is_used():
    sides = torch.tensor([60]), torch.tensor([80])
    torch.manual_seed(3)
    first = draw_params(EVERYTHING, *sides)
    torch.manual_seed(3)
    second = draw_params(EVERYTHING, *sides)
    third = draw_params(EVERYTHING, *sides)
    assert first.angle == second.angle
    assert first.angle != third.angle
