"""Small cascades, and moving blobs to train them on, for tests."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from lit_ssl.callbacks import StepSeeder
from lit_ssl.methods import CascadedVideoGAN
from lit_ssl.video.resampling import downsample_video

SMALL: dict[str, Any] = {
    "num_classes": 2, "z_dim": 5, "embed_dim": 4, "d_steps": 1, "ema_start": 2, "ema_decay": 0.9,
    "standing_stats_batches": 2, "score_reduction": "mean",
}  # fmt: skip


def level1(**kwargs):
    """8 frames of 8 x 8."""
    return CascadedVideoGAN(**{**SMALL, "num_frames": 6, "resolution": 8, "channels": 4, **kwargs})


def level2(previous=None, **kwargs):
    """12 frames of 16 x 16, trained on 6 of them."""
    options = {"level": 2, "num_frames": 12, "resolution": 16, "channels": 4, "window": 3}
    options |= {"channel_multipliers": (2, 2, 2, 1), "previous": previous}
    return CascadedVideoGAN(**{**SMALL, **options, **kwargs})


def blobs(count, frames=12, size=16):
    """Squares that move to the right (class 0) or down (class 1), float [N, T, 3, H, W]."""
    video = torch.full((count, frames, 3, size, size), -1.0)
    for row in range(count):
        for time in range(frames):
            place = (row + time) % (size - 4)
            y, x = (6, place) if row % 2 == 0 else (place, 6)
            video[row, time, row % 3, y : y + 4, x : x + 4] = 1.0
    return video


class Blobs(pl.LightningDataModule):
    """Moving squares of a level; always in the same order."""

    num_classes = 2

    def __init__(self, level, count=8, batch_size=4):
        super().__init__()
        self.batch_size = batch_size
        videos = blobs(count)
        self.videos = downsample_video(videos, 2, 2) if level == 1 else videos

    def labels(self, split):
        """Classes."""
        return torch.arange(len(self.videos)).numpy() % 2

    def _loader(self):
        labels = torch.as_tensor(self.labels("train"))
        return DataLoader(TensorDataset(self.videos, labels), batch_size=self.batch_size)

    train_dataloader = val_dataloader = predict_dataloader = _loader


def trainer(steps, folder, **kwargs):
    """A silent Trainer that seeds each step."""
    options: dict[str, Any] = {
        "max_epochs": -1, "max_steps": steps, "accelerator": "cpu", "logger": False,
        "default_root_dir": folder, "enable_progress_bar": False, "enable_model_summary": False,
        "enable_checkpointing": False, "callbacks": [StepSeeder(3)], "limit_val_batches": 0,
    }  # fmt: skip
    return pl.Trainer(**{**options, **kwargs})


def fit(module, folder, steps=2, ckpt_path=None, count=8, **kwargs):
    """Train a level on its blobs; returns the Trainer."""
    runs = trainer(steps, folder, **kwargs)
    runs.fit(module, datamodule=Blobs(module.level, count), ckpt_path=ckpt_path)
    return runs
