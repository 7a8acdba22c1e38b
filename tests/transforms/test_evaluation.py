from __future__ import annotations

import pytest
import torch
import torchvision.transforms.v2 as T
import torchvision.transforms.v2.functional as F
from PIL import Image

from lit_ssl.transforms import (
    EvalTransform,
    denormalize,
    evaluation,
    normalize,
    vanilla_preprocessing,
)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_resize_and_centre_crop_as_torchvision(make_image):
    image = make_image(3, 90, 130)
    expected = T.Compose([T.Resize(64, antialias=True), T.CenterCrop(56)])(image)
    result = EvalTransform(56, resize=64)(image)
    assert result.dtype == torch.uint8
    assert torch.equal(result, expected)


def test_bicubic_resize_as_torchvision(make_image):
    image = make_image(3, 64, 64)
    expected = F.resize(image, [73], T.InterpolationMode.BICUBIC, antialias=True)
    transform = EvalTransform(64, resize=73, interpolation="bicubic")
    assert torch.equal(transform(image), F.center_crop(expected, [64, 64]))
    assert not torch.equal(transform(image), EvalTransform(64, resize=73)(image))
    with pytest.raises(ValueError, match="interpolation must be 'bilinear' or 'bicubic', not 'x'"):
        EvalTransform(64, interpolation="x")


def test_by_default_the_shorter_side_becomes_the_size(make_image):
    image = make_image(3, 130, 90)
    expected = T.Compose([T.Resize(45, antialias=True), T.CenterCrop(45)])(image)
    assert torch.equal(EvalTransform(45)(image), expected)


def test_matching_images_are_returned_as_they_are(make_image):
    image = make_image(1, 28, 28)
    assert EvalTransform(28)(image) is image


def test_channels(make_image):
    grey, colours = make_image(1, 28, 28), make_image(3, 28, 28)
    assert torch.equal(EvalTransform(28, channels=3)(grey), grey.expand(3, -1, -1))
    expected = T.Grayscale()(colours)
    assert torch.equal(EvalTransform(28, channels=1)(colours), expected)
    assert EvalTransform(28, channels=3)(colours) is colours
    batch = torch.stack([colours, colours])
    assert torch.equal(EvalTransform(28, channels=1)(batch), torch.stack([expected] * 2))
    resized = EvalTransform(14, channels=3)(grey)
    assert torch.equal(resized, EvalTransform(14)(grey).expand(3, -1, -1))
    with pytest.raises(ValueError, match="channels must be 1 or 3, got 2"):
        EvalTransform(28, channels=2)
    with pytest.raises(ValueError, match="4 channels cannot be given 3"):
        EvalTransform(28, channels=3)(make_image(4, 28, 28))


def test_centre_of_an_unscaled_image(make_image):
    image = make_image(3, 28, 40)
    assert torch.equal(EvalTransform(28)(image), image[:, :, 6:34])


@pytest.mark.parametrize(
    ("size", "resize", "message"),
    [(0, None, "size must be >= 1 pixel, got 0"), (64, 56, "at least size = 64, got 56")],
)
def test_wrong_sizes(size, resize, message):
    with pytest.raises(ValueError, match=message):
        EvalTransform(size, resize)


def test_normalize_is_torchvisions(make_image):
    image = make_image(3, 8, 9)
    expected = T.functional.normalize(image.float() / 255, list(MEAN), list(STD))
    result = normalize(image, MEAN, STD)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(normalize(image / 255, MEAN, STD), expected)
    views = image.expand(2, 4, -1, -1, -1)
    torch.testing.assert_close(normalize(views, MEAN, STD), expected.expand(2, 4, -1, -1, -1))


def test_normalize_leaves_its_input_alone(make_image):
    image = make_image(3, 8, 9) / 255
    before = image.clone()
    normalize(image, MEAN, STD)
    assert torch.equal(image, before)


def test_one_value_serves_all_channels(make_image):
    image = make_image(3, 8, 9)
    torch.testing.assert_close(normalize(image, [0.5], [0.25]), (image / 255 - 0.5) / 0.25)


def test_denormalize_inverts(make_image):
    image = make_image(3, 8, 9)
    back = denormalize(normalize(image, MEAN, STD), MEAN, STD)
    torch.testing.assert_close(back, image / 255, atol=1e-6, rtol=0)


def test_half_precision_images_become_float32():
    assert normalize(torch.rand(3, 2, 2).bfloat16(), MEAN, STD).dtype == torch.float32


def test_constants_made_in_inference_mode_serve_training():
    mean, std = [0.123], [0.456]
    with torch.inference_mode():
        normalize(torch.rand(1, 2, 2), mean, std)
    image = torch.rand(1, 2, 2, requires_grad=True)
    normalize(image, mean, std).sum().backward()
    torch.testing.assert_close(image.grad, torch.full((1, 2, 2), 1 / 0.456))


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((0.5, 0.5), (1.0, 1.0), "1 or 3 values for images with 3 channels, got 2 and 2"),
        ((0.5,), MEAN, "got 1 and 3"),
        ((0.5,), (0.0,), r"std must be positive, got \[0.0\]"),
    ],
)
def test_wrong_statistics(mean, std, message):
    with pytest.raises(ValueError, match=message):
        normalize(torch.rand(3, 4, 4), mean, std)


@pytest.mark.parametrize("shape", [(1, 20_000), (20_000, 1), (3, 9_999)])
@pytest.mark.parametrize("kind", ["tensor", "pillow"])
def test_very_long_images_cost_no_memory(monkeypatch, shape, kind):
    sizes = []
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, *shape), dtype=torch.uint8, generator=generator)

    def noted(resize):
        def call(*args, **kwargs):
            result = resize(*args, **kwargs)
            sizes.append(
                result.numel() if kind == "tensor" else 3 * result.size[0] * result.size[1]
            )
            return result

        return call

    if kind == "tensor":
        monkeypatch.setattr(evaluation.F, "resize", noted(evaluation.F.resize))
        made = EvalTransform(224, resize=256)(image)
    else:
        monkeypatch.setattr(Image.Image, "resize", noted(Image.Image.resize))
        made = vanilla_preprocessing()(image)
    assert made.shape == (3, 224, 224)
    assert max(sizes) < 4_000_000


@pytest.mark.parametrize("shape", [(8, 400), (403, 8), (7, 300)])
def test_very_long_images_lose_nothing_that_the_crop_keeps(shape):
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, *shape), dtype=torch.uint8, generator=generator)
    whole = F.center_crop(F.resize(image, [32], antialias=True), [28, 28])
    error = (EvalTransform(28, resize=32)(image).float() - whole.float()).abs()
    assert error.mean() < 10  # of noise, half a pixel aside: the long side is rounded to pixels
    ordinary = image[:, :100, :100]
    whole = F.center_crop(F.resize(ordinary, [32], antialias=True), [28, 28])
    assert torch.equal(EvalTransform(28, resize=32)(ordinary), whole)
