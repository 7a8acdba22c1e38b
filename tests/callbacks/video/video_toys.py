"""A module that makes videos of its own, and clips of noise, for tests of what watches training."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

FRAMES, SIZE, CLASSES = 4, (6, 8), 3


class ColumnMaker(pl.LightningModule):
    """Grey videos, darker or brighter by chance, with a white column that tells the class."""

    level = 1
    num_frames = FRAMES
    resolution = SIZE
    num_classes = CLASSES

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.drop = nn.Dropout(0.5)
        self.asked = []  # (n, classes, the generator's seed)

    def sample(self, n, y=None, generator=None):
        assert not self.training
        if y is None:
            y = torch.randint(self.num_classes, (n,), generator=generator)
        self.asked.append((n, y.tolist(), generator.initial_seed()))
        shade = torch.randint(0, 120, (n, self.num_frames, 1, 1, 1), generator=generator)
        video = shade.expand(n, self.num_frames, 3, *SIZE).contiguous().byte()
        for row, label in enumerate(y.tolist()):
            video[row, ..., label] = 255
        return video

    def training_step(self, batch, batch_idx):
        video, _ = batch
        return (self.drop(self.weight * video).mean() - 0.3).square()

    def validation_step(self, batch, batch_idx):
        pass

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class UpperLevel(ColumnMaker):
    """Follows its input the better, the fewer videos it makes at once."""

    level = 2

    def matching_gap(self, n, generator):
        self.asked.append((n, "gap", generator.initial_seed()))
        own, shuffled = n / 10, 2.0
        return {"own": own, "shuffled": shuffled, "gap": 1 - own / shuffled}


class NoiseClips(pl.LightningDataModule):
    """Clips [N, T, 3, H, W], uint8 until they are on the device."""

    num_classes = CLASSES
    class_names = ("red", "green", "blue")
    mean = std = (0.5, 0.5, 0.5)

    def __init__(self, count=9, frames=FRAMES, size=SIZE, batch_size=3):
        super().__init__()
        random = torch.Generator().manual_seed(0)
        shape = (count, frames, 3, *size)
        self.videos = torch.randint(0, 256, shape, generator=random).byte()
        self.batch_size = batch_size

    def train_dataloader(self):
        data = TensorDataset(self.videos, torch.arange(len(self.videos)) % CLASSES)
        rank, world = self.trainer.global_rank, self.trainer.world_size
        shard = range(rank, len(data), world) if world > 1 else None
        return DataLoader(data, batch_size=self.batch_size, sampler=shard)

    val_dataloader = test_dataloader = train_dataloader

    def on_after_batch_transfer(self, batch, dataloader_idx):
        video, labels = batch
        return (video.float() / 255 - 0.5) / 0.5, labels
