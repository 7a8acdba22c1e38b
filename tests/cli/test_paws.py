"""PAWS from the command line: recipes on fixtures of their data, resume, export, errors."""

from __future__ import annotations

import csv
import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch.optim import AdamW

from lit_ssl.cli.recipes import packaged_config
from lit_ssl.datamodules import Subset

ONE_STEP = ["--trainer.fast_dev_run=true", "--trainer.precision=32-true"]
DIGITS = ["--config=paws/mnist5k.yaml", "--data.dataset.batch_size=16"]
QUICK = [
    "--trainer.logger=false",
    "--trainer.check_val_every_n_epoch=100",
    "--trainer.limit_train_batches=3",
    "--trainer.callbacks=ModelCheckpoint",
    "--trainer.callbacks.save_last=true",
]
PLAIN_CROPS = '[{"size": 32, "count": 2}, {"size": 24, "count": 1}]'
SMALL_VIEWS = [
    "--data.dataset.train_transform=lit_ssl.transforms.MultiCrop",
    f"--data.dataset.train_transform.crops={PLAIN_CROPS}",
]


@pytest.fixture
def cifar10(workdir):
    """The official Python layout with 100 images, and a list of half of them."""
    folder = workdir / "cifar-10-batches-py"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 3072), dtype=np.uint8)
    content = {"data": pixels, "labels": [i % 10 for i in range(20)]}
    for name in (*(f"data_batch_{part}" for part in range(1, 6)), "test_batch"):
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    (workdir / "list.txt").write_text("\n".join(map(str, range(50))))
    return [f"--data.dataset.root={workdir}", f"--data.subset.file={workdir / 'list.txt'}"]


@pytest.fixture
def imagenet(workdir):
    """Three classes of four images, two of each in the packaged kind of list."""
    names = []
    for label, wnid in enumerate(("n01440764", "n01443537", "n02085620")):
        for number in range(4):
            for path in (f"train/{wnid}/{wnid}_{number}.JPEG", f"val/{wnid}/v{number}.JPEG"):
                (workdir / path).parent.mkdir(parents=True, exist_ok=True)
                noise = np.random.default_rng(label).integers(0, 256, (40, 48, 3), dtype=np.uint8)
                Image.fromarray(noise).save(workdir / path)
            names.append(f"{wnid}_{number}.JPEG")
    (workdir / "list.txt").write_text("\n".join(names[::2]))
    return [f"--data.dataset.root={workdir}", f"--data.subset.file={workdir / 'list.txt'}"]


def test_cifar10_recipe(lit_ssl, built, cifar10):
    words = ["fit", "--config=paws/cifar10_wrn28_2.yaml", *cifar10, "--data.dataset.num_workers=0"]
    few = ["--data.images_per_class=2", "--data.dataset.batch_size=4"]
    result = lit_ssl(*words, *few, *ONE_STEP)
    assert result.code == 0, result.err
    cli = built(*words)
    assert cli.model.num_classes == 10
    assert (cli.model.embed_dim, cli.model.prediction_head) == (128, None)
    assert cli.datamodule.support_recipe.crops[0].count == 2
    assert len(cli.datamodule.support_positions) == 50


@pytest.mark.parametrize("percent", [1, 10])
def test_imagenet_recipes(lit_ssl, built, imagenet, percent):
    words = ["fit", f"--config=paws/imagenet_rn50_{percent}pct.yaml", *imagenet]
    words += ["--data.dataset.num_workers=0"]
    few = ["--data.classes_per_batch=3", "--data.images_per_class=2", *SMALL_VIEWS]
    few += ["--data.dataset.batch_size=4", "--model.backbone=resnet10t"]
    result = lit_ssl(*words, *few, *ONE_STEP)
    assert result.code == 0, result.err
    cli = built(*words, "--model.proj_hidden_dim=8")  # the rest is large already
    assert cli.model.num_classes == 3
    assert cli.model.prediction_head.fc1.out_features == 512
    assert cli.datamodule.classes_per_batch * cli.datamodule.images_per_class == 6720
    text = packaged_config(f"paws/imagenet_rn50_{percent}pct.yaml").read_text()
    assert f"file: paws/imagenet_{percent}percent\n" in text


def test_vit_recipe(lit_ssl, built, imagenet):
    words = ["fit", "--config=paws/imagenet_vits16.yaml", *imagenet]
    words += ["--data.dataset.num_workers=0"]
    few = ["--data.classes_per_batch=3", "--data.images_per_class=2", *SMALL_VIEWS]
    small = '{"img_size": 32, "embed_dim": 16, "depth": 1, "num_heads": 2, "patch_size": 8, '
    small += '"dynamic_img_size": true}'
    few += ["--data.dataset.batch_size=4", "--data.dataset.image_size=32"]
    few += ["--model.backbone_kwargs=null", f"--model.backbone_kwargs={small}"]
    result = lit_ssl(*words, *few, *ONE_STEP)
    assert result.code == 0, result.err
    cli = built(*words)
    model, data = cli.model, cli.datamodule
    assert model.embed_dim == 384
    head, prediction = model.projection_head, model.prediction_head
    assert [head.fc1.out_features, head.fc2.out_features, head.fc3.out_features] == [256] * 3
    assert [prediction.fc1.out_features, prediction.fc2.out_features] == [256] * 2
    assert isinstance(head.act1, torch.nn.GELU)
    assert isinstance(prediction.act, torch.nn.GELU)
    assert (model.start_lr, model.lr, model.final_lr) == (2e-4, 1e-3, 1e-6)
    assert (model.weight_decay, model.final_weight_decay) == (0.04, 0.4)
    assert isinstance(cli.model.optimizer_factory([torch.nn.Parameter(torch.ones(1))]), AdamW)
    assert data.classes_per_batch * data.images_per_class == 6720
    assert [(crop.size, crop.count) for crop in data.dataset.train_transform.crops] == [
        (224, 2),
        (96, 6),
    ]


def test_ropaws_recipe_for_semi_inat(lit_ssl, built, workdir):
    rng = np.random.default_rng(0)
    names = [f"{split}/{number}/{i}.jpg" for split in ("l_train", "val") for number in range(3)
             for i in range(2)] + [f"u_train/{i:032x}.jpg" for i in range(6)]  # fmt: skip
    for name in names:
        (workdir / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(workdir / name)
    words = ["fit", "--config=ropaws/semi_inat_rn50.yaml", f"--data.dataset.root={workdir}"]
    words += ["--data.dataset.num_workers=0"]
    few = ["--data.classes_per_batch=3", "--data.images_per_class=2", *SMALL_VIEWS]
    few += ["--data.dataset.batch_size=4", "--model.backbone=resnet10t"]
    few += ["--model.proj_hidden_dim=8", "--data.dataset.image_size=32"]
    result = lit_ssl(*words, *few, *ONE_STEP)
    assert result.code == 0, result.err
    assert "val/soft_nn_acc1" in result.out
    cli = built(*words, "--model.proj_hidden_dim=8")
    loss, data = cli.model.loss, cli.datamodule
    assert (loss.prior_temperature, loss.prior_power, loss.label_ratio) == (3.0, 1.0, 5.0)
    assert (data.classes_per_batch, data.images_per_class) == (64 * 12, 5)
    assert data.unique_classes_per_rank
    assert data.support_positions.tolist() == list(range(6))
    assert cli.trainer.max_epochs == 800


def test_digits_recipe_trains_resumes_and_is_exported(lit_ssl, workdir):
    words = ["fit", *DIGITS, *QUICK, "--trainer.max_epochs=3", "--model.backbone=resnet10t"]
    words += ["--model.backbone_kwargs=null", '--model.backbone_kwargs={"in_chans": 1}']

    def weights(folder, *more):
        result = lit_ssl(*words, f"--trainer.default_root_dir={folder}", *more)
        assert result.code == 0, result.err
        return torch.load(f"{folder}/checkpoints/last.ckpt", weights_only=True)["state_dict"]

    whole = weights("whole")
    # from a checkpoint in the middle of the second epoch
    often = ["--trainer.callbacks.every_n_train_steps=4", "--trainer.callbacks.save_top_k=-1"]
    weights("often", *often)
    middle = workdir / "often/checkpoints/epoch=1-step=4.ckpt"
    resumed = weights("resumed", "--ckpt_path", middle)
    for key, value in whole.items():
        assert torch.equal(resumed[key], value), key

    exported = lit_ssl("export", "whole/checkpoints/last.ckpt", "encoder.safetensors")
    assert exported.code == 0, exported.err
    with safe_open("encoder.safetensors", "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["mean"]) == [0.1307]
    assert metadata["timm_model"] == "resnet10t"


def test_digits_recipe_logs_paws_nn(lit_ssl, workdir):
    few = [
        "--trainer.limit_train_batches=1",
        "--trainer.max_epochs=1",
        "--trainer.logger=CSVLogger",
    ]
    few += ["--trainer.logger.save_dir=logs", "--trainer.check_val_every_n_epoch=1"]
    result = lit_ssl("fit", *DIGITS, *few)
    assert result.code == 0, result.err
    (logged,) = workdir.glob("logs/**/metrics.csv")
    with logged.open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("val/soft_nn_acc1")]
    assert len(rows) == 1
    assert 0 < float(rows[0]["val/soft_nn_acc1"]) <= float(rows[0]["val/soft_nn_acc5"]) < 1
    assert 0 < float(rows[0]["val/knn_acc1"]) < 1


def test_paws_nn_of_a_recipe_with_recalibrated_batch_norm(lit_ssl):
    def accuracy(*more):
        result = lit_ssl("validate", *DIGITS, "--config=eval/paws_nn.yaml", *more)
        assert result.code == 0, result.err
        text = "BatchNorm with the statistics of training images"
        assert (text in result.out) == bool(more)
        return next(line for line in result.out.splitlines() if "PAWS-NN, top-5" in line)

    assert accuracy() != accuracy("--trainer.callbacks.recalibrate_bn=true")


def test_digits_recipe_as_it_is(built, lit_ssl):
    result = lit_ssl("fit", *DIGITS, *ONE_STEP)
    assert result.code == 0, result.err
    assert "does not have many workers" not in result.err
    data = built("fit", *DIGITS).datamodule
    assert data.subset == Subset(per_class=5)
    assert data.mean == (0.1307,)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.subset.file=paws/cifar10_400"], "packaged list: paws/cifar10_4000_split152"),
        (["--data.classes_per_batch=11"], "labelled images of 10 classes"),
        (["--data.images_per_clas=3"], "Did you mean images_per_class?"),
        (["--model.num_classes=9"], "SemiSupervisedDataModule has 10 classes"),
        (["--model.backbone=wide_resnet28_3"], "there is no backbone 'wide_resnet28_3'"),
        (["--data=MNIST5kDataModule"], "SemiSupervisedDataModule"),
    ],
)
def test_wrong_entries_take_one_line(lit_ssl, words, message):
    if "cifar" in words[0]:
        words = ["--data.subset=null", *words]  # another kind of subset
    result = lit_ssl("fit", *DIGITS, *QUICK, *words)
    assert result.code == 2
    last = result.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last, last
