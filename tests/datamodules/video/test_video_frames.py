"""Frames of videos as images: which, whose, hold-outs, files that break, methods over them."""

from __future__ import annotations

import sys
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from lit_ssl import MSN, ImageClassifier
from lit_ssl.callbacks import KNNEvaluator
from lit_ssl.datamodules import (
    ImageDataModule,
    MNIST5kDataModule,
    MovingDigitsDataModule,
    VideoFolderDataModule,
    VideoFramesDataModule,
)
from lit_ssl.datamodules.video.video_frames import even_frames
from lit_ssl.models.backbones.wide_resnet import WideResNet
from lit_ssl.transforms import CropSpec, MultiCrop

sys.path.insert(0, str(Path(__file__).parents[2]))
from video_files import bar_number, bar_video


def digits(**kwargs):
    return MovingDigitsDataModule(**{"sizes": (12, 6, 6), **kwargs})


def frames(video=None, **kwargs):
    video = digits() if video is None else video
    return VideoFramesDataModule(
        video, **{"frames_per_video": 4, "batch_size": 8, "num_workers": 0, **kwargs}
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of videos of 12 and 3 frames."""
    root = tmp_path_factory.mktemp("videos")
    for split in ("train", "val"):
        for name in ("a", "b"):
            bar_video(root / split / name / "long.avi", 12, size=(32, 40))
            bar_video(root / split / name / "short.avi", 3, size=(32, 40))
    return root


def test_middles_of_equal_parts():
    assert even_frames(16, 4).tolist() == [2, 6, 10, 14]
    assert even_frames(7, 3).tolist() == [1, 3, 5]
    assert even_frames(5, 1).tolist() == [2]
    assert even_frames(3, 8).tolist() == [0, 1, 2]
    for count in range(1, 40):
        chosen = even_frames(37, count)
        assert len(np.unique(chosen)) == min(count, 37)
        assert 0 <= chosen[0] <= 36 - chosen[-1] + 1


def test_frames_have_the_pixels_labels_and_statistics_of_their_video():
    video, data = digits(), frames()
    assert isinstance(data, ImageDataModule)
    assert (data.mean, data.std, data.image_size) == (video.mean, video.std, 32)
    data.setup("fit")
    assert len(data.rows("train")) == 48
    assert data.labels("train").tolist() == np.repeat(video.labels("train"), 4).tolist()
    clip = video.rows("train").source.clips.read_clip(5, np.array([2, 6, 10, 14]))
    image, labels = next(iter(data.bank_dataloader(np.arange(20, 24))))
    assert np.array_equal(image.permute(0, 2, 3, 1).numpy(), clip)
    finished, _ = data.on_after_batch_transfer([image, labels], 0)
    assert finished.min() == -1


def test_hold_outs_and_subsets_count_videos_and_divide_none():
    data = frames(val_size=3)
    train, val = data.column("video", "train"), data.column("video", "val")
    assert len(np.unique(val)) == 3
    assert len(val) == 12
    assert not set(train) & set(val)
    assert not data.validates_on_test
    # hold-out and subset of the videos themselves are kept
    data = frames(digits(val_size=6))
    assert len(np.unique(data.column("video", "train"))) == 6
    assert len(data.labels("val")) == 24


def test_splits_stand_in_as_those_of_the_videos():
    data = frames(digits(sizes=(6, 0, 3)))
    assert len(data.labels("val")) == len(data.labels("test")) == 12
    assert data.validates_on_test
    data = frames(digits(sizes=(6, 3, 0)))
    assert len(data.labels("val")) == len(data.labels("test")) == 12
    assert not data.validates_on_test


def test_files_with_their_names_and_numbers(folder):
    video = VideoFolderDataModule(root=str(folder), num_frames=1, size=32)
    data = frames(video)
    data.setup("fit")
    names = [data.rows("train").name(row) for row in range(14)]
    assert [name.count("long") for name in names] == [1, 1, 1, 1, 0, 0, 0] * 2
    batches = list(data.bank_dataloader())
    found = [bar_number(image.permute(1, 2, 0).numpy()) for x, _ in batches for image in x]
    assert found == [1, 4, 7, 10, 0, 1, 2] * 2
    labels = torch.cat([labels for _, labels in batches])
    assert labels.tolist() == [0] * 7 + [1] * 7


def test_longer_clips_leave_out_short_videos_and_frames_fit_a_canvas(folder):
    video = VideoFolderDataModule(root=str(folder), num_frames=4, size=(32, 40))
    recipe = MultiCrop([CropSpec(size=8, count=2)])
    data = frames(video, augment="device", train_transform=recipe, canvas_size=20)
    data.setup("fit")
    assert len(data.labels("train")) == 8
    raw, _ = next(iter(data.train_dataloader()))
    assert raw.sizes.tolist() == [[16, 20]] * 8
    (views,), _ = data.on_after_batch_transfer([raw, torch.zeros(8)], 0)
    assert views.shape == (8, 2, 3, 8, 8)


def test_a_file_that_breaks_while_it_is_read(folder, tmp_path):
    bar_video(tmp_path / "a" / "good.avi", 6, size=(32, 40))
    path = tmp_path / "b" / "bad.avi"
    bar_video(path, 6, size=(32, 40))

    def data(on_corrupt):
        made = frames(
            VideoFolderDataModule(root=str(tmp_path), num_frames=1, size=32), on_corrupt=on_corrupt
        )
        made.setup("fit")
        return made

    skipping, strict = data("skip"), data("raise")
    content = path.read_bytes()
    path.write_bytes(content[:200])  # after it was counted
    with pytest.warns(UserWarning, match=r"bad\.avi"):
        labels = torch.cat([labels for _, labels in skipping.bank_dataloader()])
    assert labels.tolist() == [0] * 8
    assert skipping.num_corrupt == 4
    with pytest.raises(ValueError, match=r"bad\.avi"):
        list(strict.bank_dataloader())


def trainer(**kwargs):
    arguments = {
        "max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1,
    }  # fmt: skip
    return pl.Trainer(**{**arguments, **kwargs})


def test_methods_over_images_train_on_them():
    recipe = MultiCrop([CropSpec(size=16, count=2)])
    kwargs = {
        "img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 1, "num_heads": 2,
    }  # fmt: skip
    method = MSN(
        "vit_tiny_patch16_224", kwargs, num_prototypes=8, proj_hidden_dim=16, proj_output_dim=8,
        warmup_epochs=0,
    )  # fmt: skip
    data = frames(digits(size=16, num_frames=8, stride=2), train_transform=recipe)
    run = trainer(callbacks=[KNNEvaluator(k=3)])
    run.fit(method, datamodule=data)
    assert 0 <= run.logged_metrics["val/knn_acc1"] <= 1
    classifier = ImageClassifier(WideResNet(10, 1), num_classes=3, warmup_epochs=0)
    run = trainer(limit_train_batches=1)
    run.fit(classifier, datamodule=frames())
    assert "val/acc1" in run.logged_metrics


def test_wrong_options():
    with pytest.raises(ValueError, match="takes a data module of videos, not MNIST5kDataModule"):
        VideoFramesDataModule(MNIST5kDataModule())
    with pytest.raises(ValueError, match="frames_per_video must be at least 1, got 0"):
        frames(frames_per_video=0)


def test_videos_without_classes_have_no_labels():
    data = frames(digits(classes=(4,)))
    assert data.num_classes == 0
