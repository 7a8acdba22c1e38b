"""Webdatasets of images: the same rows as files, and shards made of them."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
from pathlib import Path

import pytest

from lit_ssl.datamodules import ImageFolderDataModule, ImageTarsDataModule
from lit_ssl.datamodules import StreamingImageDataModule as Streaming
from lit_ssl.datamodules.streaming.chunk_jobs import image_stamps
from lit_ssl.datamodules.streaming.sharding import shard_images
from lit_ssl.errors import InputError

sys.path.insert(0, str(Path(__file__).parent))
from streaming_sets import CHUNK, assert_same, batches, options


def write(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def tars(image_root, tmp_path):
    """The training images in three tars and those for validation in one, in the files' order."""
    for split, count in (("train", 3), ("val", 1)):
        paths = sorted((image_root / split).rglob("*.*"))
        for part in range(count):
            members = []
            for number, path in enumerate(paths):
                if number * count // len(paths) != part:
                    continue
                label = ["ant", "bee", "cat"].index(path.parent.name)
                fields = {"label": label, "name": path.parent.name}
                members += [
                    (f"{number:05d}{path.suffix}", path.read_bytes()),
                    (f"{number:05d}.cls", str(label).encode()),
                    (f"{number:05d}.json", json.dumps(fields).encode()),
                ]
            write(tmp_path / f"{split}-{part:03d}.tar", members)
    return tmp_path


def data(tars, **more):
    names = {"shards": f"{tars}/train-{{000..002}}.tar", "val_shards": f"{tars}/val-000.tar"}
    return ImageTarsDataModule(**{**names, **options(), **more})


@pytest.mark.parametrize("label", ["cls", "label"])
def test_batches_are_those_of_the_files(files, tars, label):
    one, other = files(), data(tars, label=label, class_names=["ant", "bee", "cat"])
    for module in (one, other):
        module.setup()
    assert list(one.class_names) == list(other.class_names)
    for loader in ("train_dataloader", "val_dataloader", "bank_dataloader"):
        assert_same(batches(one, loader), batches(other, loader))


def test_classes_without_names_are_called_by_their_numbers(tars):
    assert data(tars).class_names == ["0", "1", "2"]
    (tars / "names.txt").write_text("ant\nbee\ncat\n")
    assert data(tars, class_names=str(tars / "names.txt")).class_names == ["ant", "bee", "cat"]


def test_tars_become_shards_byte_for_byte(image_root, tars, tmp_path, files):
    shard_images(data(tars), tmp_path / "out", size=CHUNK)
    stream = Streaming(url=str(tmp_path / "out"), **options())
    stream.setup("fit")
    images = stream.rows("train").source.images
    originals = sorted((image_root / "train").rglob("*.*"))
    assert [images.encoded(row) for row in range(60)] == [p.read_bytes() for p in originals]
    assert_same(batches(files(), "train_dataloader"), batches(stream, "train_dataloader"))


def test_what_is_no_sample_is_left_out_with_a_warning(tars, image_root):
    picture = (image_root / "train/ant/00.jpg").read_bytes()
    write(tars / "odd.tar", [("a.jpg", picture), ("a.cls", b"1"), ("b.jpg", picture),
                             ("c.cls", b"0")])  # fmt: skip
    with pytest.warns(UserWarning, match="1 samples without a label .*'b'"):
        rows = data(tars, shards=str(tars / "odd.tar")).load_rows("train")
    assert rows.labels.tolist() == [1]


def test_what_cannot_be_read_is_one_line(tars, image_root):
    picture = (image_root / "train/ant/00.jpg").read_bytes()
    cases = [
        ([("a.jpg", picture), ("a.cls", b"ant")], "the label of a is 'ant'"),
        ([("a.jpg", picture), ("a.cls", b"-2")], "expected the number of a class"),
        ([("a.jpg", picture)], r"Expected <key>.jpg .* followed by <key>\.cls"),
    ]
    for members, words in cases:
        write(tars / "odd.tar", members)
        (tars / ".lit_ssl_index").exists() and [
            path.unlink() for path in (tars / ".lit_ssl_index").iterdir()
        ]
        with pytest.raises(InputError, match=words):
            data(tars, shards=str(tars / "odd.tar")).load_rows("train")
    with pytest.raises(InputError, match="is not on this machine"):
        data(tars, shards="https://host/{000..002}.tar").load_rows("train")
    content = (tars / "train-001.tar").read_bytes()
    (tars / "train-001.tar").write_bytes(content[:3000])
    with pytest.raises(InputError, match="is no whole tar"):
        data(tars).load_rows("train")


def test_one_class_more_than_names_is_said(tars):
    with pytest.raises(InputError, match="labels of the train split go from 0 to 2, but 2 classes"):
        data(tars, class_names=["ant", "bee"]).setup("fit")


def test_folders_of_images_and_tars_have_the_same_usual_transform(tars, image_root):
    tars_size = ImageTarsDataModule(shards=str(tars), image_size=64).image_size
    assert tars_size == ImageFolderDataModule(root=str(image_root), image_size=64).image_size


def test_jpeg_files_in_tars_are_sent_as_files(files, tars):
    options = {"augment": "device", "decode": "device", "canvas_size": 64}
    one, other = files(**options), data(tars, **options)
    sent = [batch[0] for batch in other.train_dataloader()]
    assert sum(len(images.ends) for images in sent) > 30
    assert_same(batches(one, "train_dataloader"), batches(other, "train_dataloader"))


def test_shards_of_tars_are_as_large_as_asked_for_and_follow_the_tar(tars, tmp_path):
    report = shard_images(data(tars), tmp_path / "set", size=CHUNK)
    assert report.chunks == pytest.approx(report.size / CHUNK, rel=0.5)
    images = data(tars).load_rows("train").source
    before = image_stamps(images)
    os.utime(tars / "train-001.tar", (1, 1))
    changed = (image_stamps(images) != before).any(axis=1)
    assert changed.tolist() == (images.tar_of == 1).tolist()
