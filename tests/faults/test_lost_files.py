"""A disk that is full in mid-run costs logs, pictures and reports, and not what is trained."""

from __future__ import annotations

import os
import resource
import sys
import threading
import warnings
from contextlib import nullcontext
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch.utils.data import DataLoader

from lit_ssl.errors import OutputError
from lit_ssl.trainer.lost_files import (
    LastingLogs,
    lost_files,
    may_be_lost,
    quiet_writers,
)
from lit_ssl.trainer.pictures import keep_picture


class Line(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        loss = self.net(batch).square().mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class DiskFills(pl.Callback):
    """From the second step on, what loggers append to is full."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 1:
            folder = Path(trainer.logger.log_dir)
            for name in ("metrics.csv", *(f.name for f in folder.glob("events.out*"))):
                (folder / name).unlink(missing_ok=True)
                (folder / name).symlink_to("/dev/full")


def train(folder, logger, callbacks):
    pl.seed_everything(0)
    module = Line()
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=logger, callbacks=callbacks, log_every_n_steps=1,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(module, DataLoader(torch.ones(8, 2), 2))
    said = [str(w.message) for w in caught if "goes on without" in str(w.message)]
    return trainer, module, said


@pytest.mark.parametrize("kind", [CSVLogger, TensorBoardLogger])
def test_a_full_disk_costs_the_logs_and_no_step(tmp_path, kind):
    options = {"flush_secs": 0, "max_queue": 1} if kind is TensorBoardLogger else {}
    callbacks = [LastingLogs(), DiskFills()]
    trainer, module, said = train(tmp_path, kind(tmp_path, **options), callbacks)
    _, alone, _ = train(tmp_path / "alone", False, [])
    assert trainer.global_step == 8
    assert torch.equal(module.net.weight, alone.net.weight)
    assert len(said) == 1
    assert "No space left on device" in said[0]
    assert lost_files(trainer).startswith(
        f"not everything could be written: the logs of {kind.__name__}: "
    )
    assert len(list(Path(trainer.logger.log_dir).rglob("*.ckpt"))) == 1


def test_what_was_written_is_not_said(tmp_path):
    trainer, _, said = train(tmp_path, CSVLogger(tmp_path), [LastingLogs()])
    assert said == []
    assert lost_files(trainer) is None
    assert (Path(trainer.logger.log_dir) / "metrics.csv").is_file()


def keep_three(trainer, folder, picture):
    for number in range(3):
        keep_picture(trainer, folder / f"{number}.png", "views", picture)


def test_a_picture_that_cannot_be_written_is_said_once(tmp_path):
    trainer = pl.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    (tmp_path / "views").write_text("a file where the folder should be")
    picture = torch.zeros(3, 4, 4, dtype=torch.uint8)
    with pytest.warns(UserWarning, match="pictures in .*views cannot be written") as caught:
        keep_three(trainer, tmp_path / "views", picture)
    assert len(caught) == 1
    assert "pictures in" in lost_files(trainer)
    keep_picture(trainer, tmp_path / "other" / "0.png", "views", picture)
    assert (tmp_path / "other" / "0.png").is_file()


def test_other_errors_are_not_swallowed():
    trainer = pl.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    with pytest.raises(ZeroDivisionError), may_be_lost(trainer, "x"):
        _ = 1 / 0
    with pytest.warns(UserWarning, match="x cannot be written"), may_be_lost(trainer, "x"):
        raise OutputError("full")


@pytest.mark.parametrize("quietly", [True, False])
def test_a_thread_of_tensorboard_prints_no_traceback_beside_the_error(tmp_path, quietly):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            sys.stderr = os.fdopen(write, "w", buffering=1)
            threading.excepthook = threading.__excepthook__  # not the one that collects in tests
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            with quiet_writers() if quietly else nullcontext():
                try:
                    _ = TensorBoardLogger(tmp_path).experiment
                except OSError:
                    status = 0
                for thread in threading.enumerate()[1:]:
                    thread.join(9)  # until it has said what it has to say
        finally:
            os._exit(status)
    os.close(write)
    with open(read, "rb") as stream:
        said = stream.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (b"Traceback" in said) != quietly
