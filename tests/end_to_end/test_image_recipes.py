"""The recipes for image files, on a few generated images in the official layouts."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from lit_ssl.cli.recipes import list_configs

IMAGENET = [name for name in list_configs() if name.startswith("msn/imagenet")]
# timm name, patch size, patches of a 224-pixel view, images per process (arXiv 2204.07141)
NETWORKS = {
    "msn/imagenet_vits16.yaml": ("vit_small_patch16_224", 16, 196, 64),
    "msn/imagenet_vitb16.yaml": ("vit_base_patch16_224", 16, 196, 32),
    "msn/imagenet_vitl16.yaml": ("vit_large_patch16_224", 16, 196, 16),
    "msn/imagenet_vitb8.yaml": ("vit_base_patch8_224", 8, 784, 8),
    "msn/imagenet_vitb4.yaml": ("vit_base_patch16_224", 4, 3136, 3),
    "msn/imagenet_vitl7.yaml": ("vit_large_patch16_224", 7, 1024, 7),
}
SMALL = (
    "--model.backbone_kwargs.depth=1",
    "--model.backbone_kwargs.embed_dim=16",
    "--model.backbone_kwargs.num_heads=2",
    "--model.proj_hidden_dim=32",
    "--data.num_workers=0",
)
ONE_STEP = "--trainer.fast_dev_run=true"


def test_imagenet_as_it_is(lit_ssl, imagenet, tmp_path, warned):
    words = ["--data.root", imagenet, "--data.num_workers=1", ONE_STEP]
    result = lit_ssl("fit", "--config", "msn/imagenet_vits16.yaml", *words)
    assert result.code == 0, result.err
    assert "21.7 M" in result.out
    assert "val/linear_acc1 " in result.out.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
    batch, few = sorted(warned(), reverse=True)
    assert batch.startswith("global batch: 64 per device x 1 device x 1 accumulated = 64, and the")
    assert few == (
        "Only 4 training images per process, but batch_size is 64: each epoch is one batch of 4."
    )


def test_there_is_a_check_for_every_imagenet_recipe():
    assert set(IMAGENET) == set(NETWORKS)


@pytest.mark.parametrize("name", IMAGENET)
def test_imagenet_networks(built, imagenet, name):
    backbone, patch, patches, batch_size = NETWORKS[name]
    with torch.device("meta"):
        made = built("fit", "--config", name, "--data.root", imagenet)
    model, data = made.model, made.datamodule
    assert model.hparams.backbone == backbone
    assert model.patch_size == (patch, patch)
    assert model.backbone.vit.pos_embed.shape == (1, patches + 1, model.embed_dim)
    large, small = data.train_transform.crops
    assert (large.size, large.count, small.size, small.count) == (224, 2, 96, 10)
    assert (data.batch_size, data.num_classes) == (batch_size, 2)
    assert made.trainer.precision == "bf16-mixed"
    assert model.prototypes.shape == (1024, 256)
    for part in (model.target_backbone, model.target_head):
        assert not any(parameter.requires_grad for parameter in part.parameters())


@pytest.mark.parametrize("name", [name for name in IMAGENET if "vits16" not in name])
def test_imagenet_recipes_with_a_small_network(lit_ssl, imagenet, name):
    words = ["--data.root", imagenet, "--data.batch_size=2", *SMALL, ONE_STEP]
    result = lit_ssl("fit", "--config", name, *words)
    assert result.code == 0, result.err
    assert "results: val/linear_acc1 " in result.out


@pytest.fixture(scope="session")
def cifar(tmp_path_factory):
    """The official Python version of CIFAR-10, with 12 images in each of its six files."""
    folder = tmp_path_factory.mktemp("cifar") / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        content = {
            "batch_label": name,
            "labels": [number % 10 for number in range(12)],
            "data": rng.integers(0, 256, (12, 3072), dtype=np.uint8),
            "filenames": [f"{number}.png" for number in range(12)],
        }
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return folder.parent


def test_cifar10(lit_ssl, cifar, warned):
    words = ["--data.root", cifar, "--data.val_size=10", *SMALL, ONE_STEP]
    result = lit_ssl("fit", "--config", "msn/cifar10.yaml", *words)
    assert result.code == 0, result.err
    assert "val/knn_acc5 " in result.out
    assert warned() == [
        "Only 50 training images per process, but batch_size is 256: each epoch is one batch of 50."
    ]


def test_own_folder_with_classes(lit_ssl, tmp_path, write_images):
    for split, count in (("train", 4), ("val", 2)):
        write_images(tmp_path / "photos" / split / "cat", count)
        write_images(tmp_path / "photos" / split / "dog", count, size=(60, 33))
    words = ["--data=ImageFolderDataModule", "--data.root=photos", "--data.batch_size=4", *SMALL]
    recipe = ["--config", "msn/imagenet_vits16.yaml", *words, "--trainer.max_epochs=1"]
    recipe += ["--trainer.check_val_every_n_epoch=1", "--trainer.log_every_n_steps=1"]
    fitted = lit_ssl("fit", *recipe)
    assert fitted.code == 0, fitted.err
    tested = lit_ssl("validate", *recipe, "--ckpt_path=last")
    assert tested.code == 0, tested.err
    assert "val/knn_acc1" in tested.out


def test_own_folder_without_classes(lit_ssl, tmp_path, write_images, warned):
    write_images(tmp_path / "photos", 6)
    words = ["--data=ImageFolderDataModule", "--data.root=photos", "--data.batch_size=3", *SMALL]
    words += ["--global_batch=3"]
    result = lit_ssl("fit", "--config", "msn/imagenet_vits16.yaml", *words, ONE_STEP)
    assert result.code == 0, result.err
    assert warned() == [
        f"{name} is off: ImageFolderDataModule has no classes (num_classes = 0)"
        for name in ("LinearProbeEvaluator", "KNNEvaluator")
    ]


def test_images_on_the_device_are_of_any_size(lit_ssl, imagenet):
    words = ["--data.root", imagenet, "--data.augment=device", "--data.canvas_size=64", *SMALL]
    result = lit_ssl("fit", "--config", "msn/imagenet_vits16.yaml", *words, ONE_STEP)
    assert result.code == 0, result.err
