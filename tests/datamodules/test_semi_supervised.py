"""Two streams over one data set: contents, both engines, resuming, and the shipped lists."""

from __future__ import annotations

import hashlib

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from lit_ssl.datamodules import CIFAR10DataModule, SemiSupervisedDataModule, Subset, packaged_lists
from lit_ssl.datamodules.reading.images import ArrayImages
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.lists import read_lines
from lit_ssl.transforms import CropSpec, MultiCrop, SingleView


@pytest.fixture
def make(toy, views):
    """The toy of 43 images with 3 labelled ones in each of 4 classes."""

    def build(augment="worker", num_workers=0, dataset=None, **kwargs):
        dataset = dataset or toy(train_transform=views, augment=augment, num_workers=num_workers)
        options = {"subset": Subset(per_class=3), "images_per_class": 2}
        return SemiSupervisedDataModule(dataset, **{**options, **kwargs})

    return build


@pytest.fixture
def pairs(recorder):
    """A recorder of both streams that asks early for the number of steps, as PAWS does."""

    class Pairs(recorder):
        def training_step(self, batch, batch_idx):
            if self.fail_at == len(self.seen):
                raise RuntimeError("power cut")
            digest = hashlib.sha1()
            for stream in ("unlabelled", "support"):
                for view in batch[stream][0]:
                    digest.update(view.contiguous().numpy().tobytes())
            labels = [tuple(batch[key][1].tolist()) for key in ("unlabelled", "support")]
            self.seen.append((self.current_epoch, *labels, digest.hexdigest()))
            return self.weight * batch["support"][0][0].mean()

        def configure_optimizers(self):
            assert self.trainer.estimated_stepping_batches > 0
            return super().configure_optimizers()

    return Pairs


def first_batch(data, fit, module):
    caught = []

    class Catch(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            caught.append(batch)

    fit(data, module=module, callbacks=[Catch()], max_epochs=1)
    return caught


@pytest.mark.parametrize("augment", ["worker", "device"])
def test_a_batch_has_two_streams(make, fit, pairs, augment):
    data = make(augment, support_views=2, images_per_class=3)
    batches = first_batch(data, fit, pairs())
    assert len(batches) == 10  # 43 // 4
    for batch in batches:
        views, labels = batch["unlabelled"]
        assert [view.shape for view in views] == [(4, 2, 3, 8, 8), (4, 3, 3, 4, 4)]
        assert labels.shape == (4,)
        (support,), support_labels = batch["support"]
        assert support.shape == (12, 2, 3, 8, 8)
        rows = support_labels.view(3, 4)
        assert (rows == rows[0]).all()
        assert sorted(rows[0].tolist()) == [0, 1, 2, 3]
        assert support.dtype == views[0].dtype == torch.float32
        assert (support[:, 0] - support[:, 1]).abs().amax((1, 2, 3)).min() > 0  # two views


def test_supports_are_the_images_of_the_subset(make, fit, pairs, toy):
    data = make(dataset=toy(train_transform=MultiCrop([CropSpec(size=8)])))
    labels = data.labels("train")
    assert np.bincount(labels[data.support_positions]).tolist() == [3] * 4
    images = torch.cat([images for images, _ in data.support_dataloader()])
    # the index of an image is its red channel
    assert images[:, 0, 0, 0].tolist() == data.support_positions.tolist()
    assert len(torch.cat([labels for _, labels in data.bank_dataloader()])) == 43
    mean, std = data.mean[0], data.std[0]
    seen = set()
    for batch in first_batch(data, fit, pairs()):
        index = (batch["support"][0][0][:, 0, 0, 0, 0] * std + mean) * 255
        assert (labels[index.round().long().numpy()] == batch["support"][1].numpy()).all()
        seen |= set(index.round().long().tolist())
    assert seen == set(data.support_positions.tolist())


def test_a_file_names_images_of_the_official_set_after_holding_out(make, toy, tmp_path):
    whole = make(dataset=toy())
    held_out = toy(val_size=8)
    # toy images: the red channel is the official index
    used = [int(image[0, 0, 0]) for images, _ in held_out.bank_dataloader() for image in images]
    listed = used[3:20:4]
    (tmp_path / "list.txt").write_text("\n".join(map(str, listed)))
    data = make(dataset=held_out, subset=Subset(file=str(tmp_path / "list.txt")))
    images = torch.cat([images for images, _ in data.support_dataloader()])
    assert images[:, 0, 0, 0].tolist() == listed
    assert data.support_positions.tolist() == [used.index(i) for i in listed]
    missing = sorted(set(range(43)) - set(used))[0]
    (tmp_path / "list.txt").write_text(str(missing))
    with pytest.raises(ValueError, match="held out for validation"):
        _ = make(dataset=held_out, subset=Subset(file=str(tmp_path / "list.txt"))).support_positions
    assert len(make(dataset=toy(), subset=None).support_positions) == 43
    assert whole.num_classes == 4


def test_own_views_of_the_supports(make, fit, pairs):
    single = SingleView(CropSpec(size=6))
    batch = first_batch(make(support_transform=single), fit, pairs())[0]
    assert batch["support"][0].shape == (8, 3, 6, 6)
    with pytest.raises(ValueError, match="support_views must be at least 1"):
        make(support_transform=single, support_views=2)


class SaveEach(pl.Callback):
    def __init__(self, folder):
        self.folder = folder

    def _save(self, trainer, module, kind):
        trainer.save_checkpoint(self.folder / f"{len(module.seen):02d}-{kind}.ckpt")

    def on_train_batch_end(self, trainer, module, *args):
        self._save(trainer, module, "batch")

    def on_train_epoch_end(self, trainer, module):
        self._save(trainer, module, "epoch")


@pytest.mark.parametrize(
    ("augment", "options"),
    [
        ("worker", {}),
        ("device", {"accumulate_grad_batches": 2}),
        ("worker", {"max_epochs": -1, "max_steps": 30}),
        ("device", {"limit_train_batches": 7, "max_epochs": 4}),
    ],
    ids=str,
)
def test_every_checkpoint_continues_identically(tmp_path, make, fit, pairs, augment, options):
    whole = fit(make(augment), module=pairs(), callbacks=[SaveEach(tmp_path)], **options)
    assert len({entry[-1] for entry in whole.seen}) == len(whole.seen) >= 28
    paths = sorted(tmp_path.glob("*.ckpt"))[::3]
    wrong = [
        path.name
        for path in paths
        if fit(make(augment), path, module=pairs(), **options).seen
        != whole.seen[int(path.name[:2]) :]
    ]
    assert wrong == []


def test_workers_change_nothing_and_a_failed_batch_comes_again(tmp_path, make, fit, pairs):
    whole = fit(make(num_workers=2), module=pairs())
    assert whole.seen == fit(make(), module=pairs()).seen
    broken = pairs()
    broken.fail_at = 14
    save = pl.callbacks.OnExceptionCheckpoint(tmp_path)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(make(), module=broken, callbacks=[save], enable_checkpointing=True)
    rest = fit(make(num_workers=2), tmp_path / "on_exception.ckpt", module=pairs())
    assert broken.seen + rest.seen == whole.seen


def test_evaluation_is_that_of_the_data_set(make, fit, pairs):
    data = make()
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
    )

    class Look(pairs):
        def test_step(self, batch, batch_idx):
            self.seen.append(batch)

    module = Look()
    trainer.test(module, datamodule=data, verbose=False)
    images, labels = module.seen[0]
    assert images.dtype == torch.float32
    assert labels.tolist() == [0, 1, 2, 3]
    assert (data.image_size, data.in_channels, data.batch_size, data.num_workers) == (10, 3, 4, 0)
    assert data.class_names == ("a", "b", "c", "d")


def test_errors_come_before_training(make, fit, pairs, toy, views):
    with pytest.raises(ValueError, match="classes_per_batch is 9"):
        fit(make(classes_per_batch=9), module=pairs())
    with pytest.raises(ValueError, match="needs a MultiCrop as train_transform"):
        fit(make(dataset=toy()), module=pairs())
    with pytest.raises(FileNotFoundError, match=r"packaged list: paws/cifar10_4000_split152, "):
        fit(make(subset=Subset(file="paws/cifar10_4000")), module=pairs())


def test_a_few_images_are_one_batch(make, fit, pairs, toy, views):
    data = make(dataset=toy(train_size=13, train_transform=views, batch_size=32))
    with pytest.warns(UserWarning, match="each epoch is one batch of 13"):
        seen = fit(data, module=pairs(), max_epochs=2).seen
    assert [len(entry[1]) for entry in seen] == [13, 13]


# --------------------------------------------------------------------------- shipped lists


def test_shipped_lists():
    sizes = {name: len(read_lines(name)) for name in packaged_lists()}
    cifar = {f"paws/cifar10_4000_split{split}": 4000 for split in (73, 91, 152, 321, 401)}
    assert sizes == {
        **cifar,
        "paws/imagenet_1percent": 12_811,
        "paws/imagenet_10percent": 128_116,
        "paws/imagenet_train_holdout_12000": 12_000,
    }
    names = read_lines("paws/imagenet_10percent")
    assert len(set(names)) == len(names)
    per_class = np.unique([name.partition("_")[0] for name in names], return_counts=True)[1]
    assert (len(per_class), per_class.min(), per_class.max()) == (1000, 128, 129)
    assert set(read_lines("paws/imagenet_1percent")) < set(names)
    assert not set(read_lines("paws/imagenet_train_holdout_12000")) & set(names)


def test_a_shipped_list_picks_images_of_cifar(monkeypatch):
    labels = np.random.default_rng(0).integers(0, 10, 50_000)

    class Cifar(CIFAR10DataModule):
        def load_rows(self, split):
            pixels = torch.zeros(50_000, 3, 1, 1, dtype=torch.uint8)
            return Rows(ArrayImages(pixels), {"label": labels})

    data = SemiSupervisedDataModule(
        Cifar(val_size=0), subset=Subset(file="paws/cifar10_4000_split152")
    )
    expected = sorted(map(int, read_lines("paws/cifar10_4000_split152")))
    assert data.support_positions.tolist() == expected


def test_a_file_of_the_user_goes_before_a_shipped_list(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "paws").mkdir()
    (tmp_path / "paws" / "imagenet_1percent").write_text("mine\n")
    assert read_lines("paws/imagenet_1percent") == ["mine"]
