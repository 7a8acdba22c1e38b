"""Trains on a mixture on N processes, and from its middle; each writes what it saw to FOLDER."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import lightning.pytorch as pl
import torch

from lit_ssl.datamodules import CocoCaptions, VisualGenomeRegions, VLPretrainDataModule
from lit_ssl.strategies.ddp.attempts import leave_group_at_exit
from lit_ssl.text.corpus_wordpiece import CorpusWordPiece
from lit_ssl.transforms import CropSpec, SingleView


class Recorder(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.evaluated = [], []

    def training_step(self, batch, batch_idx):
        inputs, numbers = batch
        images = inputs["images"]
        entry = [numbers.tolist(), inputs["input_ids"].tolist(), images.sum((1, 2, 3)).tolist()]
        self.seen.append([self.current_epoch, *entry])
        return self.weight * images.mean()

    def validation_step(self, batch, batch_idx):
        inputs, numbers = batch
        rows = inputs["input_ids"].tolist()
        pairs = zip(numbers.tolist(), rows, strict=True)
        self.evaluated += [[number, [i for i in ids if i]] for number, ids in pairs]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def data(root, workers, weights):
    return VLPretrainDataModule(
        sources=[CocoCaptions(str(root / "coco")), VisualGenomeRegions(str(root / "vg"))],
        weights=weights,
        tokenizer=CorpusWordPiece(str(root / "vocabulary"), 200),
        batch_size=2,
        num_workers=workers,
        image_size=8,
        train_transform=SingleView(CropSpec(size=8, scale=(0.3, 1.0), brightness=0.4)),
        seed=3,
    )


def trainer(processes, **options):
    return pl.Trainer(
        accelerator="cpu", strategy="ddp" if processes > 1 else "auto", devices=processes,
        max_epochs=2, logger=False, num_sanity_val_steps=0, enable_progress_bar=False,
        enable_model_summary=False, **options,
    )  # fmt: skip


def main(root, folder, processes):
    weights = {"COCO": 3.0, "Visual Genome": 1.0}
    save = pl.callbacks.ModelCheckpoint(
        folder, filename="{step}", every_n_train_steps=1, save_top_k=-1
    )
    whole, rest = Recorder(), Recorder()
    run = trainer(processes, callbacks=[save])
    run.fit(whole, datamodule=data(root, 0, weights))
    resumed = trainer(processes, enable_checkpointing=False, limit_val_batches=0)
    resumed.fit(
        rest, datamodule=data(root, 1, weights), ckpt_path=folder / "step=1.ckpt", weights_only=True
    )
    result = {"whole": whole.seen, "rest": rest.seen, "val": whole.evaluated}
    (folder / f"{run.global_rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    leave_group_at_exit()
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
