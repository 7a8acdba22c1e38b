"""The videos that other tests read are what they say."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from video_files import UCF101_CLASSES, bar_frames, bar_number, bar_video, truncated, write_ucf101

av = pytest.importorskip("av")


def decoded(path):
    with av.open(str(path)) as container:
        frames = [
            (f.time, f.pict_type, f.to_ndarray(format="rgb24")) for f in container.decode(video=0)
        ]
    return zip(*frames, strict=True)


@pytest.mark.parametrize("size", [(48, 64), (16, 22), (97, 131)])
def test_frames_have_numbers(size):
    frames = bar_frames(1024, size)
    assert frames.shape == (1024, *size, 3)
    assert [bar_number(frame) for frame in frames[::11]] == list(range(0, 1024, 11))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.avi", {}),
        ("a.mp4", {"codec": "libx264", "bframes": 3, "gop": 250}),
        ("a.mkv", {"codec": "libx264", "variable": True}),
        ("new/a.mp4", {"variable": True, "bframes": 2, "fps": 29.97}),
        ("a.mov", {"size": (36, 50)}),
    ],
)
def test_numbers_are_read_back_after_coding(tmp_path, name, options):
    times, kinds, frames = decoded(bar_video(tmp_path / name, 30, **options))
    assert [bar_number(frame) for frame in frames] == list(range(30))
    assert frames[0].shape == (*options.get("size", (48, 64)), 3)
    fps = options.get("fps", 25)
    gaps = [1.5, 0.5] if options.get("variable") else [1]
    wanted = np.cumsum([0, *np.resize(gaps, 29)]) / fps
    assert np.asarray(times) - times[0] == pytest.approx(wanted, abs=2e-3)
    assert (av.video.frame.PictureType.B in kinds) == bool(options.get("bframes"))
    left, right = frames[3][-3, 3], frames[3][-3, -3]
    assert left[0] > 150 > left[2]
    assert right[2] > 150 > right[0]


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_turned_videos_say_so(tmp_path, rotation):
    path = bar_video(tmp_path / "a.mp4", 5, codec="libx264", rotation=rotation)
    with av.open(str(path)) as container:
        frame = list(container.decode(video=0))[3]
    stored = frame.to_ndarray(format="rgb24")
    assert stored.shape == ((64, 48, 3) if rotation != 180 else (48, 64, 3))
    assert frame.rotation % 360 == -rotation % 360  # FFmpeg counts the other way round
    upright = np.rot90(stored, -rotation // 90)
    assert bar_number(upright) == 3
    assert upright[-3, 3, 0] > 150


def test_cut_files(tmp_path):
    path = truncated(bar_video(tmp_path / "a.mp4", 30))
    with pytest.raises(av.error.InvalidDataError):
        av.open(str(path))
    _, _, frames = decoded(truncated(bar_video(tmp_path / "a.avi", 150)))
    assert 20 < len(frames) < 130


def test_ucf101(tmp_path):
    found = write_ucf101(tmp_path)
    files = sorted(found.videos.glob("*/*.avi"))
    assert len(files) == 24
    assert sum(file.stat().st_size for file in files) < 300_000
    assert {file.parent.name for file in files} == set(UCF101_CLASSES)
    train = (found.annotations / "trainlist01.txt").read_text().split("\n")
    assert len(train) == 13
    assert train[0] == "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1"
    for file in files[::7]:
        _, _, frames = decoded(file)
        assert [bar_number(frame) for frame in frames] == list(range(24))
        colour = frames[5][24:].reshape(-1, 3).astype(int)
        assert colour[colour.max(axis=1).argmax()].argmax() == UCF101_CLASSES[file.parent.name] - 1
