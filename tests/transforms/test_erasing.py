"""Random erasing on batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lit_ssl.transforms import RandomErasing


def erased(images, out):
    """Bounding box of what changed in each image: (top, bottom, left, right), or None."""
    boxes = []
    for before, after in zip(images, out, strict=True):
        changed = (before != after).all(dim=0)
        assert torch.equal(changed, (before != after).any(dim=0))
        if not changed.any():
            boxes.append(None)
            continue
        rows, columns = (changed.any(dim=d).nonzero()[:, 0] for d in (1, 0))
        box = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
        assert changed[box[0] : box[1], box[2] : box[3]].all()  # a full rectangle
        boxes.append([int(side) for side in box])
    return boxes


def test_rectangles_of_some_images_become_noise():
    torch.manual_seed(0)
    images = torch.full((400, 3, 32, 48), 7.0)
    out = RandomErasing(0.25)(images)
    assert (images == 7.0).all()  # the batch is left as it was
    boxes = [box for box in erased(images, out) if box is not None]
    assert len(boxes) / 400 == pytest.approx(0.25, abs=0.07)
    heights, widths = (np.array([b[k + 1] - b[k] for b in boxes]) for k in (0, 2))
    shares = heights * widths / (32 * 48)
    assert shares.min() > 0.015
    assert shares.max() < 0.36
    ratios = heights / widths
    assert ratios.min() > 0.25
    assert ratios.max() < 1 / 0.25
    assert np.mean(ratios > 1) == pytest.approx(0.5, abs=0.15)
    noise = out[out != 7.0]
    assert noise.mean().item() == pytest.approx(0, abs=0.03)
    assert noise.std().item() == pytest.approx(1, abs=0.03)
    tops, lefts = np.array([b[0] for b in boxes]), np.array([b[2] for b in boxes])
    assert min(tops.min(), lefts.min()) == 0
    assert (tops + heights).max() == 32
    assert (lefts + widths).max() == 48


def test_it_is_a_function_of_the_global_generator():
    images = torch.zeros(5, 1, 8, 8)
    erasing = RandomErasing(1.0)
    torch.manual_seed(3)
    first, after = erasing(images), torch.rand(())
    torch.manual_seed(3)
    assert torch.equal(erasing(images), first)
    assert torch.equal(torch.rand(()), after)
    assert not torch.equal(erasing(images), first)
    assert all(box is not None for box in erased(images, first))
    assert first.dtype == torch.float32


def test_nothing_to_erase():
    images = torch.zeros(3, 3, 8, 8)
    assert RandomErasing(0.0)(images) is images
    tiny = torch.zeros(3, 3, 1, 1)  # no rectangle is smaller than the image
    assert torch.equal(RandomErasing(1.0)(tiny), tiny)


@pytest.mark.parametrize(
    "wrong", [{"probability": 1.5}, {"area": (0.0, 0.3)}, {"area": (0.5, 0.3)}, {"ratio": (2, 1)}]
)
def test_wrong_values_are_named(wrong):
    with pytest.raises(ValueError, match="random erasing needs a probability in"):
        RandomErasing(**{"probability": 0.5, **wrong})
