"""Caches of videos behind a web server and in an S3 bucket: the same batches as from the folder."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from video_files import bar_video

from lit_ssl.datamodules import VideoFolderDataModule, VideoFramesDataModule
from lit_ssl.errors import InputError
from lit_ssl.stores import places
from lit_ssl.stores.places import PlaceError
from lit_ssl.video import VideoCache
from lit_ssl.video.cache_checksums import BLOCK
from lit_ssl.video.cache_writing import write_video_cache
from lit_ssl.video.clip_index import build_clip_index

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))
from store_servers import closed_port, s3_server, web_server
from video_store_run import clips_seen

OPTIONS = {"num_frames": 6, "size": 24, "num_workers": 0, "batch_size": 4, "seed": 2}
LOADERS = ("train_dataloader", "predict_dataloader", "bank_dataloader")
SCRIPT = Path(__file__).with_name("video_store_run.py")


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(places, "_PAUSE", 0.01)


@pytest.fixture(scope="module", params=["raw", "jpeg"])
def cache(request, ucf101, tmp_path_factory):
    """All videos of the fixture in several shards, with a shorter side of 24 pixels."""
    return written(ucf101.videos, tmp_path_factory.mktemp("cache") / "out", request.param)


@pytest.fixture(scope="module")
def raw(ucf101, tmp_path_factory):
    return written(ucf101.videos, tmp_path_factory.mktemp("cache") / "out", "raw")


def written(videos, out, form):
    names = sorted(path.relative_to(videos).as_posix() for path in videos.rglob("*.avi"))
    for upto in (8, 16, 24):  # each call begins a shard
        index = build_clip_index(videos, names[:upto])
        write_video_cache(index, out, 24, format=form, num_workers=1)
    assert len(list(out.glob("frames-*[gu][s8]"))) == 3
    return out


@pytest.fixture
def web(raw):
    with web_server(raw) as found:
        yield found


def data(cache, **more):
    return VideoFolderDataModule(root="not/there", cache=str(cache), **{**OPTIONS, **more})


def assert_same(one, other):
    for module in (one, other):
        module.setup()
    for loader in LOADERS:
        pairs = list(zip(getattr(one, loader)(), getattr(other, loader)(), strict=True))
        assert pairs
        for (video, labels), (its, their_labels) in pairs:
            assert torch.equal(labels, their_labels)
            assert torch.equal(video, its)


def size_of(folder):
    return sum(path.stat().st_size for path in Path(folder).iterdir())


@pytest.mark.parametrize("fits", [True, False], ids=["kept", "in-parts"])
def test_batches_from_a_web_server_are_those_of_the_folder(cache, tmp_path, fits):
    kept = tmp_path / "kept"
    more = {"val_size": 6, "stride": 2}
    with web_server(cache) as (url, asked):

        def stream():
            size = "2MB" if fits else "30kB"
            return data(url, cache_dir=str(kept), cache_size=size, **more)

        assert_same(data(cache, **more), stream())
        shards = [(name, part) for name, part in asked if name.startswith("/frames-")]
        if fits:  # each once, whole
            assert sorted(shards) == [(name, None) for name in sorted({name for name, _ in shards})]
            assert len(shards) == 3
            asked.clear()
            assert len(list(stream().predict_dataloader())) > 1
            assert [name for name, _ in asked] == ["/shards.json"]
        else:
            assert shards
            assert all(part for _, part in shards)
            assert size_of(kept) <= 30_000


def test_batches_from_s3_are_those_of_the_folder(raw, tmp_path):
    with s3_server(raw) as url:
        other = data(url, cache_dir=str(tmp_path), num_workers=2)
        assert_same(data(raw), other)
        assert "s3://pictures/sets/one" in other.store.found()
        frames = VideoFramesDataModule(data(url, cache_dir=str(tmp_path)), frames_per_video=2)
        frames.setup("fit")
        assert frames.rows("train").source.images.folder == url
        with pytest.raises(
            InputError, match=r"no cache of videos: there is no s3://.*/shards\.jso"
        ):
            data("s3://pictures/other").setup("fit")


def test_processes_share_out_the_same_videos(raw, web, tmp_path, monkeypatch):
    for rank in (0, 1):
        one, other = data(raw), data(web[0], cache_dir=str(tmp_path))
        for module in (one, other):
            monkeypatch.setattr(module, "shard", lambda rank=rank: (2, rank))
        assert_same(one, other)


def test_a_run_that_is_killed_goes_on_with_the_same_clips(raw, web, tmp_path):
    """By SIGKILL, in the middle of an epoch; what the cache has fetched by then is used again."""

    words = [sys.executable, SCRIPT, web[0], tmp_path, "kill", tmp_path / "kept"]
    killed = subprocess.run(words, capture_output=True, text=True, timeout=250)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    whole = clips_seen(str(raw), tmp_path, "whole", None)
    web[1].clear()
    assert len(whole) == 12
    assert clips_seen(web[0], tmp_path, "rest", str(tmp_path / "kept")) == whole[3:]
    assert [name for name, _ in web[1]] == ["/shards.json"]


# what is wrong


@pytest.fixture
def spoilt(raw, tmp_path):
    """A copy of the cache, and a function that spoils a file of it and reads it from the web."""
    shutil.copytree(raw, tmp_path / "copy")
    with web_server(tmp_path / "copy") as (url, _):

        def read(size="2MB"):
            cache = VideoCache(url, tmp_path / "kept", size)
            return [cache.read(row, np.array([3, 9])) for row in range(len(cache))]

        yield tmp_path / "copy", read


def flip(path, place=-1):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def change(path, function):
    values = json.loads(path.read_text())
    function(values["files"], values)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize("size", ["2MB", "20kB"], ids=["kept", "in-parts"])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda c: (c / "frames-00001.u8").unlink(), r"there is no http.*/frames-00001\.u8"),
        (lambda c: os.truncate(c / "frames-00001.u8", 20_000), "frames-00001.u8 (has 20,0|is dam)"),
        (lambda c: flip(c / "frames-00002.u8", 50_000), "frames-00002.u8 is damaged"),
        (lambda c: flip(c / "index.npz", 100), "index.npz is damaged"),
        (lambda c: flip(c / "blocks.npz", 100), "blocks.npz is damaged"),
        (lambda c: flip(c / "cache.json", 20), "cache.json is damaged"),
        (lambda c: (c / "shards.json").write_text("{"), "shards.json is damaged"),
        (lambda c: (c / "shards.json").unlink(), "no cache of videos: .* run it again where"),
    ],
    ids=["gone", "cut", "flipped", "index", "blocks", "settings", "json", "no-json"],
)
def test_what_is_broken_in_the_store_is_one_line(spoilt, damage, words, size):
    folder, read = spoilt
    damage(folder)
    with pytest.raises(InputError, match=words) as caught:
        read(size)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "hostile",
    [
        lambda files, all_: files["frames-00000.u8"].__setitem__(1, "../../../etc/passwd"),
        lambda files, all_: files["frames-00000.u8"].__setitem__(1, "g" * 64),
        lambda files, all_: files["frames-00000.u8"].__setitem__(0, -1),
        lambda files, all_: files["frames-00000.u8"].__setitem__(0, True),
        lambda files, all_: files["frames-00000.u8"].__setitem__(0, 10 * BLOCK),
        lambda files, all_: files.pop("index.npz"),
        lambda files, all_: files.pop("frames-00001.u8"),
        lambda files, all_: all_.update(files=["a"]),
        lambda files, all_: all_.update(version=2),
    ],
    ids=["path", "no-hash", "negative", "bool", "long", "no-index", "no-shard", "list", "version"],
)
def test_a_hostile_list_of_files_is_refused_before_training(spoilt, hostile):
    folder, read = spoilt
    change(folder / "shards.json", hostile)
    with pytest.raises(InputError, match=r"is damaged|is of version 2"):
        read()


def test_a_hostile_index_runs_nothing(spoilt, tmp_path):
    """With checksums that are right."""
    from hashlib import sha256

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    folder, read = spoilt
    np.savez(folder / "index.npz", name=np.array([Bomb()], dtype=object))
    assert b"mkdir" in (folder / "index.npz").read_bytes()
    content = (folder / "index.npz").read_bytes()
    right = [len(content), sha256(content).hexdigest(), 0]
    change(folder / "shards.json", lambda files, all_: files.update({"index.npz": right}))
    with pytest.raises(InputError, match=r"index.npz is damaged .*Python objects"):
        read()
    assert not (tmp_path / "exploded").exists()


def test_a_copy_that_was_damaged_here_is_one_line(spoilt, tmp_path):
    _, read = spoilt
    read()
    largest = max((tmp_path / "kept").glob("*.kept"), key=lambda path: path.stat().st_size)
    flip(largest, 5_000)
    with pytest.raises(InputError, match=r"is damaged \(bytes 0 to .* remove its copy in"):
        read()


def test_no_network_and_no_place_are_one_line(tmp_path):
    url = f"http://127.0.0.1:{closed_port()}"
    with pytest.raises(PlaceError, match=r"cannot read .*shards.json \(.*check the network"):
        data(url).setup("fit")
    with pytest.raises(InputError, match="nothing opens nosuch://"):
        data("nosuch://bucket/cache")
    with pytest.raises(InputError, match="cache_size must be a size such as"):
        data(url, cache_size="much")


def test_a_server_without_parts_is_one_line(raw, tmp_path, monkeypatch):
    class Whole(urllib.request.Request):
        def __init__(self, url, headers):
            super().__init__(url)

    monkeypatch.setattr(places, "Request", Whole)
    with web_server(raw) as (url, _):
        cache = VideoCache(url, tmp_path, "20kB")
        with pytest.raises(PlaceError, match=r"sends no parts of files .* set cache_size above"):
            cache.read(0, np.arange(3))


# what `lit-ssl video-cache` writes for it


def test_shards_are_read_once_for_their_checksums(ucf101, raw, tmp_path, monkeypatch):
    from lit_ssl.video import cache_checksums

    folder = shutil.copytree(raw, tmp_path / "copy")
    before = json.loads((folder / "shards.json").read_text())["files"]
    summed, real = [], cache_checksums._summed
    monkeypatch.setattr(
        cache_checksums, "_summed", lambda path: summed.append(path.name) or real(path)
    )
    small = ["blocks.npz", "cache.json", "index.npz"]
    index = build_clip_index(ucf101.videos, VideoCache(raw).names)
    write_video_cache(index, folder, 24, num_workers=1)
    assert sorted(summed) == small
    flip(folder / "frames-00001.u8")  # and so has another time
    summed.clear()
    write_video_cache(index, folder, 24, num_workers=1)
    assert sorted(summed) == ["blocks.npz", "cache.json", "frames-00001.u8", "index.npz"]
    after = json.loads((folder / "shards.json").read_text())["files"]
    assert {name for name in after if after[name][:2] != before[name][:2]} == {
        "frames-00001.u8",
        "blocks.npz",
    }
    (folder / "shards.json").write_text("{")
    write_video_cache(index, folder, 24, num_workers=1)
    again = json.loads((folder / "shards.json").read_text())["files"]
    assert {name: again[name][:2] for name in again} == {name: after[name][:2] for name in after}


def test_blocks_are_checked_one_by_one(tmp_path, web):
    """A clip from the middle of a shard of several blocks, of which one is damaged."""
    videos = tmp_path / "videos"
    bar_video(videos / "long.mp4", 300, size=(24, 32))
    out = tmp_path / "out"
    write_video_cache(build_clip_index(videos, ["long.mp4"]), out, 24, num_workers=1)
    shard = out / "frames-00000.u8"
    assert shard.stat().st_size > 5 * BLOCK
    exact = VideoCache(out)
    wanted = exact.read(0, np.array([299, 58, 60]))
    flip(shard, 4 * BLOCK)
    with web_server(out) as (url, asked):
        cache = pickle.loads(pickle.dumps(VideoCache(url, tmp_path / "kept", "100kB")))
        assert cache.read(0, np.array([58, 57])).shape == (2, 24, 32, 3)
        assert asked[-1] == ("/frames-00000.u8", f"bytes={BLOCK}-{2 * BLOCK - 1}")
        with pytest.raises(InputError, match="is damaged"):
            cache.read(0, np.array([299, 58, 60]))
        flip(shard, 4 * BLOCK)
        assert (cache.read(0, np.array([299, 58, 60])) == wanted).all()
