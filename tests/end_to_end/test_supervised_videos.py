"""The recipes that classify videos and their frames, a step each from the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from video_files import write_ucf101

ONE_STEP = "--trainer.fast_dev_run=true"
SMALL = (
    "--model.backbone=resnet10t",
    "--model.backbone_kwargs={stem_width: 8, channels: [8, 8, 8, 8]}",
)


@pytest.fixture(scope="module")
def ucf101(tmp_path_factory):
    """A tiny UCF101: its folder of videos."""
    pytest.importorskip("av")
    return write_ucf101(tmp_path_factory.mktemp("ucf101"), frames=32).videos


def test_moving_digits_are_trained_resumed_tested_and_predicted(lit_ssl, tmp_path):
    words = [
        "--config", "video/moving_digits_supervised.yaml", *SMALL, "--data.sizes=[40, 20, 30]",
        "--data.batch_size=20", "--data.num_frames=2",
        "--trainer.check_val_every_n_epoch=1", "--trainer.max_epochs=2",
        "--trainer.log_every_n_steps=1",
    ]  # fmt: skip
    result = lit_ssl("fit", *words, "--data.clips_per_video=2")
    assert result.code == 0, result.err
    assert "results: val/acc1 " in result.out
    last = next(tmp_path.rglob("last.ckpt"))
    content = torch.load(last, weights_only=True)
    assert content["hyper_parameters"]["num_classes"] == 10
    result = lit_ssl("test", *words, "--data.clips_per_video=2", "--ckpt_path=last")
    assert result.code == 0, result.err
    result = lit_ssl("predict", *words, "--data.clips_per_video=2", "--ckpt_path=last")
    assert result.code == 0, result.err
    predicted = torch.load(next(tmp_path.rglob("predictions.pt")), weights_only=True)
    assert predicted.shape == (30, 10)  # one row per video
    rows = next(tmp_path.rglob("predictions.csv")).read_text().splitlines()
    assert [line.split(",")[2] for line in rows[1:11]] == [str(label) for label in range(10)]


def test_frames_of_moving_digits(lit_ssl, tmp_path):
    words = [
        "--config", "video/moving_digits_frames_msn.yaml", "--model.backbone_kwargs.depth=1",
        "--model.backbone_kwargs.embed_dim=16", "--model.proj_hidden_dim=32",
        "--data.video.init_args.sizes=[20, 20, 20]", "--data.batch_size=16",
        "--trainer.max_epochs=1", "--trainer.check_val_every_n_epoch=1",
    ]  # fmt: skip
    result = lit_ssl("fit", *words, "--model.warmup_epochs=0", "--trainer.log_every_n_steps=1")
    assert result.code == 0, result.err
    assert "val/knn_acc1 " in result.out
    content = torch.load(next(tmp_path.rglob("last.ckpt")), weights_only=True)
    video = content["datamodule_hyper_parameters"]["video"]
    assert video["class_path"].endswith("MovingDigitsDataModule")


def test_ucf101(lit_ssl, ucf101):
    words = [
        "--config", "video/ucf101_supervised.yaml", *SMALL, "--data.root", ucf101,
        "--data.val_size=3", "--data.size=32", "--data.batch_size=4", "--data.num_workers=0",
        "--trainer.precision=32-true", "--model.warmup_epochs=0", "--trainer.accelerator=cpu",
    ]  # fmt: skip
    result = lit_ssl("fit", *words, ONE_STEP)
    assert result.code == 0, result.err
    assert "val/acc1 " in result.out
    result = lit_ssl("test", *words, ONE_STEP)
    assert result.code == 0, result.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--model=ImageClassifier", "--data=MovingDigitsDataModule", "--data.num_frames=2"],
            "ImageClassifier trains on images, got tuple(Tensor[4, 2, 3, 32, 32], Tensor[4]): for",
        ),
        (
            ["--model=SupervisedVideo", "--data=MNIST5kDataModule"],
            "SupervisedVideo needs batches of clips",
        ),
        (
            ["--model=SupervisedVideo", "--data=MovingDigitsDataModule", "--data.classes=[3]"],
            "SupervisedVideo needs at least 2 classes, not num_classes=1",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(lit_ssl, words, message):
    more = [*SMALL, "--data.batch_size=4", "--model.warmup_epochs=0", "--trainer.accelerator=cpu"]
    result = lit_ssl("fit", *words, *more, ONE_STEP)
    assert result.code == 2
    assert message in result.err
    assert "Traceback" not in result.err
