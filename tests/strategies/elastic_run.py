"""Trains under torchrun; rank 1 kills itself once: elastic_run.py FOLDER."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import lightning.pytorch as pl
import torch

sys.path.insert(0, str(Path(__file__).parent))
from cases_golden import SGD, SLOWMO
from lightning.pytorch.callbacks import ModelCheckpoint
from problems import GoldenModule, flat, load, make_trainer


class Kill(pl.Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
        if first and trainer.global_rank == 1 and trainer.global_step == 10:
            os.kill(os.getpid(), signal.SIGKILL)


def main(folder):
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    time.sleep(1.5 * rank)  # a process that is late must not meet the dead one's address
    module = GoldenModule(load("slowmo_sgd_w2"), SGD, rank)
    save = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=3, save_last=True)
    trainer = make_trainer(SLOWMO(sync_every=4), 2, max_steps=24, callbacks=[save, Kill()])
    trainer.fit(module, ckpt_path="last")
    result = {
        "attempt": int(os.environ["TORCHELASTIC_RESTART_COUNT"]),
        "steps": trainer.global_step,
        "trajectory": torch.stack(module.trajectory),
        "end": flat(module),
    }
    torch.save(result, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
