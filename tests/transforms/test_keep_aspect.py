"""Images that keep their form, and the RandAugment of images with texts."""

from __future__ import annotations

import math
import pickle
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from lit_ssl.errors import InputError
from lit_ssl.transforms import (
    CenterCropRandAugment,
    EvalTransform,
    ImageView,
    KeepAspect,
    KeepAspectRandAugment,
)
from lit_ssl.transforms.caption_rand_augment import CaptionRandAugment


def image(height, width, seed=0):
    """Smooth, with all colours."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 5, 7, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return fine[0].clamp(0, 1).mul(255).round().to(torch.uint8)


# Sizes


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((480, 640), (384, 512)),
        ((640, 480), (512, 384)),
        ((384, 384), (384, 384)),
        ((375, 500), (384, 512)),
        ((300, 500), (352, 608)),  # the longer side would be 640: both shrink, 383 and 639
        ((100, 1000), (64, 608)),
        ((3, 3), (384, 384)),
        ((1, 1), (384, 384)),
        ((1, 10_000), (32, 608)),
        ((10_000, 1), (608, 32)),
        ((20, 31), (384, 576)),
    ],
)
def test_sizes(size, wanted):
    transform = KeepAspect()
    assert transform.size_of(*size) == wanted
    found = transform(image(*size))
    assert found.shape == (3, *wanted)
    assert found.dtype == torch.uint8


def test_sizes_are_those_of_transformers():
    vilt = pytest.importorskip("transformers.models.vilt.image_processing_vilt")
    from transformers import image_utils

    if not hasattr(image_utils, "SizeDict"):
        pytest.skip("the image processors of this transformers resize no tensors")
    processor = vilt.ViltImageProcessor()
    generator = np.random.default_rng(0)
    for shorter in (384, 64, 224):
        transform = KeepAspect(shorter)
        sizes = generator.integers(40, 700, (40, 2)).tolist()
        for height, width in [*sizes, (64, 64), (500, 301), (301, 500)]:
            if max(height, width) > 3 * min(height, width):
                continue  # where theirs may have a side of 0
            pixels = torch.zeros(1, 1, height, width, dtype=torch.uint8)
            theirs = processor.resize(
                pixels, image_utils.SizeDict(shortest_edge=shorter), size_divisor=32
            )
            assert transform.size_of(height, width) == tuple(theirs.shape[-2:])


def test_all_sides_are_multiples_in_their_bounds():
    generator = np.random.default_rng(0)
    for transform in (KeepAspect(), KeepAspect(48, 100, 16), KeepAspect(30, 30, 15)):
        for height, width in (10 ** generator.uniform(0, 4, (500, 2))).astype(int).tolist():
            sides = transform.size_of(height, width)
            assert all(side % transform.multiple == 0 and side > 0 for side in sides)
            assert min(sides) <= transform.size
            assert max(sides) <= transform.longer
            assert (sides[0] < sides[1]) <= (height < width)


def test_pixels_are_those_of_pillow():
    given = image(120, 171)
    found = KeepAspect(64)(given)
    pixels = Image.fromarray(given.permute(1, 2, 0).numpy())
    wanted = pil_to_tensor(pixels.resize((64 * 171 // 120 // 32 * 32, 64), Image.BICUBIC))
    assert (found.int() - wanted.int()).abs().max() <= 2


def test_what_fits_stays():
    given = image(64, 96)
    assert torch.equal(KeepAspect(64)(given), given)
    assert torch.equal(KeepAspect(64)(given, 5), given)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_stay(channels):
    assert KeepAspect(64)(image(70, 90)[:1].expand(channels, -1, -1)).shape[0] == channels


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shorter": 100}, "shorter must be a multiple of multiple = 32 pixels, got 100"),
        ({"shorter": 0}, "shorter must be a multiple"),
        ({"longer": 383}, "longer must be at least shorter = 384 pixels, got 383"),
        ({"multiple": 0}, "multiple must be >= 1"),
        ({"interpolation": "nearest"}, "interpolation must be"),
    ],
)
def test_wrong_options(options, message):
    for kind in (KeepAspect, KeepAspectRandAugment):
        with pytest.raises(InputError, match=message):
            kind(**options)


# RandAugment


def test_views_are_functions_of_the_seed_and_keep_their_form():
    for view, shape in (
        (KeepAspectRandAugment(64), (64, 96)),
        (CenterCropRandAugment(64), (64, 64)),
    ):
        first = [view(image(100, 150), seed) for seed in range(8)]
        assert all(found.shape == (3, *shape) and found.dtype == torch.uint8 for found in first)
        random.seed(5)
        np.random.seed(5)  # noqa: NPY002
        state = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
        again = [pickle.loads(pickle.dumps(view))(image(100, 150), seed) for seed in range(8)]
        assert (random.getstate(), np.random.get_state()[1].tolist()) == state  # noqa: NPY002
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        assert not torch.equal(first[0], first[1])


def test_without_operations_it_is_the_resize():
    given = image(100, 150)
    assert torch.equal(KeepAspectRandAugment(64, num_ops=0)(given, 3), KeepAspect(64)(given))
    wanted = EvalTransform(64, interpolation="bicubic")(given)
    assert torch.equal(CenterCropRandAugment(64, num_ops=0)(given, 3), wanted)


class Recorded(ImageView):
    """Says what would be done in place of doing it."""

    def __init__(self, view):
        self.view = view
        self.done = []
        for operation in view._augment.ops:
            operation.aug_fn = self.recorder(operation.name)

    def recorder(self, name):
        def record(pixels, *values, **options):
            self.done.append((name, *values))
            self.options = options
            return pixels

        return record

    def __call__(self, given, seed):
        self.done = []
        self.view(given, seed)
        return list(self.done)


def test_operations_are_those_of_vilt():
    view = Recorded(KeepAspectRandAugment(32))
    given = image(32, 32)
    drawn = [view(given, seed) for seed in range(4000)]
    assert all(len(done) == 2 for done in drawn)  # always two, and always done
    names = [name for done in drawn for name, *_ in done]
    kinds = {
        "AutoContrast", "Equalize", "Rotate", "Posterize", "Solarize", "SolarizeAdd", "Color",
        "Contrast", "Brightness", "Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY",
    }  # fmt: skip
    assert set(names) == kinds
    expected = len(names) / len(kinds)
    counts = [names.count(name) for name in kinds]
    assert sum((count - expected) ** 2 / expected for count in counts) < 34.5  # 13 d.f., .001
    pairs = {(first[0], second[0]) for first, second in drawn}
    assert len(pairs) == len(kinds) ** 2  # with replacement
    # of an operation and a magnitude of 9 on a scale of 30
    values = {
        name: {round(value[0], 6) for done in drawn for kind, *value in done if kind == name}
        for name in kinds - {"AutoContrast", "Equalize"}
    }
    assert values == {
        "Rotate": {-9.0, 9.0}, "ShearX": {-0.09, 0.09}, "ShearY": {-0.09, 0.09},
        "TranslateX": {-30.0, 30.0}, "TranslateY": {-30.0, 30.0}, "Posterize": {1},
        "Solarize": {76}, "SolarizeAdd": {33}, "Color": {0.64}, "Contrast": {0.64},
        "Brightness": {0.64}, "Sharpness": {0.64},
    }  # fmt: skip
    assert view.options["fillcolor"] == (0, 0, 0)


def test_the_strongest_and_the_weakest():
    given = image(32, 40)
    for magnitude in (0, 30):
        view = KeepAspectRandAugment(32, magnitude=magnitude)
        for seed in range(40):
            assert view(given, seed).shape == (3, 32, 32)
        moved = {
            abs(round(value[0], 6))
            for seed in range(300)
            for name, *value in Recorded(view)(given, seed)
            if name == "Rotate"
        }
        assert moved == {float(magnitude)}
    # no bit at all would be a black image
    operations = KeepAspectRandAugment(magnitude=0)._augment.ops
    (posterize,) = (one for one in operations if one.name == "Posterize")
    assert np.array(posterize(Image.new("RGB", (2, 2), (200, 10, 130)))).max() == 128


def test_what_it_cannot_do_is_said():
    with pytest.raises(InputError, match="3 channels, got 1"):
        KeepAspectRandAugment(32)(image(32, 32)[:1], 0)
    for options in ({"magnitude": 31}, {"magnitude": -1}, {"num_ops": -1}):
        with pytest.raises(InputError, match=next(iter(options))):
            CenterCropRandAugment(32, **options)
    with pytest.raises(TypeError):
        ImageView()
    assert not math.isnan(CaptionRandAugment(EvalTransform(8), 1, 9).magnitude)
    assert "KeepAspect(shorter=32, longer=53" in repr(KeepAspectRandAugment(32))
