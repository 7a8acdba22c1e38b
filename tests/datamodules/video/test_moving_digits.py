"""Videos of moving digits: what is shown, two levels of one video, splits, options."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lit_ssl.datamodules import MNIST5kDataModule, MovingDigitsDataModule
from lit_ssl.video.resampling import downsample_video


def digits(**kwargs):
    return MovingDigitsDataModule(**{"sizes": (12, 6, 6), "batch_size": 4, **kwargs})


def clips_of(data, split="train"):
    return data.rows(split).source.clips


def whole(data, row, split="train"):
    clips = clips_of(data, split)
    return clips.read_clip(row, np.arange(clips.frames[row]))


def test_batches():
    data = digits()
    data.setup("fit")
    video, labels = next(iter(data.train_dataloader()))
    assert video.dtype == torch.uint8
    assert video.shape == (4, 16, 3, 32, 32)
    assert set(labels.tolist()) <= {0, 1, 2}
    finished, _ = data.on_after_batch_transfer([video, labels], 0)
    assert finished.min() == -1
    assert 0.8 < finished.max() <= 1
    assert (video[:, :, 0] == video[:, :, 2]).all()  # grey
    assert (data.num_classes, data.resolution) == (3, (32, 32))
    assert list(data.class_names) == ["0", "1", "7"]


@pytest.mark.parametrize("kwargs", [{}, {"num_digits": 2, "coloured": True}])
def test_a_lower_level_is_the_same_video_at_half_the_size_and_rate(kwargs):
    high, low = digits(**kwargs), digits(num_frames=8, stride=2, size=16, **kwargs)
    for one in (high, low):
        one.setup("test")
    (above, labels), (below, same) = (
        next(iter(high.test_dataloader())),
        next(iter(low.test_dataloader())),
    )
    assert torch.equal(labels, same)
    box = downsample_video(above.double())
    assert torch.equal(below, (box + 0.5).floor().to(torch.uint8))
    # as networks see them, within the rounding to whole grey levels
    shrunk = downsample_video(high.finish(above))
    assert (shrunk - low.finish(below)).abs().max() <= 1 / 255 + 1e-6


def test_all_shrunk_sizes_and_odd_ones():
    sizes = {size: whole(digits(canvas_size=33, size=size), 0) for size in (33, 11, 3)}
    for size, video in sizes.items():
        factor = 33 // size
        mean = sizes[33].reshape(16, size, factor, size, factor, 3).mean((2, 4))
        assert np.abs(video - mean).max() <= 0.5


def test_videos_show_digits_of_their_class_and_splits_share_none():
    data = digits(sizes=(300, 60, 60), classes=(3, 8), digit_size=28)
    real = {split: MNIST5kDataModule().load_rows(split) for split in ("train", "test")}
    label_of = {
        (split, image.numpy().tobytes()): label
        for split, rows in real.items()
        for image, label in zip(rows.source.pixels[:, 0].float(), rows.labels, strict=True)
    }
    shown = {}
    for split in ("train", "val", "test"):
        clips = clips_of(data, split)
        images = [clips.pixels[row[0]].tobytes() for row in clips.images]
        home = "test" if split == "test" else "train"
        found = [label_of[home, image] for image in images]
        assert found == [(3, 8)[label] for label in data.labels(split)]
        shown[split] = set(images)
    assert not shown["train"] & shown["val"]
    assert not shown["train"] & shown["test"]
    assert len(shown["train"]) > 200
    assert np.bincount(data.labels("val")).tolist() == [30, 30]


def test_a_video_is_a_function_of_seed_split_and_number():
    small, large, again = digits(), digits(sizes=(30, 6, 6), seed=5), digits(motion_seed=1)
    for row in range(12):
        assert np.array_equal(whole(small, row), whole(large, row))
    assert not np.array_equal(whole(small, 0), whole(again, 0))
    assert not np.array_equal(whole(small, 0), whole(small, 0, "test"))
    rows = np.array([7, 3])
    chosen = clips_of(small).select(rows)
    for place, row in enumerate(rows):
        assert np.array_equal(chosen.read_clip(place, np.arange(16)), whole(small, row))


def test_digits_move():
    data = digits()
    for row in range(12):
        video = whole(data, row)[..., 0].astype(float)
        ys, xs = np.mgrid[:32, :32]
        mass = video.sum((1, 2))
        centres = np.stack([(video * axis).sum((1, 2)) / mass for axis in (ys, xs)], axis=1)
        steps = np.linalg.norm(np.diff(centres, axis=0), axis=1)
        assert 0.3 < np.median(steps) < 1.6  # 1/24 to 1/8 of 12 pixels


def test_two_digits_and_colours():
    one, two = digits(), digits(num_digits=2)
    more = [(whole(two, row) > 60).sum() / (whole(one, row) > 60).sum() for row in range(12)]
    assert np.mean(more) > 1.3
    colours = digits(coloured=True)
    coloured = [whole(colours, row) for row in range(12)]
    hues = {tuple((video.max((0, 1, 2)) > 150).tolist()) for video in coloured}
    assert len(hues) > 2


def test_the_frames_of_moving_mnist():
    data = digits(
        classes=range(10), num_digits=2, digit_size=28, canvas_size=64, size=64, num_frames=20,
        video_frames=20,
    )  # fmt: skip
    assert whole(data, 0).shape == (20, 64, 64, 3)
    assert data.num_classes == 10


def test_missing_splits_stand_in_for_each_other():
    data = digits(sizes=(12, 0, 6))
    assert data.validates_on_test
    assert len(data.labels("val")) == 6
    assert not digits().validates_on_test
    assert not digits(sizes=(12, 6, 0)).validates_on_test


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"size": 20}, "size must divide it, got 20 x 20"),
        ({"size": (32, 16)}, "size must divide it, got 32 x 16"),
        ({"digit_size": 32}, "below canvas_size, so that digits can move, got 32 and 32"),
        ({"num_digits": 3}, "num_digits must be 1 or 2, got 3"),
        ({"classes": (0, 10)}, "classes has 10, but the 10 classes"),
        ({"classes": (1, 1)}, "must name each class once"),
        ({"sizes": (0, 1, 1)}, "sizes must be the numbers of training"),
        ({"sizes": (5, 1)}, "sizes must be the numbers of training"),
        ({"video_frames": 15}, "must be enough for clips of 16 frames, got 15"),
        ({"stride": 2}, r"clips of 31 frames \(16 at a stride of 2\), got 16"),
        ({"eval_frames": 17}, "clips of 17 frames, got 16"),
    ],
)
def test_wrong_options(kwargs, message):
    with pytest.raises(ValueError, match=message):
        digits(**kwargs)
