"""RandAugment as a view recipe."""

from __future__ import annotations

import pickle
import random

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.auto_augment import NAME_TO_OP, rand_augment_choices
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from lit_ssl.transforms import CropSpec, SingleView
from lit_ssl.transforms.rand_augment import RandAugmentView, seeded
from lit_ssl.transforms.rand_augment_batched import MOVES, Operation, apply_operations

IMAGE = torch.randint(
    256, (3, 40, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


def test_views_are_a_function_of_the_seed_alone():
    recipe = RandAugmentView(CropSpec(size=24, hflip=0.5))
    first = [recipe(IMAGE, seed) for seed in range(8)]
    assert all(view.shape == (3, 24, 24) and view.dtype == torch.uint8 for view in first)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    state = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    again = [recipe(IMAGE, seed) for seed in range(8)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == state  # noqa: NPY002
    assert not torch.equal(first[0], first[1])


def test_the_crop_is_that_of_a_single_view_and_colours_change():
    crop = CropSpec(size=24)
    plain = SingleView(crop)
    strong = RandAugmentView(crop, "rand-m9-mstd0.5-inc1")
    none = RandAugmentView(crop, "rand-m9-n0")
    assert torch.equal(none(IMAGE, 3), plain(IMAGE, 3))
    changed = [not torch.equal(strong(IMAGE, seed), plain(IMAGE, seed)) for seed in range(10)]
    assert sum(changed) >= 5


def test_what_it_cannot_do_is_said():
    recipe = RandAugmentView(CropSpec(size=24))
    with pytest.raises(ValueError, match="3 channels, got 1: use SingleView"):
        recipe(IMAGE[:1], 0)
    with pytest.raises(ValueError, match="3 channels, got 1: use SingleView"):
        recipe.batched(IMAGE[None, :1])
    with pytest.raises(ValueError, match="no RandAugment policy 'strong'"):
        RandAugmentView(CropSpec(size=24), "strong")
    with pytest.raises(ValueError, match="makes one view"):
        RandAugmentView(CropSpec(size=24, count=2))


# ------------------------------------------------------------------- on the device

FILL = (124, 116, 104)
SMOOTH = torch.nn.functional.interpolate(
    torch.rand(3, 3, 9, 11, generator=torch.Generator().manual_seed(1)), (35, 44), mode="bicubic"
)
LEVELS = SMOOTH.clamp(0, 1).mul(200).add(20).round().to(torch.uint8)
ARGUMENTS = {
    "Rotate": [-27.0, 13.0], "ShearX": [0.27, -0.1], "ShearY": [-0.27, 0.11],
    "TranslateX": [7.3], "TranslateY": [-3.0], "TranslateXRel": [0.3, -0.11],
    "TranslateYRel": [0.2, -0.4], "AutoContrast": [None], "Equalize": [None], "Invert": [None],
    "Posterize": [1, 3, 4, 7], "Solarize": [0, 26, 128, 256], "SolarizeAdd": [0, 50, 99],
    "Color": [0.1, 1.0, 1.81], "Contrast": [0.19, 1.81], "Brightness": [0.19, 1.81],
    "Sharpness": [0.1, 1.9], "Desaturate": [0.6, 1.0], "GaussianBlur": [0.5, 1.8],
}  # fmt: skip


@pytest.mark.parametrize("name", ARGUMENTS)
def test_operations_are_those_of_timm(name):
    for smooth in (False, True) if name in MOVES else (False,):
        resample = Image.Resampling.BICUBIC if smooth else Image.Resampling.BILINEAR
        for value in ARGUMENTS[name]:
            arguments = () if value is None else (value,)
            wanted = [
                NAME_TO_OP[name](to_pil_image(image), *arguments, resample=resample, fillcolor=FILL)
                for image in LEVELS
            ]
            steps = [[Operation(name, value or 0.0, smooth)] * 3]
            found = apply_operations(LEVELS / 255, steps, FILL).mul(255)
            away = (found - torch.stack([pil_to_tensor(image) for image in wanted])).abs()
            # Filters differ a little; a pixel on the very border may be in or out.
            exact = not smooth and name != "GaussianBlur"
            assert (away > (1.01 if exact else 6)).float().mean() < 0.01, (value, smooth)
            assert away.median() < (0.01 if exact else 1.01), (value, smooth)


def test_all_operations_of_all_policies_are_there():
    names = {*rand_augment_choices("", True), *rand_augment_choices("", False)}
    for choice in ("weights", "3a", "3aw"):
        names |= set(rand_augment_choices(choice))
    for name in names:
        steps = [[None, Operation(name, 0.5), None]]
        found = apply_operations(LEVELS / 255, steps, FILL)
        assert found.shape == LEVELS.shape
        assert torch.equal(found[::2], (LEVELS / 255)[::2])


@pytest.mark.parametrize(
    "policy", ["rand-m9-mstd0.5-inc1", "rand-m10-n3", "rand-m5-mstd101-tweights-inc1"]
)
def test_what_is_done_to_an_image_is_drawn_as_in_a_worker(policy):
    recipe = RandAugmentView(CropSpec(size=40, scale=(1, 1), ratio=(1, 1)), policy)
    compared = 0
    for seed in range(60):
        worker = recipe(IMAGE, seed)
        with seeded(seed):
            steps = recipe._draw()
        view = SingleView(recipe.crop)(IMAGE, seed)
        if any(step is not None and step.smooth for step in steps):
            continue
        found = apply_operations(view[None] / 255, [[step] for step in steps], FILL)[0] * 255
        away = (found - worker).abs()
        assert (away > 6).float().mean() < 0.02, (seed, steps)
        compared += worker.ne(view).any()
    assert compared >= 10


def test_batches_are_a_function_of_the_generator():
    recipe = pickle.loads(pickle.dumps(RandAugmentView(CropSpec(size=24, hflip=0.5))))

    def make(images, seed=0, sizes=None):
        return recipe.batched(images, sizes, torch.Generator().manual_seed(seed))

    images = IMAGE.expand(16, -1, -1, -1)
    state = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    first = make(images)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == state  # noqa: NPY002
    assert (first.shape, first.dtype) == ((16, 3, 24, 24), torch.float32)
    assert 0 <= first.min() < first.max() <= 1
    assert torch.equal(make(images), first)
    assert not torch.equal(make(images, 1), first)
    assert torch.allclose(make(images / 255), first, atol=0.01)
    plain = SingleView(recipe.crop).batched(images, None, torch.Generator().manual_seed(0))
    changed = (first - plain).abs().amax((1, 2, 3)) > 0.01
    assert 4 <= changed.sum() < 16  # each of two operations with probability one half
    assert make(images[:1]).shape == (1, 3, 24, 24)
    sizes = torch.tensor([[20, 30]]).expand(16, 2)
    assert make(images, sizes=sizes).shape == (16, 3, 24, 24)


def test_the_strongest_posterization_is_black_in_both_engines():
    """Pillow refuses to keep 0 bits, which magnitude 10 asks for."""
    recipe = RandAugmentView(CropSpec(size=24), "rand-m10-inc1")
    views = [recipe(IMAGE, seed) for seed in range(200)]
    assert any(not view.any() for view in views)
    found = apply_operations(LEVELS / 255, [[Operation("PosterizeIncreasing", 0)] * 3], FILL)
    assert not found.any()
