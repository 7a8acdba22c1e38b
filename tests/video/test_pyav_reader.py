"""The frames that come are those that were asked for, whatever the file is like."""

from __future__ import annotations

import os
import pickle
import resource
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
pytest.importorskip("av")
import av
from odd_videos import copied, damaged, hidden_start, open_gop, packed
from video_files import bar_frames, bar_number, bar_video, encode, truncated

from lit_ssl.errors import InputError, InputImportError
from lit_ssl.video.frames import UnreadableVideo
from lit_ssl.video.probe import VideoFacts, probe_video
from lit_ssl.video.pyav_reader import PyAVReader

FRAMES = 40
X264 = {"codec": "libx264", "bframes": 2}
MPEG2 = {"codec": "mpeg2video", "bframes": 2}  # with open groups
FILES = {
    "plain.avi": {},
    "bframes.avi": {"bframes": 2},
    "untimed.avi": X264,
    "bframes.mp4": X264,
    "long_group.mp4": {**X264, "gop": 250},
    "variable.mp4": {**X264, "variable": True},
    "turned_90.mp4": {"rotation": 90},
    "turned_180.mov": {"rotation": 180},
    "turned_270.mp4": {"rotation": 270},
    "plain.webm": {"codec": "libvpx"},
    "bframes.mkv": X264,
    "no_index.ts": X264,
    "no_index.mpg": MPEG2,
    "open.ts": MPEG2,
    "no_times.h264": X264,
}


def numbers(frames):
    return [bar_number(frame) for frame in frames]


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """Folder of FILES and of odd ones; number n is shown as frame n."""
    root = tmp_path_factory.mktemp("videos")
    for name, options in FILES.items():
        bar_video(root / name, FRAMES, **options)
    open_gop(root / "open.mp4", FRAMES)
    packed(root / "packed.avi", FRAMES)
    copied(root / "open.mp4", root / "late.mp4", later=12800 * 7)
    copied(root / "open.mp4", root / "late.mkv", later=12800 * 7)
    return root


ALL = [*FILES, "open.mp4", "late.mp4", "late.mkv", "packed.avi"]


@pytest.mark.parametrize("name", ALL)
def test_every_frame_is_the_one_that_was_asked_for(videos, name):
    reader = PyAVReader()
    path = videos / name
    assert numbers(reader.read(path, np.arange(FRAMES))) == list(range(FRAMES))
    for wanted in ([0], [39], [12], [11, 12, 13], [23, 26, 29], [38, 3, 3, 17], [14]):
        assert numbers(reader.read(path, np.array(wanted))) == wanted


@pytest.mark.parametrize("name", ALL)
def test_facts_are_those_of_all_frames(videos, name):
    facts = probe_video(videos / name)
    assert facts == VideoFacts(FRAMES, facts.fps, width=64, height=48)
    assert facts.fps == pytest.approx(25, rel=0.02)


@pytest.mark.parametrize("name", ["plain.avi", "turned_90.mp4", "turned_180.mov", "turned_270.mp4"])
def test_frames_are_upright_and_of_the_size_asked_for(videos, name):
    expected = bar_frames(8)[[7]].astype(int)
    frames = PyAVReader().read(videos / name, np.array([7]))
    assert frames.dtype == np.uint8
    assert np.abs(frames - expected).mean() < 12
    small = PyAVReader().read(videos / name, np.array([7, 30]), shorter=24)
    assert small.shape == (2, 24, 32, 3)
    assert numbers(small) == [7, 30]


def test_odd_sizes_and_longer_sides_are_rounded_down(tmp_path):
    path = bar_video(tmp_path / "odd.avi", 3, size=(50, 66))
    assert PyAVReader().read(path, np.array([2]), shorter=33).shape == (1, 33, 43, 3)
    assert PyAVReader().read(path, np.array([2]), shorter=100).shape == (1, 100, 132, 3)
    tall = bar_video(tmp_path / "tall.avi", 3, size=(66, 50))
    assert PyAVReader().read(tall, np.array([2]), shorter=33).shape == (1, 43, 33, 3)


def test_frames_that_an_edit_list_hides_are_not_counted(tmp_path):
    path = hidden_start(tmp_path / "hidden.mp4")
    assert probe_video(path).frames == 43
    assert numbers(PyAVReader().read(path, np.array([0, 1, 20, 42]))) == [5, 6, 25, 47]


def test_frames_before_the_first_keyframe_are_not_counted(videos, tmp_path):
    """A recording that starts within a group, open as most are in broadcasts."""
    whole = list(range(FRAMES))
    for source, name in (
        ("open.mp4", "cut.mkv"),
        ("bframes.mp4", "cut.mkv"),
        ("open.ts", "cut.ts"),
    ):
        path = copied(videos / source, tmp_path / name, first=4)
        facts = probe_video(path)
        found = numbers(PyAVReader().read(path, np.arange(facts.frames)))
        assert found == whole[-len(found) :]
        assert 24 <= len(found) <= 28
        assert numbers(PyAVReader().read(path, np.array([14]))) == [found[14]]


@pytest.mark.parametrize("name", ["plain.avi", "bframes.avi", "late.mkv", "no_index.ts", "x.webm"])
def test_of_a_file_that_is_cut_short_what_is_there_can_be_read(videos, tmp_path, name):
    path = tmp_path / name
    source = videos / name if (videos / name).exists() else videos / "plain.webm"
    path.write_bytes(source.read_bytes())
    truncated(path, 0.8)
    count = probe_video(path).frames
    assert 5 < count < FRAMES
    found = numbers(PyAVReader().read(path, np.arange(count)))
    assert found[: count - 3] == list(range(count - 3))  # B-frames behind the last may be lost
    with pytest.raises(UnreadableVideo, match=f"it has {count} frames, and frame {count} was"):
        PyAVReader().read(path, np.array([count]))


@pytest.mark.parametrize(("name", "codec"), [("x.mp4", "libx264"), ("x.avi", "mpeg4")])
def test_damaged_frames_are_never_returned(tmp_path, name, codec):
    noise = np.random.default_rng(1).integers(0, 60, (30, 96, 128, 3)).astype(np.uint8)
    path = encode(tmp_path / name, bar_frames(30, (96, 128)) // 2 + noise, codec=codec, gop=10)
    before, after = (PyAVReader().read(path, np.arange(*ends)) for ends in ((0, 10), (20, 30)))
    damaged(path, 14)
    np.testing.assert_array_equal(PyAVReader().read(path, np.arange(0, 10)), before)
    np.testing.assert_array_equal(PyAVReader().read(path, np.arange(20, 30)), after)
    for wanted in ([14], [15], [15, 12], np.arange(30)):
        with pytest.raises(UnreadableVideo):
            PyAVReader().read(path, np.array(wanted))


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n"


def sound_only(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("name", "write", "why"),
    [
        ("missing.mp4", lambda path: None, "no such file"),
        ("empty.mp4", lambda path: path.touch(), "invalid data"),
        ("text.avi", lambda path: path.write_text("no video"), "invalid data"),
        ("cut.mp4", lambda path: truncated(bar_video(path, 20)), "ends too early|invalid data"),
        ("sound.mkv", sound_only, "no video"),
        ("list.m3u8", lambda path: path.write_text(PLAYLIST), "no format that is known"),
    ],
)
def test_what_is_no_video_is_unreadable(tmp_path, name, write, why):
    path = tmp_path / name
    write(path)
    with pytest.raises(UnreadableVideo, match=f"{name} cannot be read: .*({why})") as caught:
        PyAVReader().read(path, np.array([0]))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert probe_video(path) == VideoFacts(0, 0.0, 0, 0)


def test_names_are_taken_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["http:x.avi", "a b#%20.avi", "ü.avi", os.fsdecode(b"\xff.avi")]
    for name in names:
        bar_video(tmp_path / "x.avi", 3).rename(tmp_path / name)
        assert numbers(PyAVReader().read(name, np.array([1]))) == [1]


@pytest.mark.parametrize(
    ("frames", "shorter", "why"),
    [([], None, "one or more"), ([[1]], None, "one or more"), ([0.5], None, "one or more"),
     ([-1], None, "numbered from 0"), ([0], 0, "at least 1 pixel")],
)  # fmt: skip
def test_wrong_numbers_are_refused(videos, frames, shorter, why):
    with pytest.raises(InputError, match=why):
        PyAVReader().read(videos / "plain.avi", np.array(frames), shorter)


def test_without_pyav_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputImportError, match=r"pip install 'lit-ssl\[video\]'"):
        PyAVReader()
    with pytest.raises(InputImportError, match="PyAV"):
        probe_video("x.avi")


def test_files_are_closed(videos, tmp_path):
    reader = pickle.loads(pickle.dumps(PyAVReader()))
    broken = truncated(bar_video(tmp_path / "cut.mp4", 20))

    def open_files():
        return len(os.listdir("/proc/self/fd"))

    before = open_files()
    for _ in range(250):
        reader.read(videos / "plain.avi", np.array([1]), shorter=8)
        with pytest.raises(UnreadableVideo):
            reader.read(broken, np.array([1]))
    assert open_files() <= before


@pytest.mark.slow
def test_memory_stays_flat(videos):
    reader = PyAVReader()

    def read(times):
        for _ in range(times):
            for name in ("bframes.mp4", "no_index.ts", "turned_90.mp4"):
                reader.read(videos / name, np.array([13, 20]))
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    read(50)
    before = read(100)
    assert read(500) - before < 3000  # kB
