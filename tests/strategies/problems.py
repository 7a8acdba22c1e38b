"""Small models for the processes of the strategy tests; run_pool.py imports it."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint
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
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
    }
    callbacks = options.get("callbacks", ())
    defaults["enable_checkpointing"] = any(isinstance(c, Checkpoint) for c in callbacks)
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

    def forward(self, x):
        return self.out(torch.tanh(self.hidden(x)))

    def on_train_start(self):
        self.trajectory.append(flat(self))

    def on_train_batch_start(self, batch, batch_idx):
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = float(self.data["lr"][self.trainer.global_step])

    def training_step(self, batch, batch_idx):
        step = self.trainer.global_step  # a resumed loader begins anew
        x, y = self.data["X"][self.rank, step], self.data["Y"][self.rank, step]
        return (self(x.to(self.dtype)) - y).square().mean()

    def on_train_batch_end(self, *args):
        self.trajectory.append(flat(self))

    def validation_step(self, batch, batch_idx):
        x, y = self.data["X"][0, int(batch)], self.data["Y"][0, int(batch)]
        self.log("val_loss", (self(x) - y).square().mean(), sync_dist=True, batch_size=1)

    def configure_optimizers(self):
        return self.make([p for p in self.parameters() if p.requires_grad])

    def train_dataloader(self):
        return DataLoader(range(self.steps), batch_size=1)

    def val_dataloader(self):
        return DataLoader(range(3), batch_size=1)


class Noisy(GoldenModule):
    """Draws noise in every step, with BatchNorm and a frozen EMA copy of a layer."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.norm = torch.nn.BatchNorm1d(7)
        self.target = torch.nn.Linear(7, 3).requires_grad_(False)
        self.target.load_state_dict(self.out.state_dict())
        self.constant = torch.nn.Parameter(torch.arange(3.0) / 3, requires_grad=False)

    def forward(self, x):
        hidden = self.norm(torch.tanh(self.hidden(x)))
        hidden = torch.nn.functional.dropout(hidden, 0.2, self.training)
        return self.out(hidden) - 0.1 * self.target(hidden).detach() + self.constant

    def optimizer_step(self, *args, **kwargs):
        super().optimizer_step(*args, **kwargs)
        with torch.no_grad():
            for slow, fast in zip(self.target.parameters(), self.out.parameters(), strict=True):
                slow.lerp_(fast, 0.1)


class SaveAt(pl.Callback):
    """Save a checkpoint after some steps, on all ranks; remember what the module held."""

    def __init__(self, steps, folder, weights_only=False):
        self.steps, self.folder, self.weights_only = steps, Path(folder), weights_only
        self.local = {}

    def on_train_batch_end(self, trainer, pl_module, *args):
        step = trainer.global_step
        if step in self.steps:
            self.local[step] = {k: v.clone() for k, v in pl_module.state_dict().items()}
            trainer.save_checkpoint(self.folder / f"{step}.ckpt", self.weights_only)


class CountCollectives:
    """Counts the calls of torch.distributed's collectives."""

    NAMES = (
        "all_reduce", "broadcast", "all_gather", "all_gather_into_tensor", "all_gather_object",
        "barrier", "reduce", "gather", "gather_object", "broadcast_object_list", "all_to_all",
        "all_to_all_single", "reduce_scatter", "reduce_scatter_tensor", "scatter",
    )  # fmt: skip

    def __enter__(self):
        self.calls, self.originals = [], {}
        for name in self.NAMES:
            original = self.originals[name] = getattr(torch.distributed, name)
            setattr(torch.distributed, name, self.counting(name, original))
        return self

    def counting(self, name, original):
        def call(*args, **kwargs):
            self.calls.append(name)
            return original(*args, **kwargs)

        return call

    def __exit__(self, *error):
        for name, original in self.originals.items():
            setattr(torch.distributed, name, original)
