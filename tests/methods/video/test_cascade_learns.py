"""Small levels learn: closer to real videos, and level 2 follows what it was made from."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch

from lit_ssl.callbacks import StepSeeder
from lit_ssl.datamodules import MovingDigitsDataModule
from lit_ssl.methods import CascadedVideoGAN
from lit_ssl.metrics import RandomFeatureDistance

SHARED = {
    "num_classes": 3, "d_steps": 1, "score_reduction": "mean", "lr_g": 3e-4, "lr_d": 6e-4,
    "betas": (0.0, 0.99), "ema_decay": 0.98, "ema_start": 0,
}  # fmt: skip


def train(module, steps, **data):
    trainer = pl.Trainer(
        max_epochs=-1, max_steps=steps, accelerator="cpu", logger=False, limit_val_batches=0,
        callbacks=[StepSeeder(20)], enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    data = MovingDigitsDataModule(**data, num_workers=0, seed=20)
    trainer.fit(module, datamodule=data)
    return trainer


def real_videos():
    data = MovingDigitsDataModule(num_frames=8, stride=2, size=16, batch_size=16, num_workers=0)
    data.setup("validate")
    return torch.cat([batch[0] for batch in data.val_dataloader()])[:256]


def distance(module, real):
    metric = RandomFeatureDistance(num_features=32)
    metric.update(real, real=True)
    metric.update(module.sample(len(real), generator=torch.Generator().manual_seed(0)), real=False)
    return float(metric.compute())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_level_1_comes_closer_and_level_2_follows_it(tmp_path):
    torch.manual_seed(20)
    level1 = CascadedVideoGAN(
        num_frames=8, resolution=16, channels=12, channel_multipliers=(2, 2, 2), **SHARED
    )
    real = real_videos()
    before = distance(level1, real)
    trainer = train(level1, 280, num_frames=8, stride=2, size=16, batch_size=16)
    after = distance(level1, real)
    assert after < before / 2
    path = tmp_path / "level1.ckpt"
    trainer.save_checkpoint(path)
    gaps = {}
    for use_matching in (True, False):
        torch.manual_seed(21)
        level2 = CascadedVideoGAN(
            level=2, num_frames=16, resolution=32, channels=8, window=4, d_frames=4,
            channel_multipliers=(2, 2, 2, 1, 1), previous=str(path), use_matching=use_matching,
            **SHARED,
        )  # fmt: skip
        train(level2, 240, num_frames=8, eval_frames=16, size=32, batch_size=8)
        found = level2.matching_gap(64, torch.Generator().manual_seed(0))
        gaps[use_matching] = found["gap"]
    assert gaps[True] > 0.4
    assert gaps[True] > gaps[False]
