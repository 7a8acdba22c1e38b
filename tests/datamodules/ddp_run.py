"""Trains, evaluates and resumes on two processes; each writes what it saw to FOLDER/RANK.json."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch

from lit_ssl.datamodules import ImageDataModule
from lit_ssl.datamodules.reading.images import ArrayImages
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.strategies.ddp.attempts import leave_group_at_exit
from lit_ssl.transforms import CropSpec, EvalTransform, MultiCrop


class Data(ImageDataModule):
    class_names = ("only",)

    def default_eval_transform(self):
        return EvalTransform(8)

    def load_rows(self, split):
        size = {"train": 43, "val": 7, "test": 5}[split]
        pixels = torch.arange(size, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
        return Rows(
            ArrayImages(pixels.contiguous()), {"label": np.arange(size)}
        )  # the label is the index


class Recorder(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.evaluated = [], {"val": [], "test": [], "predict": []}

    def training_step(self, batch, batch_idx):
        views, labels = batch
        digest = hashlib.sha1(b"".join(view.numpy().tobytes() for view in views)).hexdigest()
        self.seen.append([self.current_epoch, labels.tolist(), digest])
        return self.weight * views[0].mean()

    def validation_step(self, batch, batch_idx):
        self.evaluated["val"] += batch[1].tolist()

    def test_step(self, batch, batch_idx):
        self.evaluated["test"] += batch[1].tolist()

    def predict_step(self, batch, batch_idx):
        self.evaluated["predict"] += batch[1].tolist()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(folder, **options):
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


def main(folder, augment, workers):
    def data():
        recipe = MultiCrop([CropSpec(size=6, count=2, hflip=0.5, brightness=0.5)])
        return Data(
            batch_size=4, num_workers=workers, train_transform=recipe, augment=augment, seed=3
        )

    save = pl.callbacks.ModelCheckpoint(
        folder, filename="{step}", every_n_train_steps=3, save_top_k=-1
    )
    whole, rest, data_module = Recorder(), Recorder(), data()
    run = trainer(folder, callbacks=[save])
    run.fit(whole, datamodule=data_module)
    bank = [int(i) for _, labels in data_module.bank_dataloader() for i in labels]
    run.test(whole, datamodule=data_module, verbose=False)
    run.predict(whole, datamodule=data_module)
    resumed = trainer(folder, enable_checkpointing=False, limit_val_batches=0)
    resumed.fit(rest, datamodule=data(), ckpt_path=folder / "step=3.ckpt", weights_only=True)
    result = {"whole": whole.seen, "rest": rest.seen, "bank": bank, **whole.evaluated}
    return run.global_rank, result


if __name__ == "__main__":
    leave_group_at_exit()
    results = {}
    for mode, number in (("worker", 1), ("device", 0)):
        folder = Path(sys.argv[1]) / mode
        rank, results[mode] = main(folder, mode, number)
    (Path(sys.argv[1]) / f"{rank}.json").write_text(json.dumps(results))
