"""One of two CPU processes sees NaN: run_finite.py OUT.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy

sys.path.insert(0, str(Path(__file__).parents[1]))
import toys

from lit_ssl.callbacks import FiniteGuard
from lit_ssl.strategies import LocalSGDStrategy


class Rank1(toys.ToyModule):
    """The loss of rank 1 is NaN from a step on, though no gradient is."""

    def training_step(self, batch, batch_idx):
        out = super().training_step(batch, batch_idx)
        if self.global_rank == 1 and self.trainer.global_step >= 2:
            out["loss"] = out["loss"] + torch.tensor(torch.nan)
        return out


class Weight1(toys.ToyModule):
    """A weight of rank 1 is NaN after step 3."""

    def on_train_batch_end(self, *args):
        if self.global_rank == 1 and self.trainer.global_step == 3:
            with torch.no_grad():
                self.linear.bias[0] = torch.nan


RUNS = {
    "ddp": (Rank1, lambda: DDPStrategy(start_method="fork"), {}),
    "local": (Rank1, lambda: LocalSGDStrategy(sync_every=2, start_method="fork"), {}),
    "look": (
        Weight1, lambda: LocalSGDStrategy(sync_every=2, start_method="fork"),
        {"val_check_interval": 3},
    ),
}  # fmt: skip


def run(name, folder, queue):
    module, strategy, options = RUNS[name]
    torch.manual_seed(0)
    trainer = toys.make_trainer(
        folder, devices=2, strategy=strategy(), max_epochs=2, enable_checkpointing=True,
        log_every_n_steps=4,
        callbacks=[FiniteGuard(), ModelCheckpoint(Path(folder) / name, every_n_train_steps=2)],
        **options,
    )  # fmt: skip
    trainer.fit(module(), toys.ToyData(train=96))


if __name__ == "__main__":
    raise SystemExit
