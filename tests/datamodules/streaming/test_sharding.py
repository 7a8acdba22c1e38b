"""What the shards hold, and how they are written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_ssl.cli.words import run_word
from lit_ssl.datamodules import (
    ColouredMNISTDataModule,
    ImageDataModule,
    ImageFolderDataModule,
    SemiSupervisedDataModule,
    SomeClassesDataModule,
    StreamingImageDataModule,
    Subset,
)
from lit_ssl.datamodules.reading.boxes import BoxImages
from lit_ssl.datamodules.reading.images import ArrayImages, Images
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.streaming import sharding
from lit_ssl.datamodules.streaming.chunk_jobs import image_stamps
from lit_ssl.datamodules.streaming.sharding import shard_images
from lit_ssl.errors import InputError
from lit_ssl.stores.byte_sizes import byte_count
from lit_ssl.version import __version__

sys.path.insert(0, str(Path(__file__).parent))
from streaming_sets import CHUNK


def images_of(data, split):
    data.setup("fit")
    return data.rows(split).source.images


def test_files_are_kept_byte_for_byte_with_labels_and_names(image_root, shard_root, stream, files):
    for split in ("train", "val"):
        kept = images_of(stream(), split)
        original = images_of(files(), split)
        assert len(kept) == len(original)
        for row in range(len(original)):
            name = original.name(row)
            assert kept.name(row) == name
            assert kept.encoded(row) == (image_root / split / name).read_bytes()
        assert (stream().rows(split).labels == files().rows(split).labels).all()


def test_a_manifest_says_what_the_set_is(shard_root):
    manifest = json.loads((shard_root / "lit_ssl.json").read_text())
    assert manifest["lit_ssl"] == __version__
    assert manifest["data"] == "ImageFolderDataModule"
    assert manifest["class_names"] == ["ant", "bee", "cat"]
    assert set(manifest["splits"]) == {"train", "val"}
    assert not (shard_root / "unfinished").exists()
    for split, files in manifest["splits"].items():
        assert len(files["chunks"]) > 1
        for name, size, _, _ in files["chunks"]:
            assert (shard_root / split / name).stat().st_size == size < 2 * CHUNK


def test_training_shards_have_images_of_several_classes(stream):
    images = images_of(stream(), "train")
    labels = stream().labels("train")
    classes = [len(set(labels[images.chunk == chunk])) for chunk in range(images.chunk.max())]
    assert np.mean(classes) > 2


def test_litdata_reads_them(shard_root, stream, tmp_path):
    litdata = pytest.importorskip("litdata")
    shutil.copytree(shard_root / "val", tmp_path / "val")
    found = litdata.StreamingDataset(str(tmp_path / "val"), shuffle=False)
    images, labels = images_of(stream(), "val"), stream().labels("val")
    assert len(found) == len(images)
    for row in range(len(images)):
        content, label = found[row]
        assert bytes(content) == images.encoded(row)
        assert label == labels[row]


class Mixed(ImageDataModule):
    """Boxes of files for training, arrays in colours for tests, and a column more."""

    class_names = ("a", "b")
    default_size, default_margin = 8, 1

    def __init__(self, root, **kwargs):
        super().__init__(num_workers=0, batch_size=4, **kwargs)
        self.root = Path(root)

    def load_rows(self, split):
        if split == "val":
            return None
        if split == "test":
            pixels = torch.arange(3 * 3 * 8 * 9, dtype=torch.uint8).view(3, 3, 8, 9)
            return Rows(ArrayImages(pixels), {"label": np.array([0, -1, 1])})
        names = [f"ant/{i:02}.jpg" for i in (0, 1, 2, 4)]
        boxes = np.array([[i, 1, 20 + i, 18] for i in range(4)], dtype=np.float64)
        columns = {"label": np.arange(4) % 2, "attributes": np.eye(4)}
        return Rows(BoxImages(self.root / "train", names, boxes), columns)


@pytest.mark.parametrize("canvas", [12, 64])
def test_what_is_no_file_gives_the_same_pixels(image_root, tmp_path, canvas):
    data = Mixed(image_root)
    shard_images(data, tmp_path / "out", size=1000)
    stream = StreamingImageDataModule(url=str(tmp_path / "out"), num_workers=0)
    for split in ("train", "test"):
        mine, other = stream.rows(split), data.rows(split)
        for row in range(len(other)):
            for side in (None, canvas):
                read, _ = mine.source.read(row, side)
                assert torch.equal(read, other.source.read(row, side)[0])
        assert (mine.labels == other.labels).all()
    assert torch.equal(
        stream.rows("test").source.read_batch(np.array([2, 0])), data.rows("test").source.images
        .pixels[[2, 0]],
    )  # fmt: skip
    assert (stream.column("attributes", "train") == np.eye(4)).all()
    assert stream.image_size == 8


def test_grey_images_of_a_source_of_ones_own_are_refused(image_root, tmp_path):
    class Own(Images):
        def __len__(self):
            return 2

        def read(self, index, max_side=None):
            return torch.zeros(1, 4, 4, dtype=torch.uint8)

        def name(self, row):
            return None

        def select(self, rows):
            return self

    class Data(Mixed):
        def load_rows(self, split):
            return Rows(Own(), {"label": np.arange(2)}) if split == "train" else None

    with pytest.raises(InputError, match="Own gives images of 1 channels"):
        shard_images(Data(image_root), tmp_path / "out")


def test_an_empty_split_stays_one(image_root, tmp_path):
    class NoVal(Mixed):
        def load_rows(self, split):
            rows = super().load_rows("test")
            return rows.select(np.arange(0)) if split == "val" else rows

    shard_images(NoVal(image_root), tmp_path / "out")
    stream = StreamingImageDataModule(url=str(tmp_path / "out"), num_workers=0)
    assert len(stream.rows("val")) == 0
    assert stream.val_dataloader() == []


# going on


def command(image_root, out, *more):
    return [
        sys.executable, "-m", "lit_ssl", "shard", "--data", "ImageFolderDataModule",
        "--data.root", str(image_root), "--output", str(out), "--size", str(CHUNK), *more,
    ]  # fmt: skip


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_killed_command_goes_on(image_root, shard_root, tmp_path):
    out = tmp_path / "out"
    slow = (
        "import time, runpy, sys\n"
        "from lit_ssl.datamodules.streaming import chunk_jobs\n"
        "pack = chunk_jobs.packed\n"
        "chunk_jobs.packed = lambda *a: (time.sleep(0.3), pack(*a))[1]\n"
        "from lit_ssl.__main__ import main\n"
        "main()\n"
    )
    words = command(image_root, out, "--workers", "2")[3:]
    killed = subprocess.Popen([sys.executable, "-c", slow, *words], start_new_session=True)
    deadline = time.monotonic() + 100
    while len(list(out.glob("unfinished/train-*.json"))) < 2:
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (out / "lit_ssl.json").exists()
    with pytest.raises(InputError, match="no shards of images"):
        StreamingImageDataModule(url=str(out))
    done = {p: p.stat().st_mtime_ns for p in out.glob("train/chunk-*.bin")}
    noted = {p.name for p in out.glob("unfinished/*.json")}

    data = ImageFolderDataModule(root=str(image_root))
    report = shard_images(data, out, size=CHUNK, workers=2)
    assert report.kept == len(noted) - 1  # the plan is no shard
    assert report.kept >= 2
    assert sum(p.stat().st_mtime_ns == done.get(p) for p in out.glob("train/chunk-*.bin")) >= 2
    assert contents(out) == contents(shard_root)


def test_an_image_that_has_changed_is_written_again(image_root, tmp_path, monkeypatch):
    root, out = tmp_path / "images", tmp_path / "out"
    shutil.copytree(image_root, root)
    data = ImageFolderDataModule(root=str(root))
    monkeypatch.setattr(sharding, "_finish", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        shard_images(data, out, size=CHUNK)
    monkeypatch.undo()
    shutil.copy(root / "train/ant/00.jpg", root / "train/bee/00.jpg")
    report = shard_images(ImageFolderDataModule(root=str(root)), out, size=CHUNK)
    assert 0 < report.kept < report.chunks
    stream = StreamingImageDataModule(url=str(out), num_workers=0)
    images = images_of(stream, "train")
    row = next(row for row in range(60) if images.name(row) == "bee/00.jpg")
    assert images.encoded(row) == (root / "train/ant/00.jpg").read_bytes()


def test_the_command_writes_and_says_how_to_read(image_root, tmp_path, capsys):
    out = tmp_path / "out"
    words = command(image_root, out)[3:]
    run_word(words)
    printed = capsys.readouterr().out
    assert "60 train, 9 val images" in printed
    assert f"--data.url {out}" in printed
    with pytest.raises(InputError, match="holds a whole set of shards"):
        run_word(words)
    with pytest.raises(InputError, match="Did you mean ImageFolderDataModule"):
        run_word(["shard", "--data", "ImageFolderDataModul", "--output", str(out)])
    with pytest.raises(InputError, match="say which data"):
        run_word(["shard", "--output", str(out)])
    with pytest.raises(InputError, match="--workers must be at least 1"):
        run_word([*words, "--workers", "0"])
    with pytest.raises(InputError, match="Set root to"):
        run_word(command(tmp_path / "none", tmp_path / "new")[3:])


# what cannot be


def test_no_foreign_folder_is_written_to(image_root, tmp_path):
    data = ImageFolderDataModule(root=str(image_root))
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="new or empty folder"):
        shard_images(data, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(InputError, match="folder of this machine"):
        shard_images(data, "s3://bucket/set")


def test_another_plan_does_not_go_on(image_root, tmp_path, monkeypatch):
    data = ImageFolderDataModule(root=str(image_root))
    monkeypatch.setattr(sharding, "_finish", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        shard_images(data, tmp_path / "out", size=CHUNK)
    with pytest.raises(InputError, match="repeat that call, or give another folder"):
        shard_images(data, tmp_path / "out", size=2 * CHUNK)


def test_an_image_that_is_gone_stops(image_root, tmp_path):
    shutil.copytree(image_root, tmp_path / "others")
    rows = ImageFolderDataModule(root=str(tmp_path / "others"))
    loaded = {s: rows.load_rows(s) for s in ("train", "val", "test")}
    (tmp_path / "others/train/ant/00.jpg").unlink()
    rows.load_rows = loaded.get
    with pytest.raises(InputError, match=r"there is no image .*00\.jpg"):
        shard_images(rows, tmp_path / "out")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda d: SemiSupervisedDataModule(d), "shard its dataset, ImageFolderDataModule"),
        (lambda d: SomeClassesDataModule(d, classes=[0]), "shard that one, ImageFolderDataModule"),
        (lambda d: ColouredMNISTDataModule(), "labels only"),
        (lambda d: ImageFolderDataModule(root=str(d.root), subset=Subset(fraction=0.5)), "subset"),
    ],
)  # fmt: skip
def test_modules_that_have_no_shards_say_which_has(image_root, tmp_path, make, words):
    with pytest.raises(InputError, match=words):
        shard_images(make(ImageFolderDataModule(root=str(image_root))), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_sizes_are_read_as_people_write_them():
    sizes = {"64MB": 64_000_000, "1.5 GB": 1_500_000_000, "7": 7, 9: 9, "2k": 2000}
    assert {size: byte_count(size, "size") for size in sizes} == sizes
    for wrong in ("", "-1", "0", "MB", "1 XB", True, "nan"):
        with pytest.raises(InputError, match="cache_size must be a size such as"):
            byte_count(wrong, "cache_size")


def test_checksums_are_those_of_the_images(stream):
    images = images_of(stream(), "train")
    assert all(zlib.crc32(images.encoded(row)) == images.crc[row] for row in (0, 7, 59))


def test_boxes_count_among_what_a_shard_is_made_of(image_root):
    names = ["ant/00.jpg", "bee/01.jpg"]
    one = BoxImages(image_root / "train", names, np.array([[0, 0, 9, 9], [0, 0, 9, 9]], float))
    other = BoxImages(image_root / "train", names, np.array([[0, 0, 9, 9], [1, 0, 9, 9]], float))
    assert (image_stamps(one) != image_stamps(other)).any(axis=1).tolist() == [False, True]
