"""Caches of decoded videos: what the reader gives, once, also after a kill."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lit_ssl.errors import InputError
from lit_ssl.video.cache import VideoCache
from lit_ssl.video.cache_writing import write_video_cache
from lit_ssl.video.clip_index import build_clip_index
from lit_ssl.video.readers import open_reader

sys.path.insert(0, str(Path(__file__).parents[1]))
from video_files import bar_number, bar_video, truncated

pytest.importorskip("av")

NAMES = ("a/one.avi", "a/two.mp4", "a/broken.mp4", "b/short.mkv", "turned.mp4")


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """A folder of videos of different lengths, sizes and containers, one of them broken."""
    root = tmp_path_factory.mktemp("videos")
    bar_video(root / "a/one.avi", 40)
    bar_video(root / "a/two.mp4", 25, fps=29.97, codec="libx264", bframes=2, size=(60, 50))
    truncated(bar_video(root / "a/broken.mp4", 30))
    bar_video(root / "b/short.mkv", 1, fps=10, codec="libx264", size=(48, 130))
    bar_video(root / "turned.mp4", 12, codec="libx264", rotation=90)
    return root


@pytest.fixture(scope="session")
def index(videos):
    with pytest.warns(UserWarning, match="1 of 5 videos"):
        return build_clip_index(videos, NAMES, num_workers=1)


@pytest.fixture(scope="session")
def raw(index, tmp_path_factory):
    out = tmp_path_factory.mktemp("caches") / "raw"
    report = write_video_cache(index, out, 24, num_workers=1)
    assert (report.kept, report.added, report.frames) == (0, 4, 78)
    assert list(report.unreadable) == ["a/broken.mp4"]
    return out


def shards(folder):
    return {path.name: path.stat().st_size for path in folder.glob("frames-*")}


def test_frames_are_those_of_the_reader(raw, index):
    cache, reader = VideoCache(raw), open_reader()
    assert cache.names == NAMES
    assert (cache.size, len(cache)) == (24, 5)
    for row in (0, 1, 3, 4):
        last = int(index.frames[row]) - 1
        frames = np.array([last, 0, last // 2, 0])
        found = cache.read(row, frames)
        wanted = reader.read(index.root / NAMES[row], frames, 24)
        assert found.dtype == np.uint8
        assert (found == wanted).all()
        assert [bar_number(frame) for frame in found] == frames.tolist()


def test_it_says_what_it_holds(raw, index):
    cache = VideoCache(raw)
    facts = cache.index()
    assert facts.frames.tolist() == [40, 25, 0, 1, 12]
    assert (facts.fps[[0, 1, 3]] == index.fps[[0, 1, 3]]).all()
    assert facts.width.tolist() == [32, 24, 0, 65, 32]
    assert facts.height.tolist() == [24, 28, 0, 24, 24]
    assert str(cache) == (
        "4 videos with 78 frames, 24 pixels at the shorter side, raw, by PyAVReader, 174.89 kB, 1"
        " more could not be decoded"
    )
    assert (raw / "unreadable.txt").read_text().startswith("a/broken.mp4\t")
    size = 3 * (40 * 24 * 32 + 25 * 28 * 24 + 24 * 65 + 12 * 24 * 32)
    assert shards(raw)["frames-00000.u8"] == size


def test_workers_get_a_small_copy(raw):
    cache = VideoCache(raw)
    before = cache.read(0, np.arange(3))
    content = pickle.dumps(cache)
    assert len(content) < 4000
    assert (pickle.loads(content).read(0, np.arange(3)) == before).all()


def test_pictures_in_jpeg_are_close(raw, index, tmp_path):
    out = tmp_path / "new" / "jpeg"
    write_video_cache(index, out, 24, format="jpeg", num_workers=1)
    cache, exact = VideoCache(out), VideoCache(raw)
    for row in (0, 1, 3, 4):
        frames = np.arange(exact.index().frames[row])[::-1]
        found, wanted = cache.read(row, frames), exact.read(row, frames)
        assert found.shape == wanted.shape
        assert np.abs(found.astype(int) - wanted).mean() < 3
        assert [bar_number(frame) for frame in found] == frames.tolist()
    assert "jpeg of quality 95" in str(cache)
    with pytest.raises(InputError, match=r"is a cache of 24 .* quality 95, .* of quality 50"):
        write_video_cache(index, out, 24, format="jpeg", quality=50)


def test_a_second_call_decodes_nothing_and_more_videos_may_come(index, videos, tmp_path):
    out = tmp_path / "cache"
    good = index.select(np.array([0, 1]))
    write_video_cache(good, out, 16, num_workers=1)
    before = shards(out)
    report = write_video_cache(good, out, 16, num_workers=1)
    assert (report.kept, report.added) == (2, 0)
    assert shards(out) == before
    report = write_video_cache(index.select(np.array([4, 2, 1])), out, 16, num_workers=1)
    assert (report.kept, report.added, len(report.unreadable)) == (1, 1, 1)
    write_video_cache(index.select(np.array([3])), out, 16, num_workers=1)
    cache = VideoCache(out)
    assert cache.names == ("b/short.mkv", "a/broken.mp4", "a/one.avi", "a/two.mp4", "turned.mp4")
    for row in (0, 2, 3, 4):
        last = cache.index().frames[row] - 1
        assert bar_number(cache.read(row, np.array([last]))[0]) == last
    assert {name: size for name, size in shards(out).items() if name in before} == before


def test_a_changed_video_is_decoded_again(tmp_path):
    for name in ("a.avi", "b.avi"):
        bar_video(tmp_path / "videos" / name, 10)
    for frames, kept in ((10, 0), (9, 1)):
        bar_video(tmp_path / "videos" / "a.avi", frames)
        index = build_clip_index(tmp_path / "videos", ["a.avi", "b.avi"])
        report = write_video_cache(index, tmp_path / "cache", 16, num_workers=1)
        assert (report.kept, report.added) == (kept, 2 - kept)
    assert VideoCache(tmp_path / "cache").index().frames.tolist() == [9, 10]


@pytest.mark.distributed
def test_several_processes_and_a_kill(videos, tmp_path):
    """Killed in the middle; the second run decodes only what was not finished."""
    many = tmp_path / "many"
    many.mkdir()
    for number in range(40):
        os.link(videos / "a/one.avi", many / f"{number:02}.avi")
    out = tmp_path / "cache"
    words = [sys.executable, "-m", "lit_ssl", "video-cache", str(many), str(out), "--shorter", "48",
             "--num-workers", "2"]  # fmt: skip
    environment = changed_reader(tmp_path / "slow", SLOW)
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while finished(out) < 8 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.stderr.read()  # ends when those that it had started have ended, too
    before = finished(out)
    assert 8 <= before < 40
    with pytest.raises(InputError, match=f"not complete, {before} videos are done: run the same"):
        VideoCache(out)
    with (out / "frames-00000.u8").open("ab") as file:  # of the video that was being written
        file.write(b"rest")
    with (out / "frames-00000.jsonl").open("a") as file:
        file.write('["half a li')
    report = write_video_cache(build_clip_index(many, sorted(os.listdir(many))), out, 48,
                               num_workers=2)  # fmt: skip
    assert (report.kept, report.added) == (before, 40 - before)
    entries = [line for path in out.glob("*.jsonl") for line in path.read_text().split("\n")[:-1]]
    names = [json.loads(line)[0] for line in entries]
    assert sorted(names) == sorted(os.listdir(many))
    cache = VideoCache(out)
    first = cache.read(0, np.arange(40))
    assert [bar_number(frame) for frame in first] == list(range(40))
    assert all((cache.read(row, np.arange(40)) == first).all() for row in range(40))
    assert len(shards(out)) >= 6


SLOW = "time.sleep(0.05)"
ENDS = "path.endswith('two.mp4') and os.kill(os.getpid(), signal.SIGSEGV)"


def changed_reader(folder, code):
    """The environment in which PyAVReader runs a line of code before it reads a video."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import os, signal, time\n"
        "from lit_ssl.video.pyav_reader import PyAVReader\n"
        "read = PyAVReader.read\n"
        "def read_after(self, path, *args):\n"
        f"    {code}\n"
        "    return read(self, path, *args)\n"
        "PyAVReader.read = read_after\n"
    )
    return {**os.environ, "PYTHONPATH": str(folder)}


def finished(folder):
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("frames-*.jsonl"))


def test_a_video_that_brings_its_process_down_is_listed(videos, tmp_path, monkeypatch):
    changed_reader(tmp_path / "user", ENDS)
    monkeypatch.syspath_prepend(tmp_path / "user")  # of the processes, not of this one
    names = ["a/one.avi", "a/two.mp4", "b/short.mkv", "turned.mp4"]
    index = build_clip_index(videos, names, num_workers=1)
    report = write_video_cache(index, tmp_path / "cache", 16, num_workers=2)
    assert report.unreadable == {"a/two.mp4": "its decoder ended the process with status -11"}
    assert VideoCache(tmp_path / "cache").index().frames.tolist() == [40, 0, 1, 12]


def test_folders_and_values_that_will_not_do(raw, index, tmp_path, monkeypatch):
    for options, message in (
        ({"shorter": 32}, "is a cache of 24 pixels .*, raw, .* and this would be one of 32 pixels"),
        ({"shorter": 24, "format": "jpeg"}, "would be one of 24 pixels .*, jpeg of quality 95"),
        ({"shorter": 24, "format": "png"}, "format must be 'raw' or 'jpeg', not 'png'"),
        ({"shorter": 0}, "shorter must be at least 1 pixel"),
        ({"shorter": 24, "quality": 90}, "quality 90 is for format jpeg"),
        ({"shorter": 24, "format": "jpeg", "quality": 0}, "quality must lie between 1 and 100"),
        ({"shorter": 24, "reader": "opencv"}, "reader must be"),
        ({"shorter": 24, "num_workers": 0}, "num_workers must be at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            write_video_cache(index, raw, **options)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"needs a new or empty folder: .* holds mine.txt"):
        write_video_cache(index, tmp_path, 16)
    with pytest.raises(InputError, match=r"new or empty folder: .*mine.txt is not a folder"):
        write_video_cache(index, tmp_path / "mine.txt", 16)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(InputError, match=r"none of 1 videos can be decoded; a/broken.mp4: "):
        write_video_cache(index.select(np.array([2])), tmp_path / "none", 16)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("", (), {"free": 10_000}))
    with pytest.raises(
        InputError, match=r"needs 174.89 kB more, .* make room, or take format jpeg"
    ):
        write_video_cache(index, tmp_path / "full", 24)
    assert shards(tmp_path / "full") == {}


def test_a_disk_that_gets_full(index, tmp_path, monkeypatch):
    def full(self, frames):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lit_ssl.video.cache_shards.Shard.add", full)
    with pytest.raises(InputError, match=r"the disk of .* is full: make room, then the same"):
        write_video_cache(index, tmp_path / "full", 24, num_workers=1)


def copy_of(folder, to):
    to.mkdir(parents=True)
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def test_damaged_caches(raw, tmp_path):
    def damaged(name, change):
        folder = copy_of(raw, tmp_path / str(len(list(tmp_path.iterdir()))))
        path = folder / name
        change(path)
        return folder

    def cut(path):
        truncated(path)

    for name, change, message in (
        ("cache.json", Path.unlink, "no cache of videos: .* `lit-ssl video-cache` makes one"),
        ("cache.json", cut, "cache.json is damaged .*: make the cache anew"),
        ("cache.json", lambda p: p.write_text("[]"), "cache.json is damaged"),
        ("cache.json", lambda p: p.write_text('{"version": 1, "shorter": 3}'), "is damaged"),
        ("cache.json", lambda p: p.write_text(p.read_text().replace('on": 1', 'on": 9')),
         "is of version 9, not 1"),
        ("index.npz", Path.unlink, "is not complete, 4 videos are done"),
        ("index.npz", cut, "index.npz is damaged .*: delete it and run the same"),
        ("index.npz", lambda p: p.write_bytes(b""), "index.npz is damaged"),
        ("index.npz", lambda p: np.savez(p, name=np.zeros(3, np.uint8)), "index.npz is damaged"),
        ("index.npz", lambda p: np.save(p.open("wb"), np.array([{}]), allow_pickle=True),
         "index.npz is damaged"),
        ("frames-00000.u8", cut, "frames-00000.u8 has .* bytes: copy the whole cache, or run"),
        ("frames-00000.u8", Path.unlink, "frames-00000.u8 has 0 of"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            VideoCache(damaged(name, change))
    with pytest.raises(InputError, match=r"no cache of videos: .* does not exist"):
        VideoCache(tmp_path / "nowhere")


@pytest.mark.parametrize("column", ["start", "end", "frames", "rows", "shard", "fps"])
def test_an_index_that_lies_is_refused(raw, tmp_path, column):
    folder = copy_of(raw, tmp_path / "cache")
    with np.load(folder / "index.npz") as arrays:
        columns = dict(arrays)
    columns[column] = columns[column] * -7 - 1 if column != "fps" else columns["fps"].astype(int)
    np.savez(folder / "index.npz", **columns)
    with pytest.raises(InputError, match=r"frames--|damaged"):
        VideoCache(folder)


@pytest.mark.parametrize("left", [0.7, 0])
def test_lost_shards_are_decoded_again(raw, index, tmp_path, left):
    folder = copy_of(raw, tmp_path / "cache")
    if left:
        truncated(folder / "frames-00000.u8", left)
    else:
        (folder / "frames-00000.u8").unlink()
    report = write_video_cache(index, folder, 24, num_workers=1)
    assert (report.kept, report.added) == ((1, 3) if left else (0, 4))
    cache, whole = VideoCache(folder), VideoCache(raw)
    for row in (0, 1, 3, 4):
        frames = np.arange(whole.index().frames[row])
        assert (cache.read(row, frames) == whole.read(row, frames)).all()


def test_wrong_requests_and_damaged_pictures(raw, index, tmp_path):
    cache = VideoCache(raw)
    for row, frames, message in (
        (0, [0, 40], "frames 0 to 40 of a/one.avi are asked for, and the cache .* has 40 of it"),
        (0, [-1], "frames -1 to -1 of a/one.avi"),
        (2, [0], "a/broken.mp4 could not be decoded when the cache .* was made"),
    ):
        with pytest.raises(InputError, match=message):
            cache.read(row, np.array(frames))
    out = tmp_path / "jpeg"
    write_video_cache(index.select(np.array([0])), out, 24, format="jpeg", num_workers=1)
    shard = out / "frames-00000.jpegs"
    content = bytearray(shard.read_bytes())
    content[:4] = b"junk"
    shard.write_bytes(content)
    with pytest.raises(InputError, match=r"a/one.avi is damaged in .*frames-00000.jpegs"):
        VideoCache(out).read(0, np.array([0]))
    assert VideoCache(out).read(0, np.array([1])).shape == (1, 24, 32, 3)
    content[-8:] = bytes(8)
    shard.write_bytes(content)
    with pytest.raises(InputError, match="the table of its frames is damaged"):
        VideoCache(out).read(0, np.array([1]))
