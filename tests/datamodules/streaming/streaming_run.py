"""Trains on two processes, from files and from shards; writes what each has seen to FOLDER."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import lightning.pytorch as pl
import torch

from lit_ssl.datamodules import ImageFolderDataModule, StreamingImageDataModule
from lit_ssl.strategies.ddp.attempts import leave_group_at_exit
from lit_ssl.transforms import CropSpec, EvalTransform, MultiCrop


class Recorder(pl.LightningModule):
    def __init__(self, kill_at=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.kill_at = [], kill_at

    def training_step(self, batch, batch_idx):
        if len(self.seen) == self.kill_at and self.global_rank == 0:
            os.killpg(os.getpgid(0), signal.SIGKILL)  # both, and their workers
        views, labels = batch
        digest = hashlib.sha1(b"".join(view.numpy().tobytes() for view in views)).hexdigest()
        self.seen.append([labels.tolist(), digest])
        return self.weight * views[0].mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def options():
    return {
        "batch_size": 7,
        "num_workers": 0,
        "seed": 4,
        "eval_transform": EvalTransform(16, resize=20),
        "train_transform": MultiCrop([CropSpec(size=12, count=2, hflip=0.5, brightness=0.4)]),
    }


def main(images, shards, folder, mode):
    def fit(data, name, ckpt=None):
        module = Recorder(kill_at=5 if mode == "kill" else None)
        saver = pl.callbacks.ModelCheckpoint(
            folder / f"{mode}-{name}", filename="{step}", every_n_train_steps=3, save_top_k=-1
        )
        trainer = pl.Trainer(
            accelerator="cpu", strategy="ddp", devices=2, max_epochs=2, logger=False,
            enable_progress_bar=False, enable_model_summary=False, callbacks=[saver],
            limit_val_batches=0,
        )  # fmt: skip
        trainer.fit(module, datamodule=data, ckpt_path=ckpt, weights_only=True)
        return trainer.global_rank, module.seen

    stream = StreamingImageDataModule(url=str(shards), **options())
    ckpt = folder / "kill-stream/step=3.ckpt" if mode == "rest" else None
    rank, seen = fit(stream, "stream", ckpt)
    result = {"stream": seen}
    if mode == "whole":
        found = [row for images, labels in stream.bank_dataloader() for row in labels.tolist()]
        positions = list(stream.bank_dataloader().sampler)
        assert found == stream.labels("train")[positions].tolist()
        result["bank"] = positions
        _, result["files"] = fit(ImageFolderDataModule(root=str(images), **options()), "files")
    (folder / f"{mode}-{rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    leave_group_at_exit()
    images, shards, folder, *mode = sys.argv[1:]
    main(Path(images), Path(shards), Path(folder), mode[0] if mode else "whole")
