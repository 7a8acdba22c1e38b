"""The recipes for a person's own folder of images."""

from __future__ import annotations

import csv

import pytest

TINY_VIT = "{img_size: 224, patch_size: 56, depth: 1, embed_dim: 16, num_heads: 2}"
FEW = ("--trainer.accelerator=cpu", "--trainer.precision=32-true", "--trainer.log_every_n_steps=1")
VIT = ("--model.backbone=vit_tiny_patch16_224", f"--model.backbone_kwargs={TINY_VIT}")
WORDS = {
    "msn/folder.yaml": (*VIT, "--model.proj_hidden_dim=32", "--data.batch_size=4"),
    "msn/folder_large.yaml": (*VIT, "--model.proj_hidden_dim=32", "--data.batch_size=4"),
    "msn/folder_small.yaml": ("--data.batch_size=4",),
    "paws/folder_small.yaml": ("--data.dataset.batch_size=4", "--data.subset.per_class=3"),
    "finetune/folder_small.yaml": ("--data.batch_size=4",),
    "paws/folder.yaml": (
        "--model.backbone=resnet10t",
        "--model.backbone_kwargs={stem_width: 8, channels: [8, 8, 16, 16]}",
        "--model.proj_output_dim=16",
        "--data.dataset.batch_size=4",
        "--data.subset.per_class=3",
        "--data.images_per_class=2",
    ),
    "finetune/folder.yaml": (*VIT, "--data.batch_size=4"),
    "eval/folder_small.yaml": ("--data.batch_size=4", "--trainer.callbacks.shots=[1]"),
    "eval/folder.yaml": (*VIT, "--data.batch_size=4", "--trainer.callbacks.shots=[1]"),
}


@pytest.fixture
def photos(tmp_path, write_images):
    """Three classes of four images in my_images, with none for validation."""
    for name in ("car", "bus", "train"):
        write_images(tmp_path / "my_images" / name, 4)
    return "my_images"


def prefix(name):
    return "--data.dataset" if name.startswith("paws") else "--data"


def words(command, name, photos):
    given = [f"{prefix(name)}.root={photos}", f"{prefix(name)}.num_workers=0"]
    return [command, "--config", name, *WORDS[name], *FEW, *given]


@pytest.mark.parametrize("name", [name for name in WORDS if not name.startswith("eval")])
def test_train_and_predict_on_a_plain_folder(lit_ssl, photos, tmp_path, name):
    short = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1"]
    result = lit_ssl(*words("fit", name, photos), *short, "--trainer.check_val_every_n_epoch=1")
    assert result.code == 0, result.err
    result = lit_ssl(*words("predict", name, photos), "--ckpt_path=last")
    assert result.code == 0, result.err
    with (tmp_path / "lightning_logs/version_1/predictions.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["class"] for row in table] == ["bus"] * 4 + ["car"] * 4 + ["train"] * 4
    assert table[0]["file"] == "bus/0.JPEG"


@pytest.mark.parametrize("name", ["eval/folder.yaml", "eval/folder_small.yaml"])
def test_report_on_a_plain_folder(lit_ssl, photos, tmp_path, name):
    result = lit_ssl(*words("validate", name, photos), "--data.val_size=3")
    assert result.code == 0, result.err
    assert (tmp_path / "report.json").is_file()


def test_report_without_validation_images(lit_ssl, photos):
    result = lit_ssl(*words("validate", "eval/folder.yaml", photos))
    assert (result.code, "val_size" in result.err) == (2, True), result.err
