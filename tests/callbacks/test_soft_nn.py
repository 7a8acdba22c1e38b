from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from lit_ssl.callbacks import KNNEvaluator, SoftNNEvaluator
from lit_ssl.datamodules import MNIST5kDataModule, SemiSupervisedDataModule, Subset
from lit_ssl.metrics import sharded_soft_nn, soft_nearest_neighbor
from lit_ssl.transforms import CropSpec, MultiCrop


class Embeds(pl.LightningModule):
    """Images are their own embeddings; ``forward`` gives something else."""

    embed_dim = 2

    def forward(self, images):
        return torch.zeros(len(images), 2)

    def embed(self, images):
        return images.flatten(1)

    def validation_step(self, batch, batch_idx):
        pass

    test_step = validation_step


class Stored(pl.LightningDataModule):
    """Stored embeddings as images, with labelled ones."""

    def __init__(self, data, classes):
        super().__init__()
        self.data, self.num_classes = data, classes

    def loader(self, name):
        images = self.data[f"{name}_emb"][:, :, None, None]
        return DataLoader(TensorDataset(images, self.data[f"{name}_label"]), batch_size=9)

    def val_dataloader(self):
        return self.loader("query")

    test_dataloader = val_dataloader

    def support_dataloader(self):
        return self.loader("support")


def test_equals_the_reference_in_batches(golden, make_trainer):
    data = golden("paws/snn_eval")
    classes = int(data["support_label"].max()) + 1
    trainer = make_trainer(callbacks=[SoftNNEvaluator()])
    module, stored = Embeds(), Stored(data, max(classes, 10))
    assert len(stored.loader("query")) > 1
    for run, split in ((trainer.validate, "val"), (trainer.test, "test")):
        result = run(module, stored, verbose=False)[0]
        assert result[f"{split}/soft_nn_acc1"] == pytest.approx(float(data["top1"]))
        assert result[f"{split}/soft_nn_acc5"] == pytest.approx(float(data["top5"]))


def test_without_supports_and_embed_it_is_the_bank_and_forward(toys, make_trainer):
    module, data = toys.ToyModule(), toys.ToyData()
    callbacks = [SoftNNEvaluator(temperature=0.05), KNNEvaluator()]
    trainer = make_trainer(callbacks=callbacks)
    trainer.fit(module, data)
    assert data.bank_passes == trainer.max_epochs  # both evaluators share the features
    module.eval()
    with torch.no_grad():
        bank, queries = (module(data.normalise(part.images)) for part in (data.bank, data.val))
    probs = soft_nearest_neighbor(queries, bank, data.bank.labels, 0.05)
    accuracy = (probs.argmax(1) == data.val.labels).float().mean().item()
    assert trainer.callback_metrics["val/soft_nn_acc1"].item() == pytest.approx(accuracy)
    assert "val/soft_nn_acc5" not in trainer.callback_metrics
    assert "val/soft_nn_acc1" in trainer.progress_bar_metrics


def test_supports_are_the_labelled_images_only(make_trainer, monkeypatch):
    crops = MultiCrop([CropSpec(size=8, count=2)])
    digits = MNIST5kDataModule(batch_size=64, num_workers=0, train_transform=crops)
    data = SemiSupervisedDataModule(digits, subset=Subset(per_class=2), images_per_class=2)
    seen = []

    def spy(supports, *rest):
        seen.append((supports.everywhere().shape, supports.labels.bincount().tolist()))
        return sharded_soft_nn(supports, *rest)

    monkeypatch.setattr("lit_ssl.callbacks.evaluators.soft_nn.sharded_soft_nn", spy)
    trainer = make_trainer(callbacks=[SoftNNEvaluator()], limit_val_batches=2)
    result = trainer.validate(Embeds(), data, verbose=False)[0]
    assert seen == [((20, 784), [2] * 10)]
    assert 0.2 < result["val/soft_nn_acc1"] < result["val/soft_nn_acc5"] < 1


def test_another_method_and_checkpoints_by_its_value(toys, make_trainer, tmp_path):
    class Module(toys.ToyModule):
        def embed(self, images):
            raise AssertionError("not asked for")

    best = ModelCheckpoint(tmp_path, monitor="val/soft_nn_acc1", mode="max")
    callbacks = [SoftNNEvaluator(feature_method="doubled"), best]
    make_trainer(callbacks=callbacks, enable_checkpointing=True).fit(Module(), toys.ToyData())
    assert best.best_model_score is not None


def test_what_is_missing_is_named(toys, make_trainer):
    class NoBank(toys.ToyData):
        bank_dataloader = None

    with pytest.raises(AttributeError, match=r"SoftNNEvaluator: .* has no bank_dataloader\(\)"):
        make_trainer(callbacks=[SoftNNEvaluator()]).fit(toys.ToyModule(), NoBank())
    with pytest.raises(AttributeError, match="SoftNNEvaluator: module Embeds has no method 'foo'"):
        make_trainer(callbacks=[SoftNNEvaluator(feature_method="foo")]).validate(
            Embeds(), toys.ToyData()
        )
    with pytest.raises(ValueError, match="temperature > 0, got 0"):
        SoftNNEvaluator(temperature=0)
