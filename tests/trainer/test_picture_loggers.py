"""Pictures in every logger that takes them, alone and together."""

from __future__ import annotations

import io

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import (
    CometLogger,
    CSVLogger,
    MLFlowLogger,
    TensorBoardLogger,
    WandbLogger,
)
from PIL import Image

from lit_ssl.trainer.pictures import keep_picture, log_clip, log_picture


@pytest.fixture
def picture():
    values = np.random.default_rng(0).integers(0, 255, (3, 8, 12), dtype=np.uint8)
    return torch.from_numpy(values)


def trainer(folder, *loggers):
    made = pl.Trainer(
        accelerator="cpu", logger=list(loggers), default_root_dir=folder,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    made.strategy.connect(pl.LightningModule())  # as in a run: pictures are of a module
    return made


def same(image, picture):
    return np.array_equal(np.array(image.convert("RGB")), picture.permute(1, 2, 0).numpy())


def shown_by_tensorboard(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    return {tag: found.Images(tag) for tag in found.Tags()["images"]}


def test_tensorboard_twice_and_a_logger_without_pictures(tmp_path, picture):
    boards = [TensorBoardLogger(tmp_path, name=name, version="") for name in ("a", "b")]
    run = trainer(tmp_path, *boards, CSVLogger(tmp_path))
    log_picture(run, "views", picture)
    log_clip(run, "moving", picture.expand(3, 3, 8, 12), fps=4)
    for board in boards:
        board.experiment.flush()
        shown = shown_by_tensorboard(board.log_dir)
        assert sorted(shown) == ["moving", "views"]
        assert same(Image.open(io.BytesIO(shown["views"][0].encoded_image_string)), picture)


def test_wandb_offline_beside_tensorboard(tmp_path, picture, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    board = TensorBoardLogger(tmp_path, name="a", version="")
    wandb = WandbLogger(save_dir=tmp_path, project="pictures", offline=True)
    run = trainer(tmp_path, board, wandb)
    keep_picture(run, tmp_path / "views.png", "views", picture)
    keep_picture(run, tmp_path / "more.png", "circuit/final", picture)  # in the same step
    wandb.experiment.finish()
    board.experiment.flush()
    images = list((tmp_path / "wandb").glob("offline-run-*/files/media/images/**/*.png"))
    assert len(images) == 2
    assert all(same(Image.open(path), picture) for path in [*images, tmp_path / "views.png"])
    assert sorted(shown_by_tensorboard(board.log_dir)) == ["circuit/final", "views"]


def test_mlflow_and_comet_by_their_own_clients(tmp_path, picture):
    """Lightning's loggers have no call for pictures; their packages are not needed here."""
    calls = []

    class Client:
        def log_image(self, *args, **kwargs):
            calls.append((args, kwargs))

    class OfMLFlow(MLFlowLogger):
        experiment, run_id, name, version = Client(), "run", "", ""

        def __init__(self):
            pass

    class OfComet(CometLogger):
        experiment, name, version = Client(), "", ""

        def __init__(self):
            pass

    log_picture(trainer(tmp_path, OfMLFlow(), OfComet()), "views", picture)
    ((run_id, first), by_mlflow), ((second,), by_comet) = calls
    assert run_id == "run"
    assert by_mlflow == {"key": "views", "step": 0}
    assert by_comet == {"name": "views", "step": 0}
    assert same(first, picture)
    assert same(second, picture)
