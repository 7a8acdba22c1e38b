"""Streams, validates and resumes on two processes; each writes what it saw to FOLDER/RANK.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import lightning.pytorch as pl
import torch

from lit_ssl.datamodules import CaptionShardsDataModule
from lit_ssl.errors import InputError
from lit_ssl.strategies.ddp.attempts import leave_group_at_exit


class Recorder(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.validated = [], []

    def training_step(self, batch, batch_idx):
        inputs, _ = batch
        numbers = (inputs["images"][:, 0].mean((1, 2)) * 255).round().int().tolist()
        assert numbers == (inputs["input_ids"][:, 1] - 5).tolist()
        self.seen.append([self.current_epoch, numbers])
        return self.weight * inputs["images"].mean()

    def validation_step(self, batch, batch_idx):
        self.validated += (batch[0]["input_ids"][:, 1] - 5).tolist()

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
        default_root_dir=folder,
        **options,
    )


def main(folder, shards, val_shards, vocabulary):
    def data(workers, **options):
        given = {"epoch_samples": 24, "streams": 2, "shuffle_buffer": 3, "batch_size": 2}
        return CaptionShardsDataModule(
            shards=shards,
            val_shards=val_shards,
            tokenizer=vocabulary,
            num_workers=workers,
            image_size=8,
            mean=[0.0] * 3,
            std=[1.0] * 3,
            seed=3,
            **{**given, **options},
        )

    result = {}
    for workers in (0, 2):
        save = pl.callbacks.ModelCheckpoint(
            folder / str(workers), filename="{step}", every_n_train_steps=4, save_top_k=-1
        )
        whole, rest = Recorder(), Recorder()
        run = trainer(folder, callbacks=[save])
        run.fit(whole, datamodule=data(workers))
        resumed = trainer(folder, enable_checkpointing=False, limit_val_batches=0)
        path = folder / str(workers) / "step=4.ckpt"
        resumed.fit(rest, datamodule=data(2 - workers), ckpt_path=path, weights_only=True)
        result[workers] = {"whole": whole.seen, "rest": rest.seen, "val": whole.validated}
    unequal = Recorder()
    trainer(folder, enable_checkpointing=False, limit_val_batches=0).fit(
        unequal, datamodule=data(0, epoch_samples=37, streams=1)
    )
    result["unequal"] = unequal.seen
    try:
        trainer(folder).fit(Recorder(), datamodule=data(0, streams=8))
    except InputError as error:
        result["error"] = str(error)
    return run.global_rank, result


if __name__ == "__main__":
    leave_group_at_exit()
    folder = Path(sys.argv[1])
    rank, result = main(folder, *sys.argv[2:])
    (folder / f"{rank}.json").write_text(json.dumps(result))
