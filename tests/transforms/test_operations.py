"""Each batched operation against torchvision's, with another parameter for each view."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as TF

from lit_ssl.transforms import CropSpec
from lit_ssl.transforms.views.blur import _by_matrices, _by_shifts, gaussian_blur
from lit_ssl.transforms.views.color import shift_hue
from lit_ssl.transforms.views.geometry import _grid, crop_resize, resize_weights


@pytest.mark.parametrize("sides", [(17, 23), (64, 64), (300, 211)])
@pytest.mark.parametrize("view", [(32, 32), (96, 20)])
def test_crop_resize_is_the_antialiased_resized_crop(sides, view, make_image, draw):
    spec = CropSpec(size=view, count=5, scale=(0.05, 1.0), hflip=0.5)
    images = torch.stack([make_image(3, *sides, seed=seed) for seed in range(2)])
    params = draw(spec, [sides] * 2)
    assert 0 < params.flip.sum() < len(params.flip)
    views = crop_resize(images, params, view)
    for i, result in enumerate(views):
        box = [int(field[i]) for field in params[:4]]
        expected = TF.resized_crop(images[i // 5].float() / 255, *box, list(view), antialias=True)
        expected = expected.flip(-1) if params.flip[i] else expected
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


def test_resize_weights_stay_in_the_box_and_sum_to_one():
    start, extent = torch.tensor([3.0, 0.0]), torch.tensor([4.0, 16.0])
    weights = resize_weights(start, extent, in_size=16, out_size=5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 5))
    assert (weights[0, :, :3] == 0).all()
    assert (weights[0, :, 7:] == 0).all()
    assert (weights[0, 0, 3] > 0) & (weights[0, -1, 6] > 0)


def test_resize_weights_of_an_unscaled_box_copy_it():
    weights = resize_weights(torch.tensor([2.0]), torch.tensor([5.0]), in_size=9, out_size=5)
    assert torch.equal(weights[0], torch.eye(9)[2:7])


@pytest.mark.parametrize("size", [5, 14, 32, 60])
@pytest.mark.parametrize("method", [_by_matrices, _by_shifts, gaussian_blur])
def test_blur_is_torchvisions_kernel(size, method, make_image):
    sigma = np.array([0.1, 0.34, 0.7, 1.5, 2.0])
    views = torch.stack([make_image(3, size, size + 9, seed=i) for i in range(5)]) / 255
    result = method(views, sigma)
    for i, width in enumerate(sigma.tolist()):
        reach = int(np.ceil(3 * width))
        taps = [2 * min(reach, side - 1) + 1 for side in (size + 9, size)]
        expected = TF.gaussian_blur(views[i], taps, [width, width])
        torch.testing.assert_close(result[i], expected, atol=2e-6, rtol=0)


def test_tiny_blur_changes_nothing_and_large_blur_much(make_image):
    view = make_image(1, 20, 20)[None] / 255
    torch.testing.assert_close(gaussian_blur(view, np.array([0.1])), view)
    assert gaussian_blur(view, np.array([2.0])).std() < 0.9 * view.std()


def test_one_pixel_cannot_be_blurred():
    view = torch.rand(1, 3, 1, 1)
    torch.testing.assert_close(_by_matrices(view, np.array([1.0])), view)
    torch.testing.assert_close(_by_shifts(view, np.array([1.0])), view)


def test_hue_is_torchvisions(make_image):
    shifts = [-0.5, -0.2, -0.01, 0.0, 0.07, 0.33, 0.5]
    views = torch.stack([make_image(3, 20, 30, seed=i) for i in range(len(shifts))]) / 255
    result = shift_hue(views, torch.tensor(shifts).view(-1, 1, 1, 1))
    for i, shift in enumerate(shifts):
        expected = TF.adjust_hue(views[i], shift)
        torch.testing.assert_close(result[i], expected, atol=2e-6, rtol=0)


def test_hue_of_pure_and_of_no_colours():
    names = ["red", "yellow", "green", "cyan", "blue", "magenta", "black", "grey", "white"]
    colors = torch.tensor(
        [
            *([1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1]),
            *([0, 0, 0], [0.5, 0.5, 0.5], [1, 1, 1]),
        ]
    )
    views = colors.T.reshape(1, 3, 1, len(names)).float()
    turned = shift_hue(views, 1 / 3)[0, :, 0].T
    expected = colors[[2, 3, 4, 5, 0, 1, 6, 7, 8]]
    torch.testing.assert_close(turned, expected.float(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(28, 28), (1, 5), (7, 1), (13, 40)])
def test_places_of_an_affine_map_are_torchs(shape):
    theta = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.affine_grid(theta, [6, 1, *shape], align_corners=False)
    torch.testing.assert_close(_grid(theta, *shape), expected, atol=2e-6, rtol=0)
