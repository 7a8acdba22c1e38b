"""A tiny module and data module that follow the contracts of docs/design.md."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Sampler

CLASSES = 4


class ToyImages(Dataset):
    """Noisy pictures of four fixed patterns, uint8 [1, 8, 8]."""

    def __init__(self, count, seed, labelled=True):
        generator = torch.Generator().manual_seed(seed)
        patterns = torch.rand(CLASSES, 1, 8, 8, generator=torch.Generator().manual_seed(123))
        self.labels = torch.arange(count) % CLASSES
        noise = 0.25 * torch.randn(count, 1, 8, 8, generator=generator)
        images = patterns[self.labels] + noise
        self.images = (255 * images.clamp(0, 1)).byte()
        if not labelled:
            self.labels = torch.full_like(self.labels, -1)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.images[index], self.labels[index]


class EveryNth(Sampler):
    """Shard of a process: each sample once, so shards may differ in length."""

    def __init__(self, count, rank, world):
        self.indices = range(rank, count, world)

    def __iter__(self):
        return iter(self.indices)

    def __len__(self):
        return len(self.indices)


class ToyData(pl.LightningDataModule):
    num_classes = CLASSES
    mean = (0.5,)
    std = (0.25,)

    def __init__(self, views=False, train=41, val=13, test=15, batch_size=8, labelled=True):
        super().__init__()
        self.views = views
        self.batch_size = batch_size
        self.bank = ToyImages(train, seed=0, labelled=labelled)
        self.val = ToyImages(val, seed=1, labelled=labelled)
        self.test = ToyImages(test, seed=2, labelled=labelled)
        self.bank_passes = 0

    def collate(self, samples):
        images = torch.stack([s[0] for s in samples])
        labels = torch.stack([s[1] for s in samples])
        large = torch.stack([images, images.flip(-1), images.flip(-2)], dim=1)
        small = torch.stack([images[..., :4, :4], images[..., 4:, 4:]], dim=1)
        return [large, small], labels

    def train_dataloader(self):
        collate = self.collate if self.views else None
        return DataLoader(self.bank, batch_size=self.batch_size, drop_last=True, collate_fn=collate)

    def val_dataloader(self):
        return DataLoader(self.val, batch_size=5)

    def test_dataloader(self):
        return DataLoader(self.test, batch_size=5)

    def bank_dataloader(self):
        self.bank_passes += 1
        world = self.trainer.world_size
        sampler = EveryNth(len(self.bank), self.trainer.global_rank, world) if world > 1 else None
        return DataLoader(self.bank, batch_size=7, sampler=sampler)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        inputs, labels = batch
        if isinstance(inputs, list):
            return [self.normalise(view) for view in inputs], labels
        return self.normalise(inputs), labels

    def normalise(self, images):
        assert images.dtype == torch.uint8
        return (images.float() / 255 - self.mean[0]) / self.std[0]


class ToyModule(pl.LightningModule):
    patch_size = 2

    def __init__(self, width=16, give_features=True):
        super().__init__()
        self.embed_dim = width
        self.give_features = give_features
        self.norm = nn.BatchNorm1d(64)
        self.drop = nn.Dropout(0.2)
        self.linear = nn.Linear(64, width)
        self.decoder = nn.Linear(width, 64)
        self.forwards = 0
        self.losses = []

    def forward(self, images):
        self.forwards += 1
        return self.linear(self.drop(self.norm(images.flatten(1))))

    def doubled(self, images):
        return torch.cat([self(images), self(images)], dim=1)

    def training_step(self, batch, batch_idx):
        inputs, _ = batch
        images = inputs[0][:, 0] if isinstance(inputs, list) else inputs
        features = self(images)
        loss = F.mse_loss(self.decoder(features), images.flatten(1))
        self.losses.append(loss.item())
        out = {"loss": loss, "targets": features.detach().softmax(dim=1)}
        if self.give_features:
            out["features"] = features.detach()
        if isinstance(inputs, list):
            rows = 2 * len(images)  # two masked views
            out["kept_patches"] = torch.rand(rows, 16).argsort(dim=1)[:, :10]
        return out

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        return {"features": self(images), "labels": labels}

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


def make_trainer(folder, **settings):
    defaults = {
        "default_root_dir": folder,
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 2,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
    }
    return pl.Trainer(**{**defaults, **settings})
