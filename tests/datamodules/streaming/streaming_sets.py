"""Options and comparisons for tests of shards."""

from __future__ import annotations

import torch

from lit_ssl.transforms import CropSpec, EvalTransform, MultiCrop

CHUNK = 5_000  # bytes: some five images


def options(**more):
    return {
        "batch_size": 7,
        "num_workers": 0,
        "seed": 4,
        "eval_transform": EvalTransform(16, resize=20),
        "train_transform": MultiCrop(
            [CropSpec(size=12, count=2, scale=(0.3, 1.0), hflip=0.5, brightness=0.4)]
        ),
        **more,
    }


def batches(data, loader, epoch=0):
    """All batches of a loader, as a network gets them."""
    made = getattr(data, loader)()
    if hasattr(made.sampler, "set_epoch"):
        made.sampler.set_epoch(epoch)
    return [data.on_after_batch_transfer(batch, 0) for batch in made]


def assert_same(one, other):
    assert len(one) == len(other) > 0
    for (images, labels), (others, their_labels) in zip(one, other, strict=True):
        assert torch.equal(labels, their_labels)
        views = zip(images, others, strict=True) if isinstance(images, list) else [(images, others)]
        assert all(torch.equal(view, its) for view, its in views)
