"""Data modules of lightning-bolts: a stand-in of the same form, and the real ones where they are.

`make test-bolts` has an environment with lightning-bolts.
"""

from __future__ import annotations

import importlib.util
import json
import struct
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torchvision
from jsonargparse import ArgumentParser
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset, random_split

from lit_ssl.datamodules import BoltsDataModule, FileImages, ImageDataModule
from lit_ssl.errors import InputError, InputImportError, InputTypeError
from lit_ssl.transforms import CropSpec, MultiCrop

real = pytest.mark.skipif(
    importlib.util.find_spec("pl_bolts") is None, reason="needs lightning-bolts: make test-bolts"
)


def write_idx(path, array):
    """A file of MNIST's format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(head + array.astype(np.uint8).tobytes())


def write_digits(root, name="MNIST", prefix=("train", "t10k"), shift=0):
    """60 training and 21 test images; the first pixel is the number of the image."""
    rng = np.random.default_rng(0)
    for part, count in zip(prefix, (60, 21), strict=True):
        pixels = rng.integers(0, 256, (count, 28, 28))
        pixels[:, 0, 0] = np.arange(count)
        write_idx(root / name / "raw" / f"{part}-images-idx3-ubyte", pixels)
        labels = np.arange(count) % 10 + shift
        write_idx(root / name / "raw" / f"{part}-labels-idx1-ubyte", labels)


class Vision(pl.LightningDataModule):
    """What bolts' modules are: data sets made in ``setup``, loaders around them, transforms."""

    dims = (1, 28, 28)
    num_classes = 10

    def __init__(self, data_dir=".", val_split=10, seed=42, normalize=False):
        super().__init__()
        self.data_dir, self.val_split, self.seed = data_dir, val_split, seed
        self.normalize = normalize
        self.train_transforms = self.val_transforms = self.test_transforms = None

    def default_transforms(self):
        steps = [torchvision.transforms.ToTensor()]
        if self.normalize:
            steps.append(torchvision.transforms.Normalize((0.25,), (0.75,)))
        return torchvision.transforms.Compose(steps)

    def make(self, train, transform):
        change = transform or self.default_transforms()
        return torchvision.datasets.MNIST(self.data_dir, train=train, transform=change)

    def setup(self, stage=None):
        if stage in ("fit", None):
            for name, part in (("train", 0), ("val", 1)):
                whole = self.make(True, getattr(self, f"{name}_transforms"))
                sizes = [len(whole) - self.val_split, self.val_split]
                generator = torch.Generator().manual_seed(self.seed)
                setattr(self, f"dataset_{name}", random_split(whole, sizes, generator)[part])
        else:
            self.dataset_test = self.make(False, self.test_transforms)

    def train_dataloader(self):
        return DataLoader(self.dataset_train, batch_size=2, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.dataset_val)

    def test_dataloader(self):
        return DataLoader(self.dataset_test)


class Folder(Vision):
    """Photographs in class folders, cut to a size of its own."""

    dims = (3, 24, 24)
    image_size = 24
    num_classes = 3

    def make(self, train, transform):
        folder = Path(self.data_dir) / ("train" if train else "val")
        return torchvision.datasets.ImageFolder(folder, transform=transform)


class Tensors(Vision):
    def make(self, train, transform):
        return TensorDataset(torch.zeros(60, 3), torch.zeros(60))


class OwnTransform(Vision):
    """Its transforms cannot be left out."""

    def make(self, train, transform):
        return super().make(train, self.default_transforms())


class OtherLabels(Vision):
    """Its list of labels is not what it gives."""

    def make(self, train, transform):
        whole = super().make(train, transform)
        whole.targets = whole.targets.flip(0)
        whole.__class__ = type("Turned", (type(whole),), {"__getitem__": self.item})
        return whole

    @staticmethod
    def item(dataset, row):
        return Image.new("L", (28, 28)), 3


class Streams(Vision):
    def train_dataloader(self):
        return iter([])


class Trusting(BoltsDataModule):
    packages = ("pl_bolts", "stand_in")


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    module = ModuleType("stand_in")
    for kind in (Vision, Folder, Tensors, OwnTransform, OtherLabels, Streams):
        setattr(module, kind.__name__, kind)
    module.function = write_idx
    monkeypatch.setitem(sys.modules, "stand_in", module)


@pytest.fixture
def digits(tmp_path):
    write_digits(tmp_path)

    def make(name="Vision", init_args=None, **kwargs):
        args = {"data_dir": str(tmp_path), **(init_args or {})}
        options = {"batch_size": 7, "num_workers": 0, **kwargs}
        return Trusting(class_path=f"stand_in.{name}", init_args=args, **options)

    return make


def test_attributes_before_setup(digits):
    data = digits()
    assert (data.num_classes, data.image_size, data.in_channels) == (10, 28, 1)
    assert (data.mean, data.std) == ((0.25,), (0.75,))  # of its own normalisation
    assert (data.hparams["mean"], data.hparams["std"]) == ([0.25], [0.75])  # for exports
    assert data.bolts.normalize is False
    assert data.class_names[3] == "3 - three"
    assert digits(mean=[0.1], std=[0.2]).mean == (0.1,)


def test_splits_are_its_own(digits):
    data, other = digits(), digits(init_args={"seed": 1})
    data.setup()
    sizes = [len(data.rows(split)) for split in ("train", "val", "test")]
    assert sizes == [50, 10, 21]
    assert not data.validates_on_test
    bolts = Vision(data.bolts.data_dir)
    bolts.setup("fit")
    assert data.labels("train").tolist() == [label for _, label in bolts.dataset_train]
    pixels = [data.rows("val").source.read(row)[0] for row in range(10)]
    for mine, (theirs, _) in zip(pixels, bolts.dataset_val, strict=True):
        assert torch.equal(mine, (theirs * 255).round().byte())
    assert other.labels("train").tolist() != data.labels("train").tolist()
    assert data.rows("predict").labels.tolist() == data.labels("test").tolist()


def test_batches_views_and_the_bank(digits):
    crops = MultiCrop([CropSpec(size=14, count=2), CropSpec(size=8, count=3)])
    data = digits(train_transform=crops)
    data.setup()
    views, _ = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert [tuple(view.shape) for view in views] == [(7, 2, 1, 14, 14), (7, 3, 1, 8, 8)]
    bank = [data.on_after_batch_transfer(batch, 0) for batch in data.bank_dataloader()]
    assert torch.cat([labels for _, labels in bank]).tolist() == data.labels("train").tolist()
    assert bank[-1][0].shape == (1, 1, 28, 28)  # a last batch of one
    assert [len(batch[1]) for batch in data.test_dataloader()] == [7, 7, 7]


def test_a_killed_run_goes_on_identically(digits, fit, tmp_path):
    class Save(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if len(module.seen) == 10:
                trainer.save_checkpoint(tmp_path / "ten.ckpt")

    def data():
        return digits(train_transform=MultiCrop([CropSpec(size=8, count=2)]))

    whole = fit(data(), callbacks=[Save()])
    assert len(whole.seen) == 21  # 50 // 7 batches, 3 epochs
    assert fit(data(), tmp_path / "ten.ckpt").seen == whole.seen[10:]


def test_an_empty_validation_split(digits):
    data = digits(init_args={"val_split": 0})
    data.setup("fit")
    assert len(data.rows("val")) == 0
    assert data.val_dataloader() == []
    with pytest.raises(InputError, match="no images for the val split"):
        data.setup("validate")


def test_photographs_in_folders_are_read_as_files(tmp_path, write_image):
    for split, count in (("train", 6), ("val", 1)):
        for row in range(3 * count):
            mode = "L" if row == 0 else "RGB"
            write_image(tmp_path / split / "abc"[row % 3] / f"{row}.jpg", seed=row, mode=mode)
    data = Trusting(
        class_path="stand_in.Folder",
        init_args={"data_dir": str(tmp_path), "val_split": 3},
        batch_size=4,
        num_workers=0,
    )
    data.setup()
    assert data.class_names == ["a", "b", "c"]
    assert data.image_size == 24
    images, _ = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert images.shape == (4, 3, 24, 24)
    source = data.rows("test").source
    assert isinstance(source.images, FileImages)
    assert [data.rows("test").name(row) for row in range(3)] == ["a/0.jpg", "b/1.jpg", "c/2.jpg"]
    assert sum(data.rows("train").labels == 0) + sum(data.rows("val").labels == 0) == 6


def test_unreadable_images(digits, monkeypatch):
    def read(dataset, row):
        if row == 5:
            raise OSError("cut short")
        return Image.new("RGBA", (28, 28)), int(dataset.targets[row])

    monkeypatch.setattr(torchvision.datasets.MNIST, "__getitem__", read)
    for kind in ("raise", "skip"):
        data = digits(init_args={"val_split": 0}, on_corrupt=kind)
        data.setup()
        if kind == "raise":
            with pytest.raises(InputError, match=r"image 5 of MNIST \(OSError: cut short\)"):
                list(data.bank_dataloader())
        else:
            assert sum(len(batch[1]) for batch in data.bank_dataloader()) == 60


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Tensors", "TensorDataset inside, which does not list a class for each image"),
        ("OwnTransform", "gives Tensor for train and no pairs of image and label"),
        ("OtherLabels", r"gives the label 3 for row \d+ of train, where its data set lists"),
        ("Streams", "serves no data set with rows"),
    ],
)
def test_what_is_no_labelled_image_is_refused(digits, name, message):
    with pytest.raises(InputTypeError, match=message):
        digits(name).setup("fit")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("os.path.join", "names a class of pl_bolts or stand_in, such as"),
        ("stand_in.function", "is no data module"),
        ("stand_in.Nothing", "is not there"),
    ],
)
def test_other_names_are_refused(path, message):
    with pytest.raises(InputError, match=message):
        Trusting(class_path=path)


def test_nothing_of_another_package_is_imported(monkeypatch, tmp_path):
    (tmp_path / "planted.py").write_text("raise SystemExit('ran')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="class_path names a class of pl_bolts"):
        BoltsDataModule(class_path="planted.Data")
    assert "planted" not in sys.modules


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"init_args": {"batch_size": 3}}, "which are not used: give BoltsDataModule batch_size"),
        ({"init_args": {"shuffle": True}}, "which are not used: leave it out"),
        ({"init_args": {"normalize": True}}, "give BoltsDataModule mean and std"),
        ({"init_args": {"data_dr": "x"}}, r"cannot be made of .* \(TypeError: .*data_dr"),
        ({"train_loader": "__init__"}, "name methods such as train_dataloader"),
        ({"val_loader": "val_dataloader_mixed"}, "has no val_dataloader_mixed"),
    ],
)  # fmt: skip
def test_wrong_arguments(kwargs, message):
    with pytest.raises(InputError, match=message):
        Trusting(class_path="stand_in.Vision", **kwargs)


def test_missing_files_are_told_in_one_line(tmp_path):
    data = Trusting(class_path="stand_in.Vision", init_args={"data_dir": str(tmp_path)})
    with pytest.raises(InputError, match=r"stand_in.Vision cannot give its images \(RuntimeError"):
        data.setup("fit")


@pytest.mark.skipif(importlib.util.find_spec("pl_bolts") is not None, reason="bolts is there")
def test_without_bolts():
    with pytest.raises(InputImportError, match=r"needs pl_bolts.* `pip install lit-ssl\[bolts\]`"):
        BoltsDataModule(class_path="CIFAR10DataModule")


def test_beside_versions_that_it_does_not_know(monkeypatch, tmp_path):
    package = tmp_path / "pl_bolts" / "datamodules"
    package.mkdir(parents=True)
    (tmp_path / "pl_bolts" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("import numpy\nnumpy.Inf_of_old\n")
    monkeypatch.syspath_prepend(tmp_path)
    with patch.dict(sys.modules):
        for name in [name for name in sys.modules if name.partition(".")[0] == "pl_bolts"]:
            del sys.modules[name]
        with pytest.raises(InputImportError, match=r"cannot be imported beside .*AttributeError"):
            BoltsDataModule(class_path="CIFAR10DataModule")


def test_out_of_a_configuration(tmp_path):
    write_digits(tmp_path)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ImageDataModule, "data")
    parser.add_argument("--config", action="config")
    inner = {"class_path": "stand_in.Vision", "init_args": {"data_dir": str(tmp_path)}}
    config = {"class_path": f"{__name__}.Trusting", "init_args": {**inner, "batch_size": 3}}
    sys.modules.setdefault(__name__, sys.modules[Trusting.__module__])
    parsed = parser.parse_args([f"--config={json.dumps({'data': config})}"])
    data = parser.instantiate_classes(parsed).data
    assert len(data.labels("train")) == 50
    assert dict(data.hparams)["class_path"] == "stand_in.Vision"


# The real ones


@real
@pytest.mark.parametrize(
    ("name", "folder", "prefix", "init_args", "classes"),
    [
        ("MNISTDataModule", "MNIST", ("train", "t10k"), {}, 10),
        ("FashionMNISTDataModule", "FashionMNIST", ("train", "t10k"), {}, 10),
        ("BinaryMNISTDataModule", "BinaryMNIST", ("train", "t10k"), {}, 10),
        ("EMNISTDataModule", "EMNIST", ("emnist-mnist-train", "emnist-mnist-test"), {}, 10),
        ("EMNISTDataModule", "EMNIST", ("emnist-letters-train", "emnist-letters-test"),
         {"split": "letters"}, 27),
        ("BinaryEMNISTDataModule", "BinaryEMNIST", ("emnist-mnist-train", "emnist-mnist-test"),
         {}, 10),
    ],
)  # fmt: skip
def test_real_digits(tmp_path, name, folder, prefix, init_args, classes):
    write_digits(tmp_path, folder, prefix, shift=int(classes == 27))
    args = {"data_dir": str(tmp_path), "val_split": 10, **init_args}
    data = BoltsDataModule(class_path=name, init_args=args, batch_size=8, num_workers=0)
    data.prepare_data()
    data.setup()
    images, _ = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert images.shape == (8, 1, 28, 28)
    assert [len(data.rows(split)) for split in ("train", "val", "test")] == [50, 10, 21]
    assert (data.num_classes, len(data.class_names)) == (classes, classes)


@real
def test_real_cifar(tmp_path, monkeypatch):
    import pickle

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        pixels = np.random.default_rng(0).integers(0, 256, (10, 3072), dtype=np.uint8)
        content = {"data": pixels, "labels": list(range(10))}
        (folder / name).write_bytes(pickle.dumps(content))
    names = {"label_names": [f"kind {number}" for number in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(names))
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *args, **kwargs: True)
    args = {"data_dir": str(tmp_path), "val_split": 10}
    data = BoltsDataModule(class_path="pl_bolts.datamodules.CIFAR10DataModule", init_args=args,
                           batch_size=8, num_workers=0)  # fmt: skip
    data.prepare_data()
    data.setup()
    images, _ = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert images.shape == (8, 3, 32, 32)
    assert data.class_names[2] == "kind 2"
    assert data.mean == pytest.approx((0.491, 0.482, 0.447), abs=1e-3)


@real
def test_real_stl10(tmp_path, monkeypatch):
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    for name, count in (("train", 20), ("test", 6), ("unlabeled", 30)):
        pixels = np.random.default_rng(0).integers(0, 256, count * 27648, dtype=np.uint8)
        (folder / f"{name}_X.bin").write_bytes(pixels.tobytes())
        labels = (np.arange(count) % 10 + 1).astype(np.uint8)
        (folder / f"{name}_y.bin").write_bytes(labels.tobytes())
    (folder / "class_names.txt").write_text("\n".join("abcdefghij"))
    monkeypatch.setattr(torchvision.datasets.STL10, "_check_integrity", lambda self: True)
    args = {"data_dir": str(tmp_path), "unlabeled_val_split": 5, "train_val_split": 4}
    for loader, sizes, known in (("", [25, 5, 6], False), ("_labeled", [16, 4, 6], True)):
        data = BoltsDataModule(
            class_path="STL10DataModule", init_args=args, batch_size=8, num_workers=0,
            train_loader=f"train_dataloader{loader}", val_loader=f"val_dataloader{loader}",
        )  # fmt: skip
        data.setup()
        assert [len(data.rows(split)) for split in ("train", "val", "test")] == sizes
        assert (data.labels("train") >= 0).all() == known
        assert data.image_size == 96
        assert data.class_names == list("abcdefghij")


@real
def test_real_imagenet(tmp_path, write_image):
    wnids = ["n01", "n02"]
    for split in ("train", "val"):
        for row in range(8):
            write_image(tmp_path / split / wnids[row % 2] / f"{row}.JPEG", seed=row)
        torch.save(({"n01": ("a", "b"), "n02": ("c",)}, ["n01"]), tmp_path / split / "meta.bin")
    args = {"data_dir": str(tmp_path), "num_imgs_per_val_class": 1}
    data = BoltsDataModule(class_path="ImagenetDataModule", init_args=args, batch_size=2,
                           num_workers=0)  # fmt: skip
    data.prepare_data()
    data.setup()
    assert [len(data.rows(split)) for split in ("train", "val", "test")] == [6, 2, 8]
    for split in ("train", "val", "test"):
        for row, label in enumerate(data.labels(split)):
            assert data.rows(split).name(row).startswith(wnids[label])
    images, _ = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert images.shape == (2, 3, 224, 224)


@real
@pytest.mark.parametrize(
    ("name", "init_args", "message"),
    [
        ("SklearnDataModule", {"X": np.zeros((20, 3)), "y": np.arange(20)}, "no pairs of image"),
        ("TinyCIFAR10DataModule", {}, "cannot be made of these init_args"),
        ("KittiDataModule", {"data_dir": "nowhere"}, "cannot be made of these init_args"),
        ("CityscapesDataModule", {"data_dir": "nowhere"}, "cannot give its images"),
        ("AsynchronousLoader", {}, "is no data module"),
    ],
)
def test_real_ones_that_are_refused(name, init_args, message):
    with pytest.raises(InputError, match=message):
        BoltsDataModule(class_path=name, init_args=init_args).setup("fit")


class Tiny(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(784, 10)

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self.layer(batch[0].flatten(1)), batch[1])

    def configure_optimizers(self):
        from pl_bolts.optimizers.lars import LARS
        from pl_bolts.optimizers.lr_scheduler import LinearWarmupCosineAnnealingLR

        optimizer = LARS(self.parameters(), lr=0.1)
        return [optimizer], [LinearWarmupCosineAnnealingLR(optimizer, 2, 5)]


@real
def test_what_the_page_says_of_bolts_beside_lightning_2(tmp_path, fit):
    """Their modules and callbacks are refused; loaders, transforms, losses, optimisers work."""
    from pl_bolts import callbacks, datamodules
    from pl_bolts.losses.self_supervised_learning import nt_xent_loss
    from pl_bolts.models.regression import LogisticRegression
    from pl_bolts.models.self_supervised.resnets import resnet18
    from pl_bolts.transforms.self_supervised.simclr_transforms import SimCLRTrainDataTransform

    write_digits(tmp_path)
    theirs = datamodules.MNISTDataModule(str(tmp_path), pin_memory=False)
    theirs.prepare_data()
    theirs.setup()
    options = {"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 0, "logger": False,
               "enable_checkpointing": False, "enable_progress_bar": False,
               "accelerator": "cpu"}  # fmt: skip
    with pytest.raises(AttributeError, match="on_exception"):
        pl.Trainer(**options).fit(Tiny(), datamodule=theirs)
    with pytest.raises(TypeError, match="must be a `LightningModule`"):
        pl.Trainer(**options).fit(LogisticRegression(784, 10), theirs.train_dataloader())
    watching = pl.Trainer(**options, callbacks=[callbacks.LatentDimInterpolator()])
    with pytest.raises(TypeError, match="opt_idx"):
        watching.fit(Tiny(), theirs.train_dataloader())
    pl.Trainer(**options).fit(Tiny(), theirs.train_dataloader())
    views = SimCLRTrainDataTransform(32)(Image.new("RGB", (40, 40)))
    assert [view.shape for view in views] == [(3, 32, 32)] * 3
    assert nt_xent_loss(torch.randn(4, 8), torch.randn(4, 8), 0.5) > 0
    assert resnet18()(torch.randn(2, 3, 32, 32))[0].shape == (2, 512)
    data = BoltsDataModule(class_path="MNISTDataModule", init_args={"data_dir": str(tmp_path)},
                           batch_size=16, num_workers=0)  # fmt: skip
    pl.Trainer(**options).fit(Tiny(), data)
