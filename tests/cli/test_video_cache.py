"""`lit-ssl video-cache`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from lit_ssl.video import VideoCache

sys.path.insert(0, str(Path(__file__).parents[1]))
from store_servers import closed_port, web_server
from video_files import bar_number, bar_video, truncated

pytest.importorskip("av")


@pytest.fixture
def videos(workdir):
    bar_video(workdir / "videos/x/a b.avi", 9)
    bar_video(workdir / "videos/x/c.MP4", 5)
    truncated(bar_video(workdir / "videos/d.mov", 5))
    (workdir / "videos/.hidden.mp4").write_bytes(b"")
    (workdir / "videos/notes.txt").write_text("none\n")
    return workdir / "videos"


def test_a_folder_once_and_again(lit_ssl, videos, workdir):
    words = ["video-cache", "videos", "out", "--shorter", 32, "--num-workers", 1]
    result = lit_ssl(*words)
    assert (result.code, result.out.splitlines()[0]) == (
        0, "3 videos: 32 pixels at the shorter side, raw, by PyAVReader",
    )  # fmt: skip
    assert "3 to decode, 56.45 kB; " in result.out
    assert "wrote out: 2 videos, 14 frames, 56.45 kB\n" in result.out
    assert "1 videos could not be decoded: d.mov; out/unreadable.txt says why" in result.out
    assert result.err == "3 of 3 videos, 1 unreadable, 56.45 kB, 0:00 left\n"
    cache = VideoCache("out")
    assert cache.names == ("d.mov", "x/a b.avi", "x/c.MP4")
    assert bar_number(cache.read(1, np.array([8]))[0]) == 8
    result = lit_ssl(*words)
    assert result.code == 0
    assert "2 of them are there already\n1 to decode, 0.00 kB" in result.out


def test_a_list_in_jpeg(lit_ssl, videos, workdir):
    (workdir / "list.txt").write_text("x/a b.avi\nx/c.MP4 7\n\nx/gone.avi 1\nx/c.MP4\n")
    result = lit_ssl("video-cache", "videos", "out", "--shorter", "32", "--list", "list.txt",
                     "--format", "jpeg", "--num-workers", 1)  # fmt: skip
    assert result.code == 0
    assert result.out.startswith("1 of 3 listed videos are not there: x/gone.avi 1\n2 videos: ")
    assert "2 to decode, about " in result.out
    assert VideoCache("out").names == ("x/a b.avi", "x/c.MP4")


def test_a_copy_behind_a_url_is_trained_on(lit_ssl, workdir):
    for name in ("a/1.mp4", "a/2.mp4", "b/1.mp4", "b/2.mp4"):
        bar_video(workdir / "two" / name, 6)
    lit_ssl("video-cache", "two", "out", "--shorter", 24, "--num-workers", 1)
    words = ["fit", "--config", "video/moving_digits_supervised", "--data", "VideoFolderDataModule",
             "--data.root", "none", "--data.size", 24, "--data.num_frames", 4, "--data.stride", 1,
             "--data.num_workers", 0, "--data.cache_dir", "kept",
             "--trainer.fast_dev_run", 1]  # fmt: skip
    with web_server(workdir / "out") as (url, asked):
        result = lit_ssl(*words, "--data.cache", url, "--data.cache_size", "2GB")
        assert result.code == 0, result.err
        assert ("/frames-00000.u8", None) in asked
    result = lit_ssl(*words, "--data.cache", f"http://127.0.0.1:{closed_port()}/none")
    assert result.code == 2
    assert "/none/shards.json (" in result.err.splitlines()[-1]


def test_mistakes_are_one_line(lit_ssl, videos, workdir):
    (workdir / "empty").mkdir()
    (workdir / "list.txt").write_text("other/a.avi 3\n")
    base = ["video-cache", "videos", "out"]
    for words, message in (
        (["video-cache", "videos", "out"], "are required: --shorter"),
        (["video-cache", "empty", "out", "--shorter", 8], "no videos (.3gp, .avi, "),
        (["video-cache", "nowhere", "out", "--shorter", 8], "in nowhere: nowhere does not exist"),
        ([*base, "--shorter", 8, "--list", "no.txt"], "no list of videos at no.txt"),
        ([*base, "--shorter", 8, "--list", "list.txt"], "none of the 1 videos of list.txt (other/"),
        ([*base, "--shorter", 8, "--quality", 5], "quality 5 is for format jpeg: leave it out"),
        ([*base, "--shorter", 0], "shorter must be at least 1 pixel (and at most 65,535), not 0"),
        ([*base, "--shorter", 8, "--num-workers", 0], "num_workers must be at least 1"),
        (["video-cache", "videos", ".", "--shorter", 8], "needs a new or empty folder: . holds"),
    ):
        result = lit_ssl(*words)
        assert (result.code, result.err.count("\n")) == (2, 1), result.err
        assert message in result.err
    assert not (workdir / "out").exists()


def test_an_interrupt_says_how_it_goes_on(lit_ssl, videos, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("lit_ssl.video.cache_writing.cache_videos", interrupted)
    result = lit_ssl("video-cache", "videos", "out", "--shorter", "8")
    assert (result.code, result.err) == (130, "\nstopped: the same command goes on\n")
