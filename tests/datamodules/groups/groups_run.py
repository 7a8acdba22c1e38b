"""Trains under weights on two processes, resumes, and writes what it saw to FOLDER/RANK.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch

from lit_ssl.datamodules import GroupImageDataModule
from lit_ssl.datamodules.reading.images import ArrayImages
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.strategies.ddp.attempts import leave_group_at_exit
from lit_ssl.transforms import EvalTransform


class Data(GroupImageDataModule):
    class_names = ("even", "odd")
    attribute_names = ("x", "y")

    def default_eval_transform(self):
        return EvalTransform(8)

    def load_rows(self, split):
        size = {"train": 43, "val": 7, "test": 5}[split]
        rows = np.arange(size)
        pixels = torch.arange(size, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
        columns = {"label": rows % 2, "attribute": rows // 2 % 2}
        return Rows(ArrayImages(pixels.contiguous()), columns)


class Recorder(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.val = [], []

    def prepare(self, epoch):
        data = self.trainer.datamodule
        data.set_sampling(np.arange(43.0) if epoch else None)
        data.set_groups(np.arange(43) % 2 * 2 + epoch % 2)

    def on_train_start(self):
        self.prepare(self.current_epoch)

    def on_train_epoch_end(self):
        self.prepare(self.current_epoch + 1)

    def training_step(self, batch, batch_idx):
        images, labels, groups = batch
        rows = (images[:, 0, 0, 0] * 255).round().long()
        self.seen.append([self.current_epoch, rows.tolist(), labels.tolist(), groups.tolist()])
        return self.weight * images.mean()

    def validation_step(self, batch, batch_idx):
        self.val += batch[2].tolist()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def main(folder, workers):
    def data():
        return Data(batch_size=4, num_workers=workers, mean=[0.0], std=[1.0], seed=3)

    def trainer(**options):
        return pl.Trainer(
            accelerator="cpu",
            strategy="ddp",
            devices=2,
            max_epochs=2,
            logger=False,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            **options,
        )

    save = pl.callbacks.ModelCheckpoint(
        folder, filename="{step}", every_n_train_steps=7, save_top_k=-1
    )
    whole, rest, data_module = Recorder(), Recorder(), data()
    run = trainer(callbacks=[save])
    run.fit(whole, datamodule=data_module)
    bank = [row for images, *_ in data_module.bank_dataloader() for row in images[:, 0, 0, 0]]
    resumed = trainer(enable_checkpointing=False, limit_val_batches=0)
    resumed.fit(rest, datamodule=data(), ckpt_path=folder / "step=7.ckpt", weights_only=True)
    bank = [int(row) for row in bank]
    return run.global_rank, {"whole": whole.seen, "rest": rest.seen, "bank": bank, "val": whole.val}


if __name__ == "__main__":
    leave_group_at_exit()
    rank, result = main(Path(sys.argv[1]), workers=1)
    (Path(sys.argv[1]) / f"{rank}.json").write_text(json.dumps(result))
