"""Both engines against a recipe written with torchvision's functions, for the same parameters."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torchvision.transforms.v2.functional as TF

from lit_ssl.transforms import CropSpec
from lit_ssl.transforms.views.device import make_batched_views as make_kinds_of_views
from lit_ssl.transforms.views.worker import make_views

BASE = CropSpec(size=24, count=12, scale=(0.3, 1.0))
OPERATIONS = {
    "crop": {},
    "flip": {"hflip": 0.5},
    "rotation": {"rotation": 40.0},
    "shear": {"shear": 30.0},
    "translate": {"translate": 0.3},
    "affine": {"rotation": 20.0, "shear": 10.0, "translate": 0.1},
    "brightness": {"brightness": 0.6},
    "contrast": {"contrast": 0.6},
    "saturation": {"saturation": 0.6},
    "hue": {"hue": 0.3},
    "two of four": {"contrast": 0.5, "hue": 0.2},
    "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
    "grayscale": {"grayscale": 0.5},
    "blur": {"blur": 0.5},
    "solarize": {"solarize": 0.5},
}
FULL = {
    "hflip": 0.5,
    "rotation": 15.0,
    "jitter_prob": 0.8,
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.4,
    "hue": 0.1,
    "grayscale": 0.2,
    "blur": 0.5,
}


def make_batched_views(images, params, spec):
    return make_kinds_of_views(images, [(params, spec)])[0]


def _check(spec, images, params, oracle):
    """Compares both engines with the oracle.

    The worker rounds its crop to 8 bits along each axis, so it is off by up to 1; jitter stretches
    that by up to 1.4 for each of its factors.
    """
    expected = torch.stack(
        [oracle(images[i // spec.count], params, i, spec) for i in range(len(params.top))]
    )
    batch = torch.stack(images)
    device = make_batched_views(batch, params, spec)
    assert device.shape == (len(images), spec.count, batch.shape[1], *spec.shape)
    assert device.dtype == torch.float32
    torch.testing.assert_close(device.flatten(0, 1), expected, atol=1e-4, rtol=0)

    parts = [params.rows(i * spec.count, (i + 1) * spec.count) for i in range(len(images))]
    worker = torch.cat(
        [make_views(image, part, spec) for image, part in zip(images, parts, strict=True)]
    )
    assert worker.dtype == torch.uint8
    error = (worker.float() - 255 * expected).abs()
    assert error.max() <= 5
    assert error.mean() <= 0.45  # rounding once: 0.25


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", list(OPERATIONS))
def test_one_operation(name, channels, make_image, draw, oracle):
    spec = dataclasses.replace(BASE, **OPERATIONS[name])
    images = [make_image(channels, 40, 33, seed=seed) for seed in range(2)]
    params = draw(spec, [(40, 33)] * 2)
    _check(spec, images, params, oracle)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [14, 32, (20, 90)])
def test_whole_recipe(size, channels, make_image, draw, oracle):
    spec = CropSpec(size=size, count=10, scale=(0.1, 1.0), **FULL)
    images = [make_image(channels, 50, 61, seed=seed) for seed in range(2)]
    _check(spec, images, draw(spec, [(50, 61)] * 2), oracle)


def test_padded_images_of_different_sizes(make_image, draw):
    spec = CropSpec(size=16, count=6, scale=(0.2, 1.0), **FULL)
    sizes = [(40, 33), (17, 64), (28, 28)]
    images = [make_image(3, *size, seed=i) for i, size in enumerate(sizes)]
    params = draw(spec, sizes)
    # What lies in the padding must not matter.
    batch = torch.randint(0, 256, (3, 3, 40, 64), dtype=torch.uint8)
    for padded, image, (height, width) in zip(batch, images, sizes, strict=True):
        padded[:, :height, :width] = image
    views = make_batched_views(batch, params, spec)
    for i, image in enumerate(images):
        alone = make_batched_views(image[None], params.rows(6 * i, 6 * i + 6), spec)
        torch.testing.assert_close(views[i : i + 1], alone, atol=1e-5, rtol=0)


def test_all_flipped_is_the_mirror_image(make_image, draw):
    image = make_image(3, 24, 24)
    whole = CropSpec(size=24, scale=(1.0, 1.0), ratio=(1.0, 1.0), hflip=1.0)
    params = draw(whole, [(24, 24)])
    assert torch.equal(make_views(image, params, whole)[0], image.flip(-1))
    device = make_batched_views(image[None], params, whole)[0, 0]
    torch.testing.assert_close(device * 255, image.flip(-1).float(), atol=1e-3, rtol=0)


def test_order_of_the_jitter_matters(make_image, draw, oracle):
    spec = dataclasses.replace(BASE, count=2, brightness=0.6, contrast=0.6)
    image = make_image(3, 24, 24)
    params = draw(spec, [(24, 24)])
    same = [field[:1].expand(2, *field.shape[1:]) for field in params]
    params = type(params)(*same)._replace(
        order=torch.tensor([[0, 1, 2, 3], [1, 0, 2, 3]]),
        brightness=torch.tensor([1.6, 1.6]),
        contrast=torch.tensor([0.4, 0.4]),
    )
    _check(spec, [image], params, oracle)
    views = make_batched_views(image[None], params, spec)[0]
    assert (views[0] - views[1]).abs().max() > 0.02


@pytest.mark.parametrize(
    "name", ["crop", "flip", "rotation", "brightness", "contrast", "hue", "blur", "solarize"]
)
def test_parameters_differ_within_a_batch(name, make_image, draw):
    whole = CropSpec(size=24, count=4, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    spec = dataclasses.replace(BASE if name == "crop" else whole, count=4, **OPERATIONS[name])
    image = make_image(3, 24, 24)
    views = make_batched_views(image.expand(4, -1, -1, -1), draw(spec, [(24, 24)] * 4), spec)
    distinct = {
        view.mul(255).round().to(torch.uint8).numpy().tobytes() for view in views.flatten(0, 1)
    }
    on_or_off = name in ("flip", "solarize")
    assert len(distinct) == 2 if on_or_off else len(distinct) >= 6


def test_chunks_do_not_change_the_result(make_image, draw, monkeypatch):
    spec = CropSpec(size=16, count=3, scale=(0.2, 1.0), **FULL)
    images = torch.stack([make_image(3, 30, 30, seed=i) for i in range(7)])
    params = draw(spec, [(30, 30)] * 7)
    whole = make_batched_views(images, params, spec)
    monkeypatch.setattr("lit_ssl.transforms.views.device._CHUNK_VALUES_CPU", 3 * 3 * 16 * 30 * 2)
    torch.testing.assert_close(make_batched_views(images, params, spec), whole, atol=1e-6, rtol=0)


def test_float_images_and_autocast(make_image, draw):
    spec = CropSpec(size=16, count=3, **FULL)
    images = make_image(3, 30, 30)[None]
    params = draw(spec, [(30, 30)])
    expected = make_batched_views(images, params, spec)
    torch.testing.assert_close(make_batched_views(images / 255, params, spec), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(make_batched_views(images, params, spec), expected)


def test_the_host_never_reads_from_the_device(draw):
    # Tensors on the meta device have no values: any read would raise.
    spec = CropSpec(size=16, count=3, solarize=0.5, equalize=0.5, shear=5.0, **FULL)
    images = torch.empty(4, 3, 30, 30, dtype=torch.uint8, device="meta")
    views = make_batched_views(images, draw(spec, [(30, 30)] * 4), spec)
    assert views.shape == (4, 3, 3, 16, 16)
    assert views.device.type == "meta"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_same_views_without_synchronising(make_image, draw):
    spec = CropSpec(size=32, count=4, solarize=0.5, equalize=0.5, shear=5.0, **FULL)
    images = torch.stack([make_image(3, 60, 50, seed=i) for i in range(4)])
    params = draw(spec, [(60, 50)] * 4)
    on_device = images.cuda()
    make_batched_views(on_device, params, spec)
    torch.cuda.set_sync_debug_mode("error")
    try:
        views = make_batched_views(on_device, params, spec)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(
        views.cpu(), make_batched_views(images, params, spec), atol=1e-3, rtol=0
    )


def test_four_channels_can_be_cropped_but_not_coloured(make_image, draw):
    image = torch.cat([make_image(3, 30, 30), make_image(1, 30, 30)])
    params = draw(BASE, [(30, 30)])
    assert make_views(image, params, BASE).shape == (12, 4, 24, 24)
    assert make_batched_views(image[None], params, BASE).shape == (1, 12, 4, 24, 24)
    colored = dataclasses.replace(BASE, brightness=0.4)
    for call in (
        lambda: make_views(image, params, colored),
        lambda: make_batched_views(image[None], params, colored),
    ):
        with pytest.raises(ValueError, match=r"need images with 1 or 3 channels, got 4"):
            call()


def test_every_view_has_a_solarize_threshold_of_its_own(make_image, draw):
    spec = CropSpec(size=24, count=40, solarize=0.5, solarize_threshold=(0.0, 256.0))
    image = make_image(3, 40, 40)
    params = draw(spec, [(40, 40)])
    thresholds = (params.solarize_level * 255 + 0.5).round()
    assert len(thresholds.unique()) > 30
    plain = dataclasses.replace(spec, solarize=0.0)
    worker = zip(make_views(image, params, spec), make_views(image, params, plain), strict=True)
    device = zip(
        make_batched_views(image[None], params, spec)[0],
        make_batched_views(image[None], params, plain)[0],
        strict=True,
    )
    for i, (view, before) in enumerate(worker):
        expected = TF.solarize(before, float(thresholds[i])) if params.solarize[i] else before
        assert torch.equal(view, expected)
    for i, (view, before) in enumerate(device):
        level = float(params.solarize_level[i])
        expected = TF.solarize(before, level) if params.solarize[i] else before
        torch.testing.assert_close(view, expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_equalize_is_torchvisions_after_everything_else(channels, make_image, draw):
    spec = CropSpec(size=24, count=40, scale=(0.3, 1.0), solarize=0.2, equalize=0.5)
    image = make_image(channels, 40, 40)
    params = draw(spec, [(40, 40)])
    before = dataclasses.replace(spec, equalize=0.0)
    assert 5 < params.equalize.sum() < 35
    for view, plain, chosen in zip(
        make_views(image, params, spec), make_views(image, params, before), params.equalize,
        strict=True,
    ):  # fmt: skip
        assert torch.equal(view, TF.equalize(plain) if chosen else plain)
    device = make_batched_views(image[None], params, spec)[0]
    plain = make_batched_views(image[None], params, before)[0].mul(255).round().to(torch.uint8)
    for view, pixels, chosen in zip(device, plain, params.equalize, strict=True):
        if chosen:
            torch.testing.assert_close(view, TF.equalize(pixels) / 255)


def test_new_operations_leave_the_parameters_of_old_recipes_alone(draw):
    spec = CropSpec(size=24, count=5, solarize=0.5, **FULL)
    more = dataclasses.replace(spec, solarize_threshold=(0.0, 256.0), equalize=0.5)
    for name in ("top", "angle", "brightness", "blur_sigma", "solarize"):
        old, new = (getattr(draw(s, [(40, 40)]), name) for s in (spec, more))
        assert torch.equal(old, new)
