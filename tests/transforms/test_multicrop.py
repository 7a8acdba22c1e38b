from __future__ import annotations

import pickle

import pytest
import torch

from lit_ssl.transforms import CropSpec, MultiCrop, SingleView, msn_crops


def test_worker_shapes(make_image):
    large, small = MultiCrop(msn_crops(32, 16, num_large=2, num_small=4))(
        make_image(3, 40, 50), seed=0
    )
    assert (large.shape, large.dtype) == ((2, 3, 32, 32), torch.uint8)
    assert (small.shape, small.dtype) == ((4, 3, 16, 16), torch.uint8)
    view = SingleView(CropSpec(size=(8, 12)))(make_image(1, 28, 28), seed=0)
    assert (view.shape, view.dtype) == ((1, 8, 12), torch.uint8)
    assert not view.is_inference()


def test_batched_shapes_and_range(make_image):
    images = torch.stack([make_image(3, 40, 50, seed=i) for i in range(5)])
    generator = torch.Generator().manual_seed(0)
    large, small = MultiCrop(msn_crops(32, 16, num_large=2, num_small=4)).batched(
        images, generator=generator
    )
    assert large.shape == (5, 2, 3, 32, 32)
    assert small.shape == (5, 4, 3, 16, 16)
    for views in (large, small):
        assert views.dtype == torch.float32
        assert 0 <= views.min() < views.max() <= 1
    assert SingleView(CropSpec(size=8)).batched(images).shape == (5, 3, 8, 8)


def test_worker_views_are_a_function_of_the_seed(make_image):
    recipe = MultiCrop(msn_crops(24, 12))
    image = make_image(3, 40, 50)
    first = recipe(image, seed=7)
    torch.rand(5)  # the global generator plays no part
    for one, two in zip(first, recipe(image, seed=7), strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(first[0], recipe(image, seed=8)[0])


def test_worker_leaves_global_generator_and_image_alone(make_image):
    image = make_image(3, 40, 50)
    before, state = image.clone(), torch.get_rng_state()
    MultiCrop(msn_crops(24, 12))(image, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(image, before)


def test_batched_views_are_a_function_of_the_generator(make_image):
    recipe = MultiCrop(msn_crops(24, 12))
    images = torch.stack([make_image(3, 40, 50, seed=i) for i in range(3)])
    before = images.clone()
    runs = [recipe.batched(images, generator=torch.Generator().manual_seed(s)) for s in (7, 7, 8)]
    for one, two in zip(runs[0], runs[1], strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(runs[0][0], runs[2][0])
    assert torch.equal(images, before)


def test_every_view_of_an_image_is_drawn_anew(make_image):
    image = make_image(3, 40, 50)
    spec = CropSpec(size=16, count=4, scale=(0.3, 0.8))
    views = torch.cat(MultiCrop([spec, spec])(image, seed=0))
    assert len({view.numpy().tobytes() for view in views}) == 8


def test_sizes_limit_the_crops():
    # White padding: no view of the black image may see it.
    images = torch.full((2, 1, 30, 40), 255, dtype=torch.uint8)
    images[0, :, :20, :25] = 0
    images[1, :, :30, :10] = 0
    sizes = torch.tensor([[20, 25], [30, 10]])
    recipe = MultiCrop([CropSpec(size=16, count=3, scale=(0.1, 1.0))])
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        assert recipe.batched(images, sizes, generator)[0].max() == 0
    assert recipe.batched(images)[0].max() == 1


def test_engines_agree_for_one_image_of_a_batch(make_image):
    # The same generator state draws the same parameters for one image in both engines.
    recipe = MultiCrop(msn_crops(24, 12, num_small=3))
    image = make_image(3, 40, 50)
    worker = recipe(image, seed=3)
    device = recipe.batched(image[None], generator=torch.Generator().manual_seed(3))
    for one, two in zip(worker, device, strict=True):
        assert (one.float() - 255 * two[0]).abs().max() <= 6


def test_recipes_travel_to_workers():
    recipe = MultiCrop(msn_crops())
    assert pickle.loads(pickle.dumps(recipe)).crops == recipe.crops
    assert "size=224" in repr(recipe)


def test_wrong_recipes():
    with pytest.raises(ValueError, match="at least one CropSpec"):
        MultiCrop([])
    with pytest.raises(ValueError, match=r"count 2.*Set count to 1 or use MultiCrop"):
        SingleView(CropSpec(size=8, count=2))
    with pytest.raises(TypeError, match=r"MultiCrop takes CropSpec.*got int"):
        MultiCrop([224])


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (torch.rand(3, 8, 8), TypeError, r"uint8 tensor \[C, H, W\], got torch.float32"),
        ("image.png", TypeError, r"got str.*pil_to_tensor"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), ValueError, r"got \[2, 3, 8, 8\].*`batched`"),
        (torch.zeros(3, 0, 8, dtype=torch.uint8), ValueError, r"got \[3, 0, 8\]"),
    ],
)
def test_wrong_images(image, error, message):
    with pytest.raises(error, match=message):
        SingleView(CropSpec(size=8))(image, seed=0)


@pytest.mark.parametrize(
    ("images", "sizes", "error", "message"),
    [
        (torch.zeros(2, 3, 8, 8, dtype=torch.int64), None, TypeError, r"uint8, or float.*int64"),
        (torch.zeros(3, 8, 8), None, ValueError, r"\[B, C, H, W\], got \[3, 8, 8\]"),
        (torch.zeros(2, 3, 8, 8), [[8, 8]], ValueError, r"shape \[2, 2\].*got \[1, 2\]"),
        (torch.zeros(1, 3, 8, 8), [[9, 8]], ValueError, r"between 1 and the padded size \(8, 8\)"),
        (torch.zeros(1, 3, 8, 8), [[0, 8]], ValueError, r"between 1 and"),
    ],
)
def test_wrong_batches(images, sizes, error, message):
    sizes = None if sizes is None else torch.tensor(sizes)
    with pytest.raises(error, match=message):
        SingleView(CropSpec(size=8)).batched(images, sizes)


def test_sizes_must_be_on_the_host():
    sizes = torch.empty(1, 2, device="meta")
    with pytest.raises(ValueError, match="sizes must be a CPU tensor, got one on meta"):
        SingleView(CropSpec(size=8)).batched(torch.zeros(1, 3, 8, 8), sizes)
