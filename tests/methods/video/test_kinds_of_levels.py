"""Levels of other factors, sizes, numbers of levels and precisions."""

from __future__ import annotations

import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lit_ssl.errors import InputError
from lit_ssl.methods import CascadedVideoGAN
from lit_ssl.methods.video.stored_cascade import load_generators

sys.path.insert(0, str(Path(__file__).parents[2]))
from small_cascades import fit, level1, level2, trainer


class Noise(pl.LightningDataModule):
    """Two videos of noise."""

    def __init__(self, frames, size, count=2):
        super().__init__()
        self.videos = torch.rand(count, frames, 3, *size) * 2 - 1

    def train_dataloader(self):
        labels = torch.arange(len(self.videos)) % 2
        return DataLoader(TensorDataset(self.videos, labels), batch_size=len(self.videos))


def step(module, folder, frames, size, count=2):
    """Train one step on noise; returns the Trainer."""
    runs = trainer(1, folder)
    runs.fit(module, datamodule=Noise(frames, size, count))
    return runs


@pytest.mark.parametrize(
    ("time", "space", "matching_space"), [(1, 2, "low"), (3, 1, "high"), (2, 4, "low")]
)
def test_other_factors(time, space, matching_space, trained_level1, tmp_path):
    frames, size = 6 * time, 8 * space
    module = level2(
        str(trained_level1), temporal_factor=time, spatial_factor=space, num_frames=frames,
        resolution=size, window=2, window_halo=1, matching_space=matching_space,
    )  # fmt: skip
    step(module, tmp_path, frames, (size, size))
    noise = torch.Generator().manual_seed
    whole = module.sample(2, [0, 1], noise(0), num_frames=10 * time)
    assert whole.shape == (2, 10 * time, 3, size, size)
    pieces = module.sample(2, [0, 1], noise(0), num_frames=10 * time, chunk=4)
    assert (whole.int() - pieces.int()).abs().max() <= 1


def test_three_levels_one_wide(tmp_path):
    step(level1(resolution=[8, 16]), tmp_path, 6, (8, 16), count=1).save_checkpoint(
        tmp_path / "1.ckpt"
    )
    for level in (2, 3):
        frames, size = 6 << (level - 1), (8 << (level - 1), 16 << (level - 1))
        module = level2(
            str(tmp_path / f"{level - 1}.ckpt"), level=level, num_frames=frames, resolution=size,
            channel_multipliers=(1, 1),
        )  # fmt: skip
        step(module, tmp_path, frames, size, count=1).save_checkpoint(tmp_path / f"{level}.ckpt")
    for level in (1, 2):  # they are inside
        (tmp_path / f"{level}.ckpt").unlink()
    cascade = load_generators(tmp_path / "3.ckpt")
    assert [spec.level for spec in cascade.specs] == [1, 2, 3]
    again = CascadedVideoGAN.load_from_checkpoint(tmp_path / "3.ckpt", weights_only=True)
    assert again.sample(1).shape == (1, 24, 3, 32, 64)
    latents, labels = cascade.draw_latents(1, torch.device("cpu")), torch.tensor([1])
    whole = cascade(latents, labels)
    part = cascade.frames(latents, labels, 5, 11)
    torch.testing.assert_close(part, whole[:, 5:11], atol=1e-5, rtol=0)
    fakes, condition, _ = again.new_fakes(1)
    assert condition.grad_fn is None  # the levels below leave no graph behind
    assert fakes.requires_grad


def test_half_precision_does_not_stop_the_average(trained_level1, tmp_path):
    module = level2(str(trained_level1), ema_start=0, ema_decay=0.9999)
    before = {n: p.clone() for n, p in module.generator_ema.named_parameters()}
    fit(module, tmp_path, 1, precision="bf16-true")
    assert module.generator.stem.bias.dtype == torch.bfloat16
    assert module.class_counts.dtype == torch.float64
    below = torch.load(trained_level1, weights_only=True)["state_dict"]
    for name, value in module.lower.levels[0].state_dict().items():
        assert torch.equal(value, below[f"generator_ema.{name}"])
    moved = [not torch.equal(p, before[n]) for n, p in module.generator_ema.named_parameters()]
    assert sum(moved) > len(moved) / 2
    assert module.sample(1).shape == (1, 12, 3, 16, 16)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"adam_eps": 0.0}, "adam_eps must be above 0"),
        ({"betas": (0.9,)}, "betas must lie in .* two of them"),
        ({"candidate_act": "gelu"}, "candidate_act must be"),
        ({"channel_multipliers": []}, "at least one block"),
        ({"resolution": 16.0}, "resolution takes whole numbers, not 16.0"),
        # a checkpoint of it could not be read again
        ({"num_frames": 12.0}, "num_frames takes whole numbers, not 12.0"),
    ],
)
def test_wrong_options_are_one_line(options, words):
    with pytest.raises(InputError, match=words):
        level2(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n": 0}, "at least 1, not 0"),
        ({"n": 2, "batch_size": 0}, "at least 1, not 2 and 0"),
        ({"n": 2, "y": [0.5, 0.5]}, "y must be 2 classes, whole numbers from 0 to 1"),
        ({"n": 2, "y": [0, 2]}, "y must be 2 classes"),
    ],
)
def test_wrong_words_to_sample_are_one_line(options, words):
    with pytest.raises(InputError, match=words):
        level1().sample(**options)
