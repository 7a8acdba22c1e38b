"""Frozen features of a checkpoint, evaluated on another data module by one command."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
import yaml

CIFAR = ("cifar10", "cifar100")
DIGITS = ["--config=pmsn/mnist5k_lt.yaml"]
NETWORK = ["--model.backbone_kwargs.depth=1", "--model.backbone_kwargs.embed_dim=16"]
NETWORK += ["--model.backbone_kwargs.num_heads=2"]
# what the digits' network was trained on
LIKE_DIGITS = [
    "--data.eval_transform.size=28",
    "--data.eval_transform.channels=1",
    "--data.mean=[0.1307]",
    "--data.std=[0.3081]",
]


@pytest.fixture
def cifar(workdir):
    """The official Python version of CIFAR-10, with 20 images in each of its six files."""
    folder = workdir / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        pixels = rng.integers(0, 256, (20, 3072), dtype=np.uint8)
        content = {"labels": [number % 10 for number in range(20)], "data": pixels}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return ["--data.root", workdir]


@pytest.fixture
def trained(lit_ssl):
    """Words that name the digits' recipe; a checkpoint of it lies in the folder `run`."""
    words = [*DIGITS, *NETWORK, "--trainer.default_root_dir=run"]
    quick = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--data.batch_size=32"]
    quick += ["--trainer.callbacks=ModelCheckpoint", "--trainer.callbacks.save_last=true"]
    assert lit_ssl("fit", *words, *quick, "--trainer.limit_val_batches=0").code == 0
    return words


def report(workdir):
    content = json.loads((workdir / "run/report.json").read_text())
    return content, {row["features"]: row for row in content["rows"]}


def test_digits_network_on_cifar(lit_ssl, trained, cifar, workdir):
    words = ["--config=eval/transfer_cifar10.yaml", *cifar, *LIKE_DIGITS, "--ckpt_path=last"]
    result = lit_ssl("test", *trained, *words)
    assert result.code == 0, result.err
    content, rows = report(workdir)
    assert list(rows) == ["trained", "untrained", "pixels"]
    protocol = content["protocol"]
    assert (protocol["bank"], protocol["queries"]) == (100, 20)
    assert 0 <= rows["trained"]["linear_acc1"] <= 1


def test_any_data_module_without_a_preset(lit_ssl, trained, cifar, workdir):
    words = ["--config=eval/mnist5k.yaml", "--data=CIFAR10DataModule", *cifar, "--data.val_size=0"]
    words += ["--data.subset=null", "--data.eval_transform=EvalTransform", *LIKE_DIGITS]
    assert lit_ssl("test", *trained, *words, "--ckpt_path=last").code == 0
    assert report(workdir)[0]["protocol"]["bank"] == 100


def test_images_that_do_not_fit_the_network_are_explained(lit_ssl, trained, cifar):
    words = ["--config=eval/transfer_cifar10.yaml", *cifar, "--ckpt_path=last"]
    result = lit_ssl("test", *trained, *words)
    assert result.code == 2
    assert "images have 3 channels, but the network takes 1" in result.err.splitlines()[-1]


def test_batches_are_like_those_of_the_pre_training(built, cifar):
    words = ["--config=eval/transfer_cifar10.yaml", *cifar, *LIKE_DIGITS]
    data = built("test", *DIGITS, *words).datamodule
    assert (data.in_channels, data.image_size) == (1, 28)
    images, labels = data.on_after_batch_transfer(next(iter(data.test_dataloader())), 0)
    assert images.shape == (20, 1, 28, 28)
    assert images.dtype == torch.float32
    assert labels.tolist() == [*range(10)] * 2
    grey = images * 0.3081 + 0.1307
    assert 0 <= grey.min() <= grey.max() <= 1


@pytest.mark.parametrize("preset", [*CIFAR, "inat18", "imagenet"])
def test_presets_leave_nothing_of_the_recipes_data(lit_ssl, preset):
    words = ["--config=pmsn/imagenet_lt_vits16.yaml", f"--config=eval/transfer_{preset}.yaml"]
    shown = lit_ssl("test", *words, "--print_config")
    assert shown.code == 0, shown.err
    config = yaml.safe_load(shown.out)
    assert config["model"]["class_path"].endswith(".PMSN")
    data = config["data"]["init_args"]
    assert data["root"] == f"data/{preset.replace('inat18', 'inat2018')}"
    assert (data["subset"], data["train_transform"], data["val_size"]) == (None, None, 0)
    transform = data["eval_transform"]["init_args"]
    resize = None if preset in CIFAR else 256
    usual = {"interpolation": "bilinear"}
    assert transform == {"size": 224, "resize": resize, "channels": 3, **usual}
    assert data["mean"] == [0.485, 0.456, 0.406]
