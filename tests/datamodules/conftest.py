"""A data set in memory, image files, and a module that writes down what it is given."""

from __future__ import annotations

import hashlib
import warnings

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image

from lit_ssl.datamodules import ImageDataModule
from lit_ssl.datamodules.reading.images import ArrayImages
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.transforms import CropSpec, EvalTransform, MultiCrop


class ToyDataModule(ImageDataModule):
    """43 training and 7 test images of 3 x 12 x 10 pixels; the label is the index modulo 4."""

    class_names = ("a", "b", "c", "d")

    def __init__(self, *, train_size: int = 43, **kwargs):
        super().__init__(**{"num_workers": 0, "batch_size": 4, **kwargs})
        self.train_size = train_size

    def default_eval_transform(self):
        return EvalTransform(10)

    def load_rows(self, split):
        if split == "val":
            return None
        size = self.train_size if split == "train" else 7
        generator = torch.Generator().manual_seed(len(split))
        pixels = torch.randint(0, 256, (size, 3, 12, 10), dtype=torch.uint8, generator=generator)
        pixels[:, 0] = torch.arange(size).view(-1, 1, 1)  # the index of an image is its red channel
        return Rows(ArrayImages(pixels), {"label": np.arange(size) % 4})


class Recorder(pl.LightningModule):
    """Trains one weight and remembers (epoch, labels, checksum of the images) of each batch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []
        self.fail_at = None

    def training_step(self, batch, batch_idx):
        if self.fail_at == len(self.seen):
            raise RuntimeError("power cut")
        images, labels = batch
        views = images if isinstance(images, list) else [images]
        digest = hashlib.sha1()
        for view in views:
            digest.update(view.contiguous().numpy().tobytes())
        self.seen.append((self.current_epoch, tuple(labels.tolist()), digest.hexdigest()))
        return self.weight * views[0].mean()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def toy():
    return ToyDataModule


@pytest.fixture
def views():
    return MultiCrop(
        [
            CropSpec(size=8, count=2, scale=(0.3, 1.0), hflip=0.5, brightness=0.4),
            CropSpec(size=4, count=3, scale=(0.1, 0.5)),
        ]
    )


@pytest.fixture
def recorder():
    return Recorder


@pytest.fixture
def fit(tmp_path_factory):
    """Fits a recorder; returns it."""

    def run(datamodule, ckpt_path=None, module=None, callbacks=(), **arguments):
        module = module or Recorder()
        options = {
            "max_epochs": 3,
            "accelerator": "cpu",
            "logger": False,
            "default_root_dir": tmp_path_factory.mktemp("fit"),
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "limit_val_batches": 0,
        }
        trainer = pl.Trainer(**{**options, **arguments}, callbacks=list(callbacks))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*does not have many workers.*")
            warnings.filterwarnings("ignore", ".*`training_step` returned.*")
            trainer.fit(module, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True)
        return module

    return run


@pytest.fixture
def write_image():
    """Writes a small photograph-like image; returns its pixels [H, W, 3] before compression."""

    def write(path, height=20, width=30, seed=0, mode="RGB"):
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = np.linspace(0, 255, height)[:, None, None]
        columns = np.linspace(0, 255, width)[None, :, None]
        tint = np.array([seed * 37 % 256, seed * 91 % 256, seed * 53 % 256])
        pixels = ((rows + columns + tint) / 3).astype(np.uint8)
        Image.fromarray(pixels).convert(mode).save(path, format=None)
        return pixels

    return write
