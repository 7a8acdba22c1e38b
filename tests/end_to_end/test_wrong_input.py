"""Wrong input: exit status 2, one line that names the thing, and nothing left on the disk."""

from __future__ import annotations

import shlex

import pytest

DIGITS = ["--config", "msn/mnist5k.yaml"]
PHOTOS = [
    "--config",
    "msn/imagenet_vits16.yaml",
    "--model.backbone_kwargs.depth=1",
    "--model.backbone_kwargs.embed_dim=16",
    "--model.backbone_kwargs.num_heads=2",
    "--data.batch_size=2",
]

# what is typed after the recipe on the digits; below it, what the line says
TYPED = """
--model.mask_ration=0.1
    model: MSN has no option 'mask_ration'. Did you mean mask_ratio?
--model=MSNN
    model: no class named 'MSNN'. Did you mean MSN?
--config msn/mnist5kk.yaml
    --config msn/mnist5kk.yaml: no such config file, here or among the packaged ones. Did you mean
--data.train_transform.crops='[{size: 28, count: 2, hflp: 1}]'
    data.train_transform.crops: CropSpec has no option 'hflp'. Did you mean hflip?
--data.train_transform.crops='[{size: 28, count: 2, hflip: 3}]'
    CropSpec.hflip is a probability and must be in [0, 1], got 3.0
--data.train_transform=SingleView --data.train_transform.crop.size=28
    MSN trains on multi-view batches: a list of tensors [B, count, C, H, W], one per crop size
--data.train_transform=null
    MSN trains on multi-view batches: a list of tensors [B, count, C, H, W], one per crop size
--data.train_transform.crops='[{size: 28, count: 1}]'
    MSN needs the target view and at least one anchor view: set count: 2 for the first crop
--model.mask_ratio=1.5
    mask_ratio must lie in [0, 1), not 1.5
--model.num_prototypes=0
    MSN needs num_prototypes >= 2
--model.backbone=vit_tinyy_patch16_224
    timm has no model 'vit_tinyy_patch16_224'. Did you mean vit_tiny_patch16_224
--model.backbone_kwargs.in_chans=3
    images have 1 channels, but the network takes 3: build it with in_chans=1
--model.lr=-1
    model.lr must be a finite number >= 0, not -1.0
--data.batch_size=0
    batch_size should be a positive integer value, but got batch_size=0
--data.val_size=4000
    Cannot hold out 4000 of 4000 training images: val_size must be
--data.subset.per_class=1000
    subset.per_class=1000, but 10 classes have fewer training images: 0 (350)
--data.subset.file=none.txt
    There is no list file none.txt. Give a path from
--trainer.max_epochs=-1
    the schedules of MSN need the length of the run: set max_epochs
--trainer.callbacks+=KNNEvaluator --trainer.callbacks.feature_method=tokens
    KNNEvaluator: module MSN has no method 'tokens': feature_method must name a method
--trainer.precision=bf17
    trainer.precision: expected
--ckpt_path=last.ckpt
    no checkpoint last.ckpt.
"""


def pairs(text):
    lines = [line.strip() for line in text.strip().splitlines()]
    return list(zip(lines[::2], lines[1::2], strict=True))


def check(result, message, folder, there=()):
    assert result.code == 2, result.err
    told = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert len(told) == 1
    assert result.err.splitlines()[-1] == told[0]
    assert told[0].startswith(f"error: {message}")
    assert "Traceback" not in result.err
    assert sorted(path.name for path in folder.iterdir()) == sorted(there)


@pytest.mark.parametrize(("typed", "message"), pairs(TYPED))
def test_digits(lit_ssl, tmp_path, typed, message):
    check(lit_ssl("fit", *DIGITS, *shlex.split(typed)), message, tmp_path)


def test_missing_root(lit_ssl, tmp_path):
    message = "ImageNet: expected folders data/imagenet/train/<wnid>/. Found: data/imagenet/train "
    check(lit_ssl("fit", *PHOTOS), message, tmp_path)


def test_root_without_validation_images(lit_ssl, tmp_path, write_images):
    write_images(tmp_path / "photos/train/n01440764", 2)
    message = "ImageNet: expected image files in photos/val/<wnid>/, or flat in photos/val. Found: "
    check(lit_ssl("fit", *PHOTOS, "--data.root=photos"), message, tmp_path, ["photos"])


@pytest.mark.parametrize("workers", [0, 1])
def test_corrupt_image(lit_ssl, tmp_path, write_images, workers):
    for split in ("train", "val"):
        for wnid in ("n01440764", "n01443537"):
            write_images(tmp_path / "photos" / split / wnid, 1 + (split == "train"))
    corrupt = tmp_path / "photos/train/n01440764/1.JPEG"
    corrupt.write_bytes(corrupt.read_bytes()[:400])
    given = ["--data.root=photos", f"--data.num_workers={workers}"]
    result = lit_ssl("fit", *PHOTOS, *given)
    check(result, "Cannot read the image photos/train/n01440764/1.JPEG (", tmp_path, ["photos"])

    given += ["--data.on_corrupt=skip", "--trainer.fast_dev_run=true"]
    assert lit_ssl("fit", *PHOTOS, *given).code == 0


def test_list_of_absent_images(lit_ssl, tmp_path, write_images):
    for split in ("train", "val"):
        write_images(tmp_path / "photos" / split / "n01440764", 2, "n01440764_{}.JPEG")
    (tmp_path / "list.txt").write_text("n01440764_1.JPEG\nn01440764_7.JPEG\n")
    result = lit_ssl("fit", *PHOTOS, "--data.root=photos", "--data.subset.file=list.txt")
    message = "1 of the 2 images in list.txt are not among the 2 training images: n01440764_7.JPEG."
    check(result, message, tmp_path, ["list.txt", "photos"])


def test_weights_of_another_network(trained, lit_ssl, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    last = trained.logs / "checkpoints/last.ckpt"
    result = lit_ssl("test", *DIGITS, "--config", "eval/mnist5k.yaml", "--ckpt_path", last)
    check(result, f"the weights in {last} do not fit this MSN: backbone_kwargs.", tmp_path)
    config = trained.logs / "config.yaml"
    assert result.err.rstrip().endswith(f"To take the options of that run, give --config {config}.")
    assert lit_ssl("validate", "--config", config, "--ckpt_path", last).code == 0
