"""Shards behind a web server and in an S3 bucket: the same batches, within bounds."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from lit_ssl.datamodules import (
    ImageFolderDataModule,
    SemiSupervisedDataModule,
    StreamingImageDataModule,
)
from lit_ssl.datamodules.streaming.sharding import shard_images
from lit_ssl.errors import InputError, OutputError
from lit_ssl.stores import places
from lit_ssl.stores.file_cache import FileCache
from lit_ssl.stores.places import MissingFileError, PlaceError, place_at

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2]))
from store_servers import closed_port, s3_server
from streaming_sets import CHUNK, assert_same, batches

FILES = ("train_dataloader", "val_dataloader", "bank_dataloader")


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(places, "_PAUSE", 0.01)


@pytest.fixture(scope="session")
def bucket(shard_root):
    """The shards in a bucket of a local server that speaks S3."""
    with s3_server(shard_root) as url:
        yield url


def size_of(folder):
    return sum(path.stat().st_size for path in Path(folder).iterdir())


@pytest.mark.parametrize("more", [{}, {"num_workers": 2}, {"cache_size": "25kB"}],
                         ids=["kept", "workers", "one-by-one"])  # fmt: skip
def test_batches_from_s3_are_those_of_the_files(files, stream, bucket, tmp_path, more):
    one = files()
    other = stream(bucket, cache_dir=str(tmp_path), **more)
    for loader in FILES:
        assert_same(batches(one, loader), batches(other, loader))


@pytest.mark.parametrize("more", [{}, {"cache_size": "25kB"}], ids=["kept", "one-by-one"])
def test_batches_from_a_web_server_are_those_of_the_files(files, stream, web, tmp_path, more):
    url, asked = web
    one, other = files(), stream(url, cache_dir=str(tmp_path), **more)
    for loader in FILES:
        assert_same(batches(one, loader), batches(other, loader))
    parts = [name for name, part in asked if part]
    if not more:  # each file once, whole
        assert not parts
        fetched = [name for name, _ in asked if name.endswith(".bin")]
        assert len(fetched) == len(set(fetched)) > 10
        asked.clear()
        batches(stream(url, cache_dir=str(tmp_path)), "train_dataloader")
        assert [name for name, _ in asked] == ["/lit_ssl.json"]
    else:
        assert parts
        assert all(name.startswith("/train/") for name in parts)


def test_chunk_by_chunk_fetches_each_once_an_epoch_into_a_bounded_folder(stream, web, tmp_path):
    url, asked = web
    limit = 30_000
    data = stream(
        url, cache_dir=str(tmp_path), cache_size=limit, shuffle="chunks", window=1, batch_size=1
    )
    data.setup("fit")
    asked.clear()
    loader = data.train_dataloader()
    for _ in loader:
        assert size_of(tmp_path) <= limit
    fetched = [name for name, _ in asked]
    assert not any(part for _, part in asked)
    assert len(fetched) == len(set(fetched)) == len(data.manifest.splits["train"].chunks)


def test_a_window_that_does_not_fit_is_refused(stream, web, tmp_path):
    with pytest.raises(InputError, match=r"a window of 16 shards needs .* raise it"):
        stream(web[0], cache_dir=str(tmp_path), cache_size="25kB", shuffle="chunks")


def test_threads_and_runs_share_a_folder_and_fetch_once(web, shard_root, tmp_path):
    url, asked = web
    manifest = json.loads((shard_root / "lit_ssl.json").read_text())
    chunks = manifest["splits"]["train"]["chunks"]
    caches = [FileCache(tmp_path, 10**6) for _ in range(4)]
    place, wrong = place_at(url), []

    def read(cache):
        for name, size, _, sha256 in chunks:
            content = cache.read(place, f"train/{name}", size, sha256, 5, 90)
            if content != (shard_root / "train" / name).read_bytes()[5:95]:
                wrong.append(name)

    threads = [threading.Thread(target=read, args=(cache,)) for cache in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert sorted(name for name, _ in asked) == sorted(f"/train/{name}" for name, *_ in chunks)


def test_two_runs_with_less_room_than_both_need(web, shard_root, tmp_path):
    """Each removes what the other fetches, and both get every byte right."""
    code = (
        "import sys, json\n"
        "from pathlib import Path\n"
        "from lit_ssl.stores.file_cache import FileCache\n"
        "from lit_ssl.stores.places import place_at\n"
        "url, root, folder, step = sys.argv[1:]\n"
        "manifest = json.loads((Path(root) / 'lit_ssl.json').read_text())\n"
        "chunks = manifest['splits']['train']['chunks']\n"
        "cache, place = FileCache(folder, 13000), place_at(url)\n"
        "for name, size, _, sha in (chunks * 3)[:: int(step)]:\n"
        "    content = cache.read(place, f'train/{name}', size, sha, 0, size)\n"
        "    assert content == (Path(root) / 'train' / name).read_bytes()\n"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", code, web[0], shard_root, tmp_path, step])
        for step in ("1", "-1")
    ]
    assert [run.wait(100) for run in runs] == [0, 0]
    assert size_of(tmp_path) <= 13000


def test_what_a_killed_process_was_fetching_is_taken_away(web, shard_root, tmp_path):
    name, size, _, sha256 = json.loads((shard_root / "lit_ssl.json").read_text())["splits"][
        "train"
    ]["chunks"][0]
    code = (
        "import os, sys\n"
        "from lit_ssl.stores import file_cache, places\n"
        "places.Folder.fetch = lambda self, name, file: os.kill(os.getpid(), 9)\n"
        "cache = file_cache.FileCache(sys.argv[2], 10**6)\n"
        f"cache.path(places.Folder(sys.argv[1]), 'train/{name}', {size}, '{sha256}')\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, shard_root, tmp_path])
    assert killed.returncode == -9
    assert list(tmp_path.glob("*.part")) + list(tmp_path.glob(".*.part"))
    FileCache(tmp_path, 10**6).path(place_at(web[0]), f"train/{name}", size, sha256)
    assert not list(tmp_path.glob(".*.part"))


# what is wrong


def test_a_file_that_is_damaged_in_the_store_is_not_kept(stream, shard_root, tmp_path, web):
    url, _ = web
    path = shard_root / "val/chunk-0-0.bin"
    content = path.read_bytes()
    try:
        for spoilt, words in (
            (content[:-1] + bytes([content[-1] ^ 1]), "is damaged .*checksum"),
            (content[:50], "has 50 bytes, and should have"),
            (None, "there is no http.*chunk-0-0.bin"),
        ):
            path.unlink() if spoilt is None else path.write_bytes(spoilt)
            data = stream(url, cache_dir=str(tmp_path))
            with pytest.raises(InputError, match=words):
                batches(data, "val_dataloader")
    finally:
        path.write_bytes(content)
    batches(stream(url, cache_dir=str(tmp_path)), "val_dataloader")


def test_a_copy_that_was_cut_is_fetched_again(stream, web, tmp_path, files):
    data = stream(web[0], cache_dir=str(tmp_path))
    wanted = batches(data, "val_dataloader")
    for path in tmp_path.glob("*.kept"):
        if path.stat().st_size < 2 * CHUNK:
            os.truncate(path, 10)
    assert_same(batches(data, "val_dataloader"), wanted)


@pytest.mark.parametrize("kind", ["http", "s3"])
def test_no_network_is_one_line(stream, kind, monkeypatch):
    url = f"http://127.0.0.1:{closed_port()}"
    if kind == "s3":
        pytest.importorskip("boto3")
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
        for name in names:
            monkeypatch.setenv(name, "us-east-1")
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        url = "s3://pictures/set"
    with pytest.raises(PlaceError, match=r"cannot read .*lit_ssl.json \(.*check the network"):
        stream(url)


def test_a_bucket_without_the_set_is_one_line(bucket, stream):
    with pytest.raises(MissingFileError, match=r"there is no s3://pictures/other/lit_ssl\.json"):
        stream("s3://pictures/other")
    with pytest.raises(PlaceError, match="cannot read s3://nowhere"):
        stream("s3://nowhere/set")


def test_a_store_that_nothing_opens_is_one_line(stream):
    with pytest.raises(InputError, match="nothing opens nosuch://"):
        stream("nosuch://bucket/set")
    with pytest.raises(InputError, match="gs:// need a package more"):
        pytest.skip("gcsfs is installed") if shutil.which("gcsfs") else stream("gs://bucket/set")


def test_a_failure_in_passing_is_asked_again(web, monkeypatch):
    place, fails = place_at(web[0]), [OSError("reset"), OSError("reset")]
    read = type(place)._read

    def shaky(self, *args):
        if fails:
            raise fails.pop()
        return read(self, *args)

    monkeypatch.setattr(type(place), "_read", shaky)
    assert place.read("lit_ssl.json").startswith(b"{")
    fails += [OSError("reset")] * 3
    with pytest.raises(PlaceError, match="reset"):
        place.read("lit_ssl.json")


def test_a_folder_that_cannot_be_written_is_one_line(stream, web, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        stream(web[0], cache_dir=str(tmp_path / "file")).setup("fit")


def test_a_transfer_that_ends_early_is_asked_again(web, tmp_path, shard_root, monkeypatch):
    url, asked = web
    name = "train/chunk-0-0.bin"
    send, cuts = SimpleHTTPRequestHandler.copyfile, [1]

    def cut(self, source, output):
        if cuts and cuts.pop():
            output.write(source.read(100))
        else:
            send(self, source, output)

    monkeypatch.setattr(SimpleHTTPRequestHandler, "copyfile", cut)
    with open(tmp_path / "file", "wb") as file:
        place_at(url).fetch(name, file)
    assert (tmp_path / "file").read_bytes() == (shard_root / name).read_bytes()
    assert len(asked) == 2


def test_a_full_disk_is_not_blamed_on_the_network(web, tmp_path):
    url, asked = web

    class Full(io.BytesIO):
        name = str(tmp_path / "cache" / "file")

        def write(self, content):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError, match=r"cannot write .*cache \(No space left.*make room"):
        place_at(url).fetch("train/chunk-0-0.bin", Full())
    assert len(asked) == 1


def test_other_files_in_the_folder_of_the_cache_take_no_room_of_it(stream, web, tmp_path, files):
    (tmp_path / "foreign.bin").write_bytes(bytes(200_000))
    data = stream(web[0], cache_dir=str(tmp_path), cache_size="60kB")
    assert_same(batches(files(), "val_dataloader"), batches(data, "val_dataloader"))
    assert (tmp_path / "foreign.bin").stat().st_size == 200_000


def test_room_that_nobody_can_make_is_one_line_and_not_waited_for(stream, web, tmp_path):
    part = tmp_path / f".{'0' * 64}.kept.1-0123456789abcdef.part"  # of another machine
    part.write_bytes(bytes(99_000))
    os.utime(part, (time.time() - 4000,) * 2)
    data = stream(web[0], cache_dir=str(tmp_path), cache_size="100kB")
    with pytest.raises(OutputError, match=r"no room in .*: 99,\d{3} of 100,000 .*cache_dir"):
        batches(data, "train_dataloader")


def test_an_empty_file_is_not_asked_for(image_root, tmp_path, monkeypatch):
    folder = tmp_path / "pictures/train/ant"
    folder.mkdir(parents=True)
    for name in ("00.jpg", "01.jpg"):
        (folder / name).write_bytes((image_root / "train/ant" / name).read_bytes())
    (folder / "02.jpg").touch()
    shard_images(ImageFolderDataModule(root=str(tmp_path / "pictures")), tmp_path / "set")
    data = StreamingImageDataModule(url=str(tmp_path / "set"), num_workers=0)
    asked, read = [], type(data.place).read

    def counted(self, name, offset=0, size=None):
        asked.append(size)
        return read(self, name, offset, size)

    monkeypatch.setattr(type(data.place), "read", counted)
    images = data.rows("train").source.images
    assert sorted(len(images.encoded(row)) for row in range(3))[0] == 0
    assert len(asked) == 2


def test_supports_are_fetched_one_by_one_beside_chunks_in_order(stream, web, tmp_path):
    url, asked = web
    inner = stream(
        url, cache_dir=str(tmp_path), cache_size="30kB", shuffle="chunks", window=1, batch_size=6
    )
    data = SemiSupervisedDataModule(inner, images_per_class=3)
    data.setup("fit")
    asked.clear()
    for _ in data.train_dataloader():
        pass
    fetched = [name for name, part in asked if not part]
    assert len(fetched) == len(set(fetched)) == len(inner.manifest.splits["train"].chunks)
    assert any(part for _, part in asked)
