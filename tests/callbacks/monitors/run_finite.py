"""One of two CPU processes sees NaN: run_finite.py FOLDER, with LOCAL_RANK 0 and 1."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from lightning.pytorch.callbacks import ModelCheckpoint

sys.path.insert(0, str(Path(__file__).parents[1]))
import toys

from lit_ssl.callbacks import FiniteGuard
from lit_ssl.errors import NonFiniteError
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


def run(name, folder):
    module, strategy, options = {
        "ddp": (Rank1, "ddp", {}),
        "local": (Rank1, LocalSGDStrategy(sync_every=2), {}),
        "look": (Weight1, LocalSGDStrategy(sync_every=2), {"val_check_interval": 3}),
    }[name]
    torch.manual_seed(0)
    trainer = toys.make_trainer(
        folder, devices=2, strategy=strategy, max_epochs=2, enable_checkpointing=True,
        log_every_n_steps=5, use_distributed_sampler=False,
        callbacks=[FiniteGuard(), ModelCheckpoint(folder / name, every_n_train_steps=2)],
        **options,
    )  # fmt: skip
    try:
        trainer.fit(module(), toys.ToyData(train=96))
    except NonFiniteError as error:
        return [f"NonFiniteError: {error}", trainer.global_step]
    return ["", trainer.global_step]


def main(folder):
    torch.set_num_threads(1)
    found = {name: run(name, folder) for name in ("ddp", "local", "look")}
    (folder / f"{os.environ['LOCAL_RANK']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
