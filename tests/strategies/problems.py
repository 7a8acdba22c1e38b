"""Small models for the processes of the strategy tests; run_pool.py imports it."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import DataLoader

GOLDEN = Path(__file__).parents[1] / "golden" / "strategies"


def load(name):
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key].copy()) for key in arrays}


def flat(module):
    return torch.cat([p.detach().float().flatten() for p in module.parameters()])


def make_trainer(strategy, world, **options):
    defaults = {
        "accelerator": "cpu",
        "devices": world,
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
    }
    return pl.Trainer(strategy=strategy, **{**defaults, **options})


class GoldenModule(pl.LightningModule):
    """The regression problem of the golden files; remembers its parameters after every step."""

    def __init__(self, data, optimizer, rank, steps=24):
        super().__init__()
        self.hidden = torch.nn.Linear(5, 7)
        self.out = torch.nn.Linear(7, 3)
        names = {"W1": self.hidden.weight, "b1": self.hidden.bias}
        names |= {"W2": self.out.weight, "b2": self.out.bias}
        with torch.no_grad():
            for key, parameter in names.items():
                parameter.copy_(data[key])
        self.data, self.make, self.rank, self.steps = data, optimizer, rank, steps
        self.trajectory = []
        self.spread = []

    def forward(self, x):
        return self.out(torch.tanh(self.hidden(x)))

    def on_train_start(self):
        self.trajectory.append(flat(self))

    def on_train_batch_start(self, batch, batch_idx):
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = float(self.data["lr"][int(batch)])

    def training_step(self, batch, batch_idx):
        step = int(batch)
        x, y = self.data["X"][self.rank, step], self.data["Y"][self.rank, step]
        return (self(x.to(self.dtype)) - y).square().mean()

    def on_train_batch_end(self, *args):
        self.trajectory.append(flat(self))

    def validation_step(self, batch, batch_idx):
        x, y = self.data["X"][0, int(batch)], self.data["Y"][0, int(batch)]
        self.log("val_loss", (self(x) - y).square().mean(), sync_dist=True, batch_size=1)

    def configure_optimizers(self):
        return self.make(self.parameters())

    def train_dataloader(self):
        return DataLoader(range(self.steps), batch_size=1)
