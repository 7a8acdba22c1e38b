"""Trains on clips of CACHE; with MODE "kill" it dies in mid-epoch, with "rest" it goes on."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from pathlib import Path

import lightning.pytorch as pl
import torch

from lit_ssl.datamodules import VideoFolderDataModule


class Recorder(pl.LightningModule):
    def __init__(self, kill_at):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.kill_at = [], kill_at

    def training_step(self, batch, batch_idx):
        if len(self.seen) == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        video, labels = batch
        self.seen.append([labels.tolist(), hashlib.sha1(video.numpy().tobytes()).hexdigest()])
        return self.weight * video.mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def clips_seen(cache, folder, mode, kept):
    data = VideoFolderDataModule(
        root="not/there", cache=cache, cache_dir=kept, num_frames=6, size=24, num_workers=0,
        batch_size=4, seed=2,
    )  # fmt: skip
    saver = pl.callbacks.ModelCheckpoint(
        folder / mode, filename="{step}", every_n_train_steps=3, save_top_k=-1
    )
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=2, logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[saver], limit_val_batches=0,
    )  # fmt: skip
    module = Recorder(kill_at=5 if mode == "kill" else None)
    ckpt = folder / "kill/step=3.ckpt" if mode == "rest" else None
    trainer.fit(module, datamodule=data, ckpt_path=ckpt, weights_only=True)
    return module.seen


if __name__ == "__main__":
    cache, folder, mode, kept = sys.argv[1:]
    clips_seen(cache, Path(folder), mode, kept)
