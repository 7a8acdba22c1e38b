"""RandAugment as a view recipe."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from lit_ssl.transforms import CropSpec, SingleView
from lit_ssl.transforms.rand_augment import RandAugmentView

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
    with pytest.raises(ValueError, match="set augment: worker"):
        recipe.batched(IMAGE[None])
    with pytest.raises(ValueError, match="no RandAugment policy 'strong'"):
        RandAugmentView(CropSpec(size=24), "strong")
    with pytest.raises(ValueError, match="makes one view"):
        RandAugmentView(CropSpec(size=24, count=2))
