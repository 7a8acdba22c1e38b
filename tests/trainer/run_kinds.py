"""One run of a kind of logger on two processes; prints where each rank would write."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger

from lit_ssl.trainer.run import run_folder


class SharedLogger(DummyLogger):
    """As of Weights & Biases: its folder is that of all runs."""

    name = "project"
    version = "a1b2"
    save_dir = "."


LOGGERS = {
    "tensorboard": lambda root: TensorBoardLogger(root or "."),
    "csv": lambda root: CSVLogger(root or "."),
    "shared": lambda root: SharedLogger(),
    "none": lambda root: False,
}


class Model(BoringModel):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Writer(pl.Callback):
    """Writes a result at the end of a stage, on rank zero, and keeps the folder of this rank."""

    def __init__(self, name="report.json", output=None, text="mine"):
        self.name, self.output, self.text = name, output, text
        self.folders = []

    def write(self, trainer, *_):
        if trainer.state.fn == "fit" and trainer.validating:
            return
        folder = run_folder(trainer, [self.name], self.output)
        self.folders.append(None if folder is None else str(folder))
        if folder is not None and trainer.is_global_zero:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / self.name).write_text(self.text)

    on_train_end = on_validation_end = on_test_end = on_predict_end = write


def make(kind, root, *callbacks, **settings):
    defaults = {
        "accelerator": "cpu", "devices": 1, "max_epochs": 1, "limit_train_batches": 2,
        "limit_val_batches": 1, "limit_test_batches": 1, "limit_predict_batches": 1,
        "num_sanity_val_steps": 0, "enable_checkpointing": False, "enable_progress_bar": False,
        "enable_model_summary": False, "log_every_n_steps": 1,
    }  # fmt: skip
    trainer = pl.Trainer(
        logger=LOGGERS[kind](root), default_root_dir=root, callbacks=list(callbacks),
        **{**defaults, **settings},
    )  # fmt: skip
    return trainer


if __name__ == "__main__":
    kind, command, out = sys.argv[1:]
    writer = Writer()
    trainer = make(kind, None, writer, devices=2, strategy="ddp", accelerator="cpu")
    getattr(trainer, command)(Model())
    assert os.environ.get("LOCAL_RANK", "0") == str(trainer.local_rank)
    Path(out, f"{trainer.global_rank}.json").write_text(json.dumps(writer.folders))
