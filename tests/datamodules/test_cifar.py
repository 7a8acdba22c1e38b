"""CIFAR in both official layouts, three images per training file."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import torch

from lit_ssl.datamodules import CIFAR10DataModule, CIFAR100DataModule, Subset

PIXELS = np.random.default_rng(0).integers(0, 256, (18, 3072), dtype=np.uint8)
FINE = np.arange(18) % 10
COARSE = np.full(18, 7)


def write_pickle(path, rows, key):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"data": PIXELS[rows], key: FINE[rows].tolist(), "batch_label": "x", "filenames": []}
    path.write_bytes(pickle.dumps(content, protocol=2))


def write_binary(path, rows, *labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [label[rows, None].astype(np.uint8) for label in labels]
    np.concatenate([*columns, PIXELS[rows]], axis=1).tofile(path)


@pytest.fixture(params=["python", "binary"])
def cifar10(request, tmp_path):
    for part in range(6):
        rows = slice(3 * part, 3 * part + 3)
        name = f"data_batch_{part + 1}" if part < 5 else "test_batch"
        if request.param == "python":
            write_pickle(tmp_path / "cifar-10-batches-py" / name, rows, "labels")
        else:
            write_binary(tmp_path / "cifar-10-batches-bin" / f"{name}.bin", rows, FINE)
    return tmp_path


@pytest.fixture(params=["python", "binary"])
def cifar100(request, tmp_path):
    for name, rows in (("train", slice(0, 15)), ("test", slice(15, 18))):
        if request.param == "python":
            write_pickle(tmp_path / "cifar-100-python" / name, rows, "fine_labels")
        else:
            write_binary(tmp_path / "cifar-100-binary" / f"{name}.bin", rows, COARSE, FINE)
    return tmp_path


def contents(loader):
    batches = list(loader)
    images = torch.cat([images for images, _ in batches])
    return images.flatten(1).numpy(), torch.cat([labels for _, labels in batches]).numpy()


def check(data):
    images, labels = contents(data.bank_dataloader())
    assert np.array_equal(images, PIXELS[:15])
    assert labels.tolist() == FINE[:15].tolist()
    images, labels = contents(data.test_dataloader())
    assert np.array_equal(images, PIXELS[15:])
    assert labels.tolist() == FINE[15:].tolist()


def test_cifar10(cifar10):
    data = CIFAR10DataModule(root=str(cifar10), val_size=0, num_workers=0)
    assert (data.num_classes, data.image_size, data.class_names[3]) == (10, 32, "cat")
    check(data)


def test_cifar100_uses_fine_labels(cifar100):
    data = CIFAR100DataModule(root=str(cifar100), val_size=0, num_workers=0)
    assert (data.num_classes, data.class_names[1]) == (100, "aquarium_fish")
    check(data)


def test_held_out_images_are_training_images(cifar10):
    data = CIFAR10DataModule(root=str(cifar10), val_size=5, num_workers=0)
    train, _ = contents(data.bank_dataloader())
    val, _ = contents(data.val_dataloader())
    assert (len(train), len(val)) == (10, 5)
    together = sorted(image.tobytes() for image in [*train, *val])
    assert together == sorted(image.tobytes() for image in PIXELS[:15])


def test_list_refers_to_the_official_order(cifar10):
    (cifar10 / "list.txt").write_text("12\n4\n")
    subset = Subset(file=str(cifar10 / "list.txt"))
    data = CIFAR10DataModule(root=str(cifar10), val_size=0, subset=subset, num_workers=0)
    images, labels = contents(data.bank_dataloader())
    assert np.array_equal(images, PIXELS[[4, 12]])
    assert labels.tolist() == FINE[[4, 12]].tolist()


def test_missing_layout_says_what_was_expected_and_found(tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").touch()
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").touch()
    with pytest.raises(FileNotFoundError, match="CIFAR10: expected cifar-10-batches-py/") as error:
        CIFAR10DataModule(root=str(tmp_path)).setup("fit")
    assert "holds cifar-10-batches-py/, cifar-10-python.tar.gz" in str(error.value)
    assert "download: true" in str(error.value)


@pytest.mark.parametrize("cifar10", ["python"], indirect=True)
def test_pickle_that_runs_code_is_refused(cifar10):
    class Attack:
        def __reduce__(self):
            return os.system, ("touch attacked",)

    (cifar10 / "cifar-10-batches-py" / "data_batch_2").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(ValueError, match=r"data_batch_2 .* contains \w+.system"):
        CIFAR10DataModule(root=str(cifar10), val_size=0).setup("fit")


@pytest.mark.parametrize("cifar10", ["python"], indirect=True)
def test_truncated_pickle(cifar10):
    path = cifar10 / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"data_batch_2 .*Extract the official archive again"):
        CIFAR10DataModule(root=str(cifar10), val_size=0).setup("fit")


@pytest.mark.parametrize("cifar10", ["binary"], indirect=True)
def test_truncated_binary(cifar10):
    path = cifar10 / "cifar-10-batches-bin" / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"test_batch.bin has 9218 bytes.*3073"):
        CIFAR10DataModule(root=str(cifar10), val_size=0).setup("test")


def test_download_only_when_nothing_is_there(cifar10, monkeypatch):
    calls = []
    monkeypatch.setattr(CIFAR10DataModule, "_download", lambda self: calls.append(self.root))
    CIFAR10DataModule(root=str(cifar10), download=True).prepare_data()
    CIFAR10DataModule(root=str(cifar10 / "none")).prepare_data()
    assert calls == []
    CIFAR10DataModule(root=str(cifar10 / "none"), download=True).prepare_data()
    assert calls == [cifar10 / "none"]
