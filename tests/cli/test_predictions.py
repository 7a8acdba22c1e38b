"""What `lit-ssl predict` leaves of a folder of images."""

from __future__ import annotations

import csv
import os

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

KWARGS = "{img_size: 8, patch_size: 4, depth: 1, embed_dim: 12, num_heads: 2}"
BASE = ("predict", "--model=FrozenEncoder", f"--model.backbone_kwargs={KWARGS}")
DATA = ("--data=ImageFolderDataModule", "--data.root=images", "--data.image_size=8")
BASE = (*BASE, "--model.backbone=vit_tiny_patch16_224", "--trainer.logger=false")
FEW = ("--data.batch_size=2", "--data.num_workers=0", "--trainer.default_root_dir=run")
WORDS = (*BASE, *DATA, *FEW, "--data.eval_transform=EvalTransform", "--data.eval_transform.size=8")


@pytest.fixture
def images(workdir):
    """Writes grey images; the number in a name is the shade."""

    def write(*names):
        for name in names:
            path = workdir / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shade = int("".join(c for c in path.stem if c.isdigit()))
            Image.new("RGB", (8, 8), (shade, shade, shade)).save(path)

    return write


def found(workdir):
    with (workdir / "run/predictions.csv").open(encoding="utf-8", errors="surrogateescape") as file:
        table = list(csv.DictReader(file))
    return table, load_file(workdir / "run/predictions.safetensors")


def names(table):
    return [(row["file"], row["label"], row["class"]) for row in table]


TRAIN = ("a/10.png", "a/20.png", "b/30.png")


def test_folder_without_test_images(lit_ssl, images, workdir, caplog):
    images(*TRAIN)
    caplog.set_level("INFO", logger="lightning.pytorch")
    result = lit_ssl(*WORDS, "--data.val_size=1", "--data.subset.per_class=1")
    assert result.code == 0, result.err
    assert "predict: 3 images of 2 classes in images" in caplog.text
    table, tensors = found(workdir)
    assert names(table) == [("a/10.png", "0", "a"), ("a/20.png", "0", "a"), ("b/30.png", "1", "b")]
    assert [row["row"] for row in table] == ["0", "1", "2"]
    assert tensors["labels"].tolist() == [0, 0, 1]
    assert tensors["rows"].tolist() == [0, 1, 2]
    assert torch.equal(tensors["features"], torch.load("run/predictions.pt", weights_only=True))
    assert len(np.unique(tensors["features"].numpy(), axis=0)) == 3


@pytest.mark.parametrize("split", ["val", "test"])
def test_other_splits_go_first(lit_ssl, images, workdir, split):
    images(*(f"train/{name}" for name in TRAIN), "val/b/40.png", f"{split}/b/50.png")
    assert lit_ssl(*WORDS).code == 0
    table, _ = found(workdir)
    files = ["b/50.png"] if split == "test" else ["b/40.png", "b/50.png"]
    assert names(table) == [(file, "1", "b") for file in files]


def test_names_without_labels_in_any_letters(lit_ssl, images, workdir):
    images("Köln 1.png", "x,2.png", "3.png")
    raw = os.fsdecode(b"4\xff.png")
    images(raw)
    assert lit_ssl(*WORDS).code == 0
    table, tensors = found(workdir)
    assert sorted(row["file"] for row in table) == sorted(["3.png", raw, "Köln 1.png", "x,2.png"])
    assert tensors["labels"].tolist() == [-1] * 4
    assert {row["class"] for row in table} == {""}


def test_unreadable_images_are_left_out(lit_ssl, images, workdir):
    images("1.png", "2.png", "3.png")
    (workdir / "images/2.png").write_bytes(b"no image")
    result = lit_ssl(*WORDS, "--data.on_corrupt=skip")
    assert result.code == 0, result.err
    assert "left out: 1 images that cannot be read" in result.out
    table, tensors = found(workdir)
    assert [row["file"] for row in table] == ["1.png", "3.png"]
    assert tensors["rows"].tolist() == [0, 2]
    assert len(tensors["features"]) == 2


def test_a_part_of_the_batches(lit_ssl, images, workdir):
    images(*(f"{number}.png" for number in range(1, 8)))
    assert lit_ssl(*WORDS, "--trainer.limit_predict_batches=2").code == 0
    table, tensors = found(workdir)
    assert [row["file"] for row in table] == ["1.png", "2.png", "3.png", "4.png"]
    assert len(tensors["features"]) == 4


def test_nothing_of_an_earlier_run_is_replaced(lit_ssl, images, workdir):
    images("1.png")
    (workdir / "run").mkdir()
    (workdir / "run/predictions.csv").write_text("mine")
    assert lit_ssl(*WORDS).code == 0
    assert (workdir / "run/predictions.csv").read_text() == "mine"
    assert (workdir / "run/lit_ssl_runs/version_0/predictions.safetensors").is_file()


def test_numbers_of_images_are_no_labels(lit_ssl, workdir):
    recipe = ("--config=vl/digit_scenes.yaml", "--data.sizes=[4,0,3]", "--data.num_workers=0")
    result = lit_ssl("predict", *recipe, "--trainer.default_root_dir=run", "--trainer.logger=false")
    assert result.code == 0, result.err
    table, tensors = found(workdir)
    assert [row["label"] for row in table] == ["", "", ""]
    assert tensors["predictions"].shape == (3, 64)
    assert "labels" not in tensors
