"""A user's own module, as it could lie in the working folder: models and data for the CLI tests."""

from __future__ import annotations

import os
import signal
import uuid
from typing import Literal

import lightning.pytorch as pl
import numpy as np
import timm
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.loggers.logger import DummyLogger

from lit_ssl.datamodules import ImageDataModule
from lit_ssl.datamodules.reading.images import ArrayImages
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.trainer.hparams import not_plain
from lit_ssl.transforms import EvalTransform


class Cloud(DummyLogger):
    """As of Weights & Biases: its folder is that of all projects, and a run has an id.

    Args:
        project: Name of the project.
        name: What people call the run.
        save_dir: Folder of all projects.
    """

    def __init__(self, project: str = "digits", name: str | None = None, save_dir: str = "."):
        super().__init__()
        self.project, self.folder, self.id = project, save_dir, uuid.uuid4().hex[:8]

    name = property(lambda self: self.project)
    version = property(lambda self: self.id)
    save_dir = property(lambda self: self.folder)


class ToyModel(pl.LightningModule):
    """Classifies 3 x 8 x 8 images; appends each loss to the file LOSSES, dies before batch KILL_AT.

    Args:
        lr: Learning rate.
        mode: Activation.
        width: Hidden units.
        optimizer: Replaces SGD.
    """

    classes = 4

    def __init__(
        self,
        lr: float = 0.1,
        mode: Literal["relu", "gelu"] = "relu",
        width: int = 8,
        optimizer: OptimizerCallable | None = None,
    ):
        super().__init__()
        self.save_hyperparameters(ignore=not_plain(optimizer=optimizer))
        self.lr = lr
        self.layers = torch.nn.Sequential(
            torch.nn.Flatten(),
            torch.nn.Linear(192, width),
            torch.nn.ReLU() if mode == "relu" else torch.nn.GELU(),
            torch.nn.Dropout(0.5),
            torch.nn.Linear(width, self.classes),
        )

    def training_step(self, batch, batch_idx):
        if self.global_step == int(os.environ.get("KILL_AT", -1)):
            os.kill(os.getpid(), signal.SIGKILL)
        images, labels = batch
        loss = torch.nn.functional.cross_entropy(self.layers(images), labels)
        if "LOSSES" in os.environ:
            with open(os.environ["LOSSES"], "a") as file:
                file.write(f"{self.global_step} {loss.item().hex()}\n")
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.layers(batch[0]).mean())

    test_step = validation_step

    def predict_step(self, batch, batch_idx):
        return self.layers(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


class OtherModel(ToyModel):
    """Another class with an option of the same name."""

    def __init__(self, lr: float = 0.3):
        super().__init__(lr=lr)


class Classifier(ToyModel):
    """Takes the number of classes, or none.

    Args:
        num_classes: Number of classes.
        lr: Learning rate.
    """

    def __init__(self, num_classes: int | None = None, lr: float = 0.1):
        self.classes = num_classes or 1
        super().__init__(lr=lr)
        self.save_hyperparameters()


class StrictClassifier(ToyModel):
    """Cannot do without the number of classes.

    Args:
        num_classes: Number of classes.
    """

    def __init__(self, num_classes: int):
        self.classes = num_classes
        super().__init__()
        self.save_hyperparameters()


class BuggyModel(ToyModel):
    """Has a bug in its training step."""

    def training_step(self, batch, batch_idx):
        raise ValueError("a bug in training")


class TinyViT(pl.LightningModule):
    """A method with an encoder to export.

    Args:
        backbone: timm name.
        backbone_kwargs: Its arguments.
        wrapped: Whether the encoder is inside another module.
    """

    def __init__(
        self,
        backbone: str = "vit_tiny_patch16_224",
        backbone_kwargs: dict | None = None,
        wrapped: bool = False,
    ):
        super().__init__()
        self.save_hyperparameters()
        kwargs = {"img_size": 8, "patch_size": 4, "depth": 1, "embed_dim": 12, "num_heads": 2}
        self.vit = timm.create_model(backbone, num_classes=0, **(backbone_kwargs or kwargs))
        self.wrapped = wrapped

    @property
    def encoder(self):
        return torch.nn.Sequential(self.vit) if self.wrapped else self.vit

    def training_step(self, batch, batch_idx):
        return self.vit(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class ToyData(ImageDataModule):
    """24 training and 8 test images of random pixels, 4 classes."""

    default_mean = (0.4, 0.5, 0.6)
    class_names = ("a", "b", "c", "d")

    def __init__(self, *, batch_size: int = 4, num_workers: int = 0, **kwargs):
        super().__init__(batch_size=batch_size, num_workers=num_workers, **kwargs)

    def default_eval_transform(self):
        return EvalTransform(8)

    def load_rows(self, split):
        if split == "val":
            return None
        size = 24 if split == "train" else 8
        generator = torch.Generator().manual_seed(size)
        pixels = torch.randint(0, 256, (size, 3, 8, 8), dtype=torch.uint8, generator=generator)
        return Rows(ArrayImages(pixels), {"label": np.arange(size) % 4})


class Unvalidated(ToyData):
    """Has no image to validate on."""

    def val_dataloader(self):
        return []


class UnnamedData(ToyData):
    """Does not know its classes."""

    num_classes = None


class BuggyData(ToyData):
    """Has a bug in its set-up."""

    def load_rows(self, split):
        return Rows(ArrayImages(None.pixels), {"label": np.arange(4)})


class MyData(pl.LightningDataModule):
    """A data module that knows nothing of ours."""

    def train_dataloader(self):
        data = [(torch.ones(3, 8, 8), 1)] * 8
        return torch.utils.data.DataLoader(data, batch_size=4)
