"""Where clips come from: a cache in place of the files, several processes, the command line."""

from __future__ import annotations

import shutil
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from video_files import bar_number, bar_video

from lit_ssl.datamodules import (
    ArrayClips,
    Subset,
    UCF101DataModule,
    VideoDataModule,
    VideoFolderDataModule,
    VideoFramesDataModule,
)
from lit_ssl.datamodules.reading.walking import INDEX_FOLDER
from lit_ssl.errors import InputError
from lit_ssl.video.cache_writing import write_video_cache
from lit_ssl.video.clip_index import build_clip_index

OPTIONS = {"num_frames": 6, "size": 24, "num_workers": 0, "batch_size": 4, "seed": 2}


@pytest.fixture(scope="module")
def cache(ucf101, tmp_path_factory):
    """All videos of the fixture but one, with a shorter side of 24 pixels."""
    folder = tmp_path_factory.mktemp("cache")
    paths = sorted(p.relative_to(ucf101.videos).as_posix() for p in ucf101.videos.rglob("*.avi"))
    paths.remove("YoYo/v_YoYo_g09_c02.avi")
    write_video_cache(build_clip_index(ucf101.videos, paths), folder, 24, num_workers=1)
    return folder


def names_of(data, split):
    rows = data.rows(split)
    return [rows.source.name(row) for row in range(len(rows))]


def test_a_cache_stands_in_for_the_files(ucf101, cache, tmp_path):
    lists = {"annotation_dir": str(ucf101.annotations), "min_found_fraction": 0.9}
    root = shutil.copytree(
        ucf101.videos, tmp_path / "videos", ignore=shutil.ignore_patterns(INDEX_FOLDER)
    )
    (root / "YoYo/v_YoYo_g09_c02.avi").unlink()
    files = UCF101DataModule(root=str(root), **lists, **OPTIONS)
    cached = UCF101DataModule(root="not/there", cache=str(cache), **lists, **OPTIONS)
    for split in ("train", "test"):
        assert names_of(cached, split) == names_of(files, split)
        assert cached.labels(split).tolist() == files.labels(split).tolist()
    for loader in ("train_dataloader", "test_dataloader"):
        for (video, labels), (other, others) in zip(
            getattr(files, loader)(), getattr(cached, loader)(), strict=True
        ):
            assert torch.equal(video, other)
            assert torch.equal(labels, others)


def test_frames_of_a_larger_cache_are_shrunk(ucf101, cache):
    data = UCF101DataModule(
        root=str(ucf101.videos), cache=str(cache), min_found_fraction=0.9, **{**OPTIONS, "size": 16}
    )
    video, _ = next(iter(data.test_dataloader()))
    assert video.shape == (4, 6, 3, 16, 16)


def test_a_cache_without_a_video_or_with_small_frames(ucf101, cache, tmp_path):
    options = {"root": str(ucf101.videos), "cache": str(cache), **OPTIONS}
    with pytest.raises(
        InputError, match=rf"11 of the 12 videos .* are in {cache}; not there: YoYo"
    ):
        UCF101DataModule(**options).setup("fit")
    for size, needed in ((25, 25), ((24, 40), 30)):  # 24 x 32 pixels have to be 30 x 40
        with pytest.raises(
            InputError,
            match=rf"shorter side of 24 pixels, and size \d+ x \d+ needs {needed}: write",
        ):
            UCF101DataModule(**{**options, "size": size}, min_found_fraction=0.9).setup("fit")
    with pytest.raises(InputError, match="cache"):
        UCF101DataModule(**{**options, "cache": str(tmp_path)}).setup("fit")


def test_folders_of_a_cache(cache):
    data = VideoFolderDataModule(root="not/there", cache=str(cache), **OPTIONS)
    assert list(data.class_names) == ["ApplyEyeMakeup", "HandstandPushups", "YoYo"]
    assert data.labels("train").tolist() == [0] * 8 + [1] * 8 + [2] * 7
    wrong = VideoFolderDataModule(root="x", cache=str(cache), layout="splits", **OPTIONS)
    with pytest.raises(InputError, match=r"Found: the cache .* holds 23 videos: Apply.*Set cache"):
        wrong.setup()


def test_a_cache_that_is_older_than_its_folder(ucf101, cache, tmp_path):
    def warned(root):
        options = {"cache": str(cache), "min_found_fraction": 0.1, **OPTIONS}
        lists = {"annotation_dir": str(ucf101.annotations)}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            UCF101DataModule(root=str(root), **lists, **options).setup("fit")
            VideoFolderDataModule(root=str(root), cache=str(cache), **OPTIONS).setup("fit")
        said = [str(w.message) for w in caught if "cache" in str(w.message)]
        assert said[: len(said) // 2] == said[len(said) // 2 :]  # every data module says it
        return said[: len(said) // 2]

    root = shutil.copytree(ucf101.videos, tmp_path / "videos")
    (new,) = warned(root)
    assert new.startswith(f"1 of the 24 videos in {root} are not in the cache {cache} and are not")
    assert "(YoYo/v_YoYo_g09_c02.avi): run `lit-ssl video-cache` again" in new
    (root / "YoYo/v_YoYo_g09_c02.avi").unlink()
    assert warned(root) == []
    (root / "YoYo/v_YoYo_g09_c01.avi").rename(root / "YoYo/other.avi")
    new, gone = warned(root)
    assert "(YoYo/other.avi)" in new
    assert gone.startswith(f"1 videos of the cache {cache} are no longer in {root} and are used")
    assert "(YoYo/v_YoYo_g09_c01.avi): to leave them out, write a new cache" in gone
    assert warned(tmp_path / "not there") == []
    (tmp_path / "empty").mkdir()
    assert warned(tmp_path / "empty") == []


@pytest.fixture
def folder(tmp_path):
    for number in range(5):
        bar_video(tmp_path / f"{number}.mp4", 12, size=(24, 30))
    return tmp_path


def test_processes_share_out_videos_and_not_their_clips(folder, monkeypatch):
    seen = []
    for rank in (0, 1):
        data = VideoFolderDataModule(root=str(folder), clips_per_video=3, **OPTIONS)
        monkeypatch.setattr(data, "shard", lambda rank=rank: (2, rank))
        batches = [video for video, _ in data.predict_dataloader()]
        assert [len(video) for video in batches] == [3 * (3 - rank)]
        starts = [bar_number(clip[0].permute(1, 2, 0).numpy()) for clip in batches[0]]
        assert starts == [0, 3, 6] * (3 - rank)
        seen.append(len(batches[0]))
        _, rows = data.served("predict").__getitems__([1, 0])
        assert rows.tolist() == [1, 1, 1, 0, 0, 0]
    assert sum(seen) == 15


def test_one_process_finds_out_the_lengths_before_the_others(folder):
    data = VideoFolderDataModule(root=str(folder), **OPTIONS)
    for world_size, kept in ((1, False), (2, True)):
        state = SimpleNamespace(fn=SimpleNamespace(value="fit"))
        data.trainer = SimpleNamespace(world_size=world_size, state=state)
        data.prepare_data()
        assert (folder / INDEX_FOLDER).is_dir() == kept
    shutil.rmtree(folder / INDEX_FOLDER)
    frames = VideoFramesDataModule(VideoFolderDataModule(root=str(folder), **OPTIONS))
    frames.trainer = data.trainer
    frames.prepare_data()
    assert (folder / INDEX_FOLDER).is_dir()


def test_from_yaml(folder):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(VideoDataModule, "data")
    parser.add_argument("--config", action="config")
    text = f"""
data:
  class_path: lit_ssl.datamodules.VideoFolderDataModule
  init_args:
    root: {folder}
    size: [20, 26]
    num_frames: 3
    fps: 12.5
    subset: {{fraction: 0.6}}
    num_workers: 0
    batch_size: 3
"""
    config = parser.parse_args([f"--config={text}", "--data.stride=2"])
    data = parser.instantiate_classes(config).data
    assert data.resolution == (20, 26)
    assert data.subset == Subset(fraction=0.6)
    ((video, labels),) = data.train_dataloader()
    assert video.shape == (3, 3, 3, 20, 26)
    assert labels.tolist() == [0, 0, 0]


def test_videos_in_memory():
    videos = np.random.default_rng(0).integers(0, 256, (3, 5, 4, 6, 3)).astype(np.uint8)
    clips = ArrayClips(videos, fps=8.0).select(np.array([2, 0]))
    assert clips.frames.tolist() == [5, 5]
    assert clips.fps.tolist() == [8.0, 8.0]
    assert np.array_equal(clips.read_clip(1, np.array([4, 0, 0])), videos[0][[4, 0, 0]])
    with pytest.raises(InputError, match=r"must be uint8 \[N, T, H, W, 3\], got float64"):
        ArrayClips(videos / 255)
