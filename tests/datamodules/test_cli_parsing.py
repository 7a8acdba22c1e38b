"""Data modules built by jsonargparse and LightningCLI from YAML."""

from __future__ import annotations

import sys

import lightning.pytorch as pl
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch.cli import LightningCLI

from lit_ssl.datamodules import (
    CIFAR10DataModule,
    ImageDataModule,
    ImageFolderDataModule,
    ImageNetDataModule,
    MNIST5kDataModule,
    Subset,
)
from lit_ssl.transforms import CropSpec, EvalTransform, MultiCrop, SingleView

RECIPE = """
    train_transform:
      class_path: lit_ssl.transforms.MultiCrop
      init_args:
        crops:
          - {size: 28, count: 2, scale: [0.3, 1.0]}
          - {size: 14, count: 4, scale: [0.05, 0.3], hflip: 0.5}
"""


def build(text, *arguments):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ImageDataModule, "data")
    parser.add_argument("--config", action="config")
    # LightningCLI parses the same way; the text stands for a file.
    config = parser.parse_args([f"--config={text}", *arguments])
    return parser.instantiate_classes(config).data


def test_nested_recipe_and_subset():
    data = build(
        f"""
data:
  class_path: lit_ssl.datamodules.MNIST5kDataModule
  init_args:
    batch_size: 32
    augment: device
    subset: {{per_class: 5, seed: 2}}
{RECIPE}
""",
        "--data.batch_size=16",
    )
    assert isinstance(data, MNIST5kDataModule)
    assert isinstance(data.train_transform, MultiCrop)
    assert data.train_transform.crops[1] == CropSpec(size=14, count=4, scale=(0.05, 0.3), hflip=0.5)
    assert data.subset == Subset(per_class=5, seed=2)
    assert (data.batch_size, data.num_workers, data.val_size) == (16, 0, 500)
    assert len(data.labels("train")) == 50


def test_short_class_names_and_the_command_line():
    data = build(
        "data: {class_path: ImageNetDataModule, init_args: {root: /data}}",
        "--data.subset.file=list.txt",
        "--data.eval_transform.size=192",
        "--data.eval_transform.resize=224",
        "--data.train_transform=SingleView",
        "--data.train_transform.crop.size=224",
        "--data.mean=[0.5, 0.5, 0.5]",
    )
    assert isinstance(data, ImageNetDataModule)
    assert data.subset == Subset(file="list.txt")
    assert (data.image_size, data.eval_transform.resize) == (192, 224)
    assert isinstance(data.train_transform, SingleView)
    assert data.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    "options",
    [
        "{class_path: CIFAR10DataModule, init_args: {root: x, download: true, val_size: 0}}",
        "{class_path: CIFAR100DataModule, init_args: {num_workers: 2}}",
        "{class_path: ImageFolderDataModule, init_args: {root: x, labelled: false}}",
    ],
)
def test_every_data_module_takes_its_and_the_shared_arguments(options):
    data = build(f"data: {options}", "--data.drop_last=false", "--data.on_corrupt=skip")
    assert isinstance(data, CIFAR10DataModule | ImageDataModule | ImageFolderDataModule)
    assert data.drop_last is False
    assert data.on_corrupt == "skip"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--data.batchsize=3", "batchsize"),
        ("--data.augment=gpu", "augment"),
        ("--data.subset.fractoin=0.1", "fractoin"),
        ("--data.subset={fraction: 0.1, per_class: 2}", "exactly one of fraction"),
    ],
)
def test_mistakes_are_found(option, message):
    with pytest.raises(Exception, match=message):
        build("data: {class_path: MNIST5kDataModule}", option)


class Probe(pl.LightningModule):
    """A module that only counts batches."""

    def __init__(self, lr: float = 0.1):
        super().__init__()
        self.save_hyperparameters()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.shapes = []

    def training_step(self, batch, batch_idx):
        self.shapes.append([tuple(view.shape) for view in batch[0]])
        return self.weight * batch[0][0].mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_lightning_cli_fits_and_its_checkpoint_is_safe_to_load(tmp_path, monkeypatch):
    (tmp_path / "run.yaml").write_text(
        f"""
data:
  class_path: lit_ssl.datamodules.MNIST5kDataModule
  init_args:
    batch_size: 16
    subset: {{fraction: 0.01}}
{RECIPE}
trainer: {{max_epochs: 1, accelerator: cpu, logger: false, enable_progress_bar: false}}
"""
    )
    config = str(tmp_path / "run.yaml")
    command = ["prog", "fit", "--config", config, "--trainer.default_root_dir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.chdir(tmp_path)
    cli = LightningCLI(Probe, ImageDataModule, subclass_mode_data=True, save_config_callback=None)
    assert cli.model.shapes == [[(16, 2, 1, 28, 28), (16, 4, 1, 14, 14)]] * 2
    saved = next(tmp_path.rglob("*.ckpt"))
    content = torch.load(saved, weights_only=True)
    arguments = content["datamodule_hyper_parameters"]
    assert (arguments["batch_size"], arguments["subset"]["fraction"]) == (16, 0.01)
    assert arguments["train_transform"]["init_args"]["crops"][1]["size"] == 14
    assert isinstance(cli.datamodule.eval_transform, EvalTransform)
