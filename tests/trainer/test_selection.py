"""Nothing is chosen on the images that are reported."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from PIL import Image
from torch.utils.data import DataLoader, Subset, TensorDataset

from lit_ssl.callbacks import LastLayerRefit
from lit_ssl.cli.output import best_checkpoint
from lit_ssl.datamodules import (
    ColouredMNISTDataModule,
    ImageFolderDataModule,
    ImageNetDataModule,
    MNIST5kDataModule,
    SemiSupervisedDataModule,
)
from lit_ssl.errors import InputError
from lit_ssl.trainer.selection import check_tested


class Sums(pl.LightningModule):
    """Learns nothing, and logs a number of the validation images."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.classifier = torch.nn.Linear(2, 2)

    def training_step(self, batch, batch_idx):
        return self.weight.square()

    def validation_step(self, batch, batch_idx):
        self.log("val/sum", batch[0].float().mean())

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data, folder, *callbacks, **settings):
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, limit_train_batches=1, callbacks=list(callbacks),
        logger=False, default_root_dir=folder, enable_progress_bar=False, num_sanity_val_steps=0,
        **{"limit_val_batches": 1, **settings},
    )  # fmt: skip
    trainer.fit(Sums(), data)


def images(root, *folders):
    for folder in folders:
        for label, name in enumerate(("n01440764", "n01443537")):
            for number in range(4):
                path = root / folder / name / f"{name}_{number}.JPEG"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((8, 8, 3), 90 * label, dtype=np.uint8)).save(path)
    return str(root)


def digits(**kwargs):
    return MNIST5kDataModule(batch_size=50, **kwargs)


def imagenet(root, **kwargs):
    (root / "list.txt").write_text("n01440764_0.JPEG\nn01443537_0.JPEG\n")
    root = images(root, "train", "val")
    return ImageNetDataModule(root=root, image_size=8, num_workers=0, batch_size=2, **kwargs)


BEST = (ModelCheckpoint, {"monitor": "val/sum"}), (EarlyStopping, {"monitor": "val/sum"})


@pytest.mark.parametrize(("kind", "options"), BEST)
def test_an_epoch_is_not_chosen_on_test_images(tmp_path, kind, options):
    def refused(data):
        with pytest.raises(InputError, match=rf"the epoch of {kind.__name__}\(monitor='val/sum'\)"):
            fit(data, tmp_path, kind(**options))

    refused(digits(val_size=0))
    refused(imagenet(tmp_path))  # its official validation images are what papers report
    refused(SemiSupervisedDataModule(imagenet(tmp_path), images_per_class=1))
    fit(digits(val_size=20), tmp_path, kind(**options))
    fit(imagenet(tmp_path, val_size=2), tmp_path, kind(**options))
    fit(imagenet(tmp_path, val_file=str(tmp_path / "list.txt")), tmp_path, kind(**options))


def test_what_chooses_nothing_is_left_alone(tmp_path):
    none = ModelCheckpoint(tmp_path, monitor="val/sum", save_top_k=0)
    fit(digits(val_size=0), tmp_path, none, ModelCheckpoint(save_last=True))


def test_the_best_of_all_checkpoints_is_not_for_reporting(tmp_path):
    everything = ModelCheckpoint(tmp_path, monitor="val/sum", save_top_k=-1)
    with pytest.warns(UserWarning, match=r"monitor='val/sum'\) keeps all .* do not report that"):
        fit(digits(val_size=0), tmp_path, everything)


@pytest.mark.parametrize(
    ("size", "monitor", "is_taken"),
    [(0, "val/loss", False), (0, "train/loss", True), (20, "val/loss", True)],
)
def test_what_follows_a_fit_is_not_chosen_on_test_images(tmp_path, size, monitor, is_taken):
    """The command line tests the best checkpoint, else the end of the training."""
    keep = ModelCheckpoint(tmp_path, monitor=monitor, save_top_k=-1)
    trainer = pl.Trainer(accelerator="cpu", logger=False, callbacks=[keep])
    trainer.datamodule = digits(val_size=size)
    keep.best_model_path = str(tmp_path / "best.ckpt")
    assert (best_checkpoint(trainer) == keep.best_model_path) == is_taken


def test_images_of_ones_own_for_validation_are_for_choosing(tmp_path):
    data = ImageFolderDataModule(
        root=images(tmp_path, "train", "val"), image_size=8, num_workers=0, batch_size=2
    )
    fit(data, tmp_path, ModelCheckpoint(monitor="val/sum"))
    assert not data.validates_on_test


@pytest.mark.parametrize("rows", ["val", "train"])
def test_no_layer_is_fitted_to_test_images(tmp_path, monkeypatch, rows):
    monkeypatch.setattr(ColouredMNISTDataModule, "validates_on_test", True)
    data = ColouredMNISTDataModule()
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, callbacks=[LastLayerRefit(rows=rows)],
        enable_progress_bar=False, limit_test_batches=1,
    )  # fmt: skip
    match = "the last layer would be chosen on the test images" if rows == "val" else "forward"
    with pytest.raises((InputError, NotImplementedError), match=match):
        trainer.test(Sums(), data, verbose=False)


@pytest.mark.parametrize(
    ("chosen_on", "is_refused"),
    [
        (lambda data: data, True),
        (lambda data: Subset(data, [5, 3]), True),
        (lambda data: Subset(Subset(data, [0, 3, 1]), [1]), True),
        (lambda data: Subset(data, range(3)), False),
        (lambda data: Subset(Subset(data, [0, 3, 1]), [0, 2]), False),
        (lambda data: TensorDataset(torch.zeros(6)), False),
    ],
)
def test_parts_of_a_data_set_are_told_apart(chosen_on, is_refused):
    data = TensorDataset(torch.zeros(6))
    trainer = SimpleNamespace(test_dataloaders=DataLoader(Subset(data, [3, 4, 5])))
    check = partial(check_tested, trainer, [chosen_on(data)], "the best head")
    if is_refused:
        with pytest.raises(InputError, match="the best head was chosen on the images that are"):
            check()
    else:
        check()
