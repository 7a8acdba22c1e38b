"""Videos are written as they are, or not at all."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_ssl.errors import InputError
from lit_ssl.video.writing import write_video

sys.path.insert(0, str(Path(__file__).parents[1]))
from video_files import bar_frames, bar_number

av = pytest.importorskip("av")


def smooth(frames, size):
    """uint8 [T, 3, H, W] that survives coding: slow waves."""
    t, y, x = np.meshgrid(*(np.arange(n) for n in (frames, *size)), indexing="ij")
    waves = [np.sin(t / 5 + y / 9 + c) + np.cos(x / 11 - c) for c in range(3)]
    return (127 + 60 * np.stack(waves, axis=1)).astype(np.uint8)


def decoded(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        rate = (len(frames) - 1) / (frames[-1].time - frames[0].time or 1)
        return np.stack([f.to_ndarray(format="rgb24") for f in frames]), rate, stream


@pytest.mark.parametrize("name", ["a.mp4", "new/folder/a.mov", "a.mkv", "a.AVI"])
@pytest.mark.parametrize("fps", [8.0, 30000 / 1001])
def test_what_is_written_is_read_back(tmp_path, name, fps):
    video = smooth(9, (32, 48))
    path = write_video(tmp_path / name, torch.from_numpy(video), fps)
    frames, rate, stream = decoded(path)
    assert frames.shape == (9, 32, 48, 3)
    difference = frames.transpose(0, 3, 1, 2).astype(int) - video
    assert np.abs(difference).mean() < 3.5  # colours are coarser than pixels
    assert abs(difference.mean()) < 2
    assert rate == pytest.approx(fps, rel=2e-3)
    assert stream.codec.name == ("mpeg4" if name == "a.AVI" else "h264")
    assert stream.codec_context.pix_fmt == "yuv420p"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("size", [(17, 31), (16, 3), (1, 1), (33, 32)])
@pytest.mark.parametrize("name", ["a.mp4", "a.avi"])
def test_odd_sizes_repeat_the_last_row_or_column(tmp_path, size, name):
    video = smooth(3, size)
    frames, _, _ = decoded(write_video(tmp_path / name, video))
    height, width = size
    assert frames.shape == (3, height + height % 2, width + width % 2, 3)
    difference = frames[:, :height, :width].transpose(0, 3, 1, 2).astype(int) - video
    assert np.abs(difference).mean() < 4


def test_frames_keep_their_order(tmp_path):
    video = bar_frames(70).transpose(0, 3, 1, 2)
    frames, _, _ = decoded(write_video(tmp_path / "a.mp4", video, fps=60))
    assert [bar_number(frame) for frame in frames] == list(range(70))


@pytest.mark.parametrize(
    ("name", "video", "options", "message"),
    [
        ("a.mp4", np.zeros((2, 3, 8, 8), np.float32), {}, "must be uint8, 0 to 255, not float32"),
        ("a.mp4", torch.zeros(2, 3, 8, 8), {}, "must be uint8, 0 to 255, not torch.float32"),
        ("a.mp4", [[1]], {}, "must be uint8, 0 to 255, not list"),
        ("a.mp4", (2, 8, 8, 3), {}, r"not \[2, 8, 8, 3\]; permute\(0, 3, 1, 2\) first"),
        ("a.mp4", (2, 1, 8, 8), {}, r"must be \[T, 3, H, W\], not \[2, 1, 8, 8\]"),
        ("a.mp4", (3, 8, 8), {}, r"must be \[T, 3, H, W\]"),
        ("a.mp4", (0, 3, 8, 8), {}, r"not \[0, 3, 8, 8\]"),
        ("a.gif", (2, 3, 8, 8), {}, "must end in .mp4, .mov, .mkv, .avi"),
        ("a.mp4", (2, 3, 8, 8), {"fps": 0}, "fps must lie between 0.01 and 1000, not 0"),
        ("a.mp4", (2, 3, 8, 8), {"fps": float("nan")}, "fps must lie between"),
        ("a.mp4", (2, 3, 8, 8), {"codec": "libx246"}, "called libx246. Did you mean libx264?"),
        ("a.mp4", (2, 3, 8, 8), {"codec": "aac"}, "no encoder of videos called aac"),
        ("a.mp4", (2, 3, 8, 8), {"codec": "libx264rgb"}, "choose another codec"),
        ("a.mp4", (2, 3, 8, 8), {"codec": "dvvideo"}, "choose another codec"),
        (".", (2, 3, 8, 8), {}, "must end in"),
        ("folder.mp4", (2, 3, 8, 8), {}, "is a folder"),
        ("there.mp4", (2, 3, 8, 8), {}, "is there already: give another path"),
    ],
)
def test_mistakes(tmp_path, name, video, options, message):
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "there.mp4").write_text("mine")
    video = np.zeros(video, np.uint8) if isinstance(video, tuple) else video
    with pytest.raises(InputError, match=message):
        write_video(tmp_path / name, video, **options)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder.mp4", "there.mp4"]
    assert (tmp_path / "there.mp4").read_text() == "mine"


def test_a_file_is_replaced_when_asked(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, smooth(3, (16, 16)))
    write_video(path, smooth(5, (16, 16)), overwrite=True)
    assert len(decoded(path)[0]) == 5
    with pytest.raises(InputError, match="choose another codec"):
        write_video(path, smooth(3, (16, 16)), codec="dvvideo", overwrite=True)
    assert len(decoded(path)[0]) == 5


def test_without_x264_it_says_what_it_takes(tmp_path, monkeypatch):
    from av.codec import Codec
    from av.codec.codec import UnknownCodecError

    def without(name, mode):
        if name == "libx264":
            raise UnknownCodecError(name)
        return Codec(name, mode)

    monkeypatch.setattr("av.codec.Codec", without)
    with pytest.warns(UserWarning, match="no libx264: videos are written with mpeg4"):
        path = write_video(tmp_path / "a.mp4", smooth(3, (16, 16)))
    assert decoded(path)[2].codec.name == "mpeg4"
