"""Shards give the same batches as the files that they were made of."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from lit_ssl.cli.objects import class_parser
from lit_ssl.datamodules import (
    ImageFolderDataModule,
    MNIST5kDataModule,
    SemiSupervisedDataModule,
    SomeClassesDataModule,
    Subset,
)
from lit_ssl.datamodules import StreamingImageDataModule as Streaming
from lit_ssl.datamodules.reading.images import PackedStrings
from lit_ssl.datamodules.streaming.chunk_sampler import ChunkSampler
from lit_ssl.datamodules.streaming.sharding import shard_images
from lit_ssl.errors import InputError
from lit_ssl.transforms import CropSpec, MultiCrop, SingleView

sys.path.insert(0, str(Path(__file__).parent))
from streaming_sets import CHUNK, assert_same, batches, options

SCRIPT = Path(__file__).with_name("streaming_run.py")


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"num_workers": 2},
        {"augment": "device", "canvas_size": 24},
        {"val_size": 12, "subset": Subset(fraction=0.5), "drop_last": False},
        {"train_transform": None},
        {"train_transform": SingleView(CropSpec(size=10, hflip=0.5))},
        {"repeats": 2},
        {"classes_per_batch": 7, "batch_size": 14},
    ],
    ids=lambda more: "+".join(more) or "plain",
)
def test_batches_are_those_of_the_files(files, stream, more):
    one, other = files(**more), stream(**more)
    for data in (one, other):
        data.setup()
    for epoch in (0, 1):
        assert_same(*(batches(data, "train_dataloader", epoch) for data in (one, other)))
    for loader in ("val_dataloader", "test_dataloader", "bank_dataloader", "predict_dataloader"):
        assert_same(*(batches(data, loader) for data in (one, other)))
    for name in ("num_classes", "class_names", "mean", "std", "image_size", "validates_on_test"):
        mine, its = getattr(one, name), getattr(other, name)
        assert mine == its or list(mine) == list(its)


def test_a_list_names_the_same_images(files, stream, tmp_path):
    (tmp_path / "list.txt").write_text("train/ant/03.png\nbee/00.jpg\ncat/01.jpg 2\n")
    subset = Subset(file=str(tmp_path / "list.txt"))
    positions = [data.positions(subset) for data in (files(), stream())]
    assert len(positions[0]) == 3
    assert (positions[0] == positions[1]).all()


def test_digits_in_memory_are_the_same_for_both_engines(tmp_path):
    shard_images(MNIST5kDataModule(), tmp_path / "out", size=200_000)
    recipe = MultiCrop([CropSpec(size=20, count=2, hflip=0.5, brightness=0.4)])
    subset = Subset(per_class=6)
    for augment in ("worker", "device"):
        more = {"batch_size": 32, "augment": augment, "train_transform": recipe, "subset": subset}
        one = MNIST5kDataModule(**more)
        other = Streaming(url=str(tmp_path / "out"), num_workers=0, **more)
        assert other.val_size == one.val_size == 500
        assert_same(*(batches(data, "train_dataloader") for data in (one, other)))
        assert one.validates_on_test == other.validates_on_test
    for loader in ("val_dataloader", "test_dataloader"):
        assert_same(*(batches(data, loader) for data in (one, other)))


def test_paws_draws_the_same_supports(files, stream):
    seen = []
    for data in (files(), stream()):
        both = SemiSupervisedDataModule(data, images_per_class=2)
        both.setup("fit")
        seen.append([batch for batch, *_ in both.train_dataloader()])
    for one, other in zip(*seen, strict=True):
        for part in ("unlabelled", "support"):
            (views, labels), (others, their_labels) = one[part], other[part]
            assert torch.equal(views[0], others[0])
            assert torch.equal(labels, their_labels)


def test_the_command_line_knows_all_options(shard_root):
    """Those of the base class, too, so that a recipe keeps its views when the data are streamed."""
    options = class_parser(Streaming).get_defaults().as_dict()
    theirs = class_parser(ImageFolderDataModule).get_defaults().as_dict()
    assert set(theirs) - {"root", "image_size", "labelled", "layout", "allow_empty"} <= set(options)


# chunk by chunk


def orders(stream, **more):
    data = stream(shuffle="chunks", batch_size=1, train_transform=None, **more)
    data.setup("fit")
    sampler = data.train_dataloader().sampler
    return data, [sampler.order(epoch) for epoch in (0, 0, 1)]


def test_chunks_come_near_each_other_and_each_image_once(stream):
    data, (order, again, later) = orders(stream, window=2)
    assert (order == again).all()
    assert (order != later).any()
    chunk = data.rows("train").source.images.chunk
    for one in (order, later):
        assert sorted(one) == list(range(60))
        begun, ended = [], set()
        for place, row in enumerate(one):
            if chunk[row] not in begun:
                begun.append(chunk[row])
            if chunk[row] not in chunk[one[place + 1 :]]:
                ended.add(chunk[row])
            # chunk c begins behind place c of the chunks and ends before place c + window
            assert len(set(begun) - ended) <= 3
    _, (other, *_) = orders(stream, window=2, seed=5)
    assert (order != other).any()


def test_a_wide_window_mixes_all_chunks():
    chunk_of = np.repeat(np.arange(50), 20)
    sampler = ChunkSampler(range(1000), chunk_of, 50, seed=1)
    order = sampler.order(0)
    assert len(set(chunk_of[order[400:500]])) > 25


def test_chunks_and_batches_of_few_classes_exclude_each_other(stream):
    for more in ({"repeats": 2}, {"classes_per_batch": 7}):
        with pytest.raises(InputError, match="both order an epoch"):
            stream(shuffle="chunks", **more)
    with pytest.raises(InputError, match="shuffle must be"):
        stream(shuffle="all")
    with pytest.raises(InputError, match="window must be at least 1"):
        stream(window=0)


# training


class Seen(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.fail_at = [], None

    def training_step(self, batch, batch_idx):
        if self.fail_at == len(self.seen):
            raise RuntimeError("power cut")
        views, labels = batch
        self.seen.append((labels.tolist(), float(views[0].double().sum())))
        return self.weight * views[0].mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data, folder, fail_at=None, ckpt=None):
    module = Seen()
    module.fail_at = fail_at
    saver = pl.callbacks.ModelCheckpoint(
        folder, filename="{step}", every_n_train_steps=3, save_top_k=-1
    )
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=2, logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[saver], limit_val_batches=0,
    )  # fmt: skip
    cut = nullcontext() if fail_at is None else pytest.raises(RuntimeError, match="power cut")
    with cut:
        trainer.fit(module, datamodule=data, ckpt_path=ckpt, weights_only=True)
    return module.seen


@pytest.mark.parametrize("shuffle", ["rows", "chunks"])
def test_a_run_goes_on_in_the_middle_of_an_epoch(files, stream, tmp_path, shuffle):
    more = {"shuffle": shuffle, "window": 2}
    whole = fit(stream(**more), tmp_path / "whole")
    if shuffle == "rows":
        assert whole == fit(files(), tmp_path / "files")
    assert fit(stream(**more), tmp_path / "cut", fail_at=5) == whole[:5]
    rest = fit(stream(**more), tmp_path / "rest", ckpt=tmp_path / "cut/step=3.ckpt")
    assert rest == whole[3:]


def test_another_window_is_said_when_a_run_goes_on(stream, tmp_path):
    fit(stream(shuffle="chunks", window=2), tmp_path / "cut", fail_at=5)
    with pytest.warns(UserWarning, match=r"shuffle_window 2 -> 3"):
        fit(
            stream(shuffle="chunks", window=3),
            tmp_path / "rest",
            ckpt=tmp_path / "cut/step=3.ckpt",
        )


@pytest.mark.distributed
def test_two_processes_equal_the_files(image_root, shard_root, tmp_path):
    command = [sys.executable, str(SCRIPT), str(image_root), str(shard_root), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in (0, 1):
        seen = json.loads((tmp_path / f"whole-{rank}.json").read_text())
        assert seen["stream"] == seen["files"]
        assert len(seen["stream"]) == 2 * (60 // 2 // 7)
        assert seen["bank"] == list(range(rank, 60, 2))


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_that_are_killed_go_on_with_the_same_batches(
    image_root, shard_root, tmp_path
):
    command = [sys.executable, str(SCRIPT), str(image_root), str(shard_root), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    killed = subprocess.run(
        [*command, "kill"], capture_output=True, text=True, timeout=250, start_new_session=True
    )
    assert killed.returncode != 0
    assert not list(tmp_path.glob("rest-*.json"))
    done = subprocess.run([*command, "rest"], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in (0, 1):
        seen = json.loads((tmp_path / f"whole-{rank}.json").read_text())
        rest = json.loads((tmp_path / f"rest-{rank}.json").read_text())
        assert rest["stream"] == seen["stream"][3:]


# what is wrong with them


@pytest.fixture
def spoilt(shard_root, tmp_path):
    shutil.copytree(shard_root, tmp_path / "set")
    return tmp_path / "set"


def change(path, function):
    values = json.loads(path.read_text())
    function(values)
    path.write_text(json.dumps(values))


def with_column(folder, name, function):
    """Give the training split another column, in a file with a checksum that is right."""
    path = folder / "train/rows.npz"
    arrays = dict(np.load(path))
    np.savez(path, **{**arrays, f"column.{name}": function(arrays["column.label"])})
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    change(folder / "lit_ssl.json", lambda m: m["splits"]["train"].update(rows_sha256=sha256))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda s: (s / "train/chunk-0-2.bin").unlink(), "chunk-0-2.bin is missing"),
        (lambda s: os.truncate(s / "train/chunk-0-2.bin", 100), "has 100 of .* bytes"),
        (lambda s: os.truncate(s / "train/rows.npz", 100), "rows.npz is damaged .*checksum"),
        (lambda s: (s / "lit_ssl.json").write_text("{"), "lit_ssl.json is damaged"),
        (lambda s: (s / "lit_ssl.json").unlink(), "no shards of images"),
        (lambda s: change(s / "lit_ssl.json", lambda m: m.pop("mean")), "is damaged"),
        (lambda s: change(s / "lit_ssl.json", lambda m: m.update(version=2)), "is of version 2"),
        (lambda s: change(s / "lit_ssl.json", lambda m: m.update(mean=["a"])), "is damaged"),
        (
            lambda s: change(
                s / "lit_ssl.json",
                lambda m: m["splits"]["train"]["chunks"][0].__setitem__(0, "../../etc/passwd"),
            ),
            "is damaged",
        ),
        (lambda s: change(s / "lit_ssl.json", lambda m: m.update(std=[0, 0, 0])), "not positive"),
        (lambda s: change(s / "lit_ssl.json", lambda m: m.update(mean=[2e6] * 3)), "mean is no"),
        (lambda s: change(s / "lit_ssl.json", lambda m: m.update(version=True)), "version True"),
        (
            lambda s: change(s / "lit_ssl.json", lambda m: m.update(chosen_by=["box", "boxes"])),
            r"does not go with its split train \(chosen_by: it has no column 'box'",
        ),
        (
            lambda s: change(s / "lit_ssl.json", lambda m: m.update(class_names=["ant"])),
            r"does not go with its split train \(class_names: 1, and labels go up to 2",
        ),
        (
            lambda s: change(s / "lit_ssl.json", lambda m: m["eval_transform"].update(size=1.5)),
            "size is no number of pixels",
        ),
        (
            lambda s: change(s / "lit_ssl.json", lambda m: m["eval_transform"].update(resize=1e9)),
            "resize is no number of pixels",
        ),
        (lambda s: with_column(s, "label", lambda labels: labels * np.nan), "labels are float64"),
        (lambda s: with_column(s, "label", lambda labels: labels[:, None]), "labels are .*, 1]"),
        (lambda s: with_column(s, "other", lambda labels: labels.astype(str)), "'other' is <U"),
    ],
    ids=[
        "gone", "cut", "rows", "no-json", "no-manifest", "field", "version", "mean", "path", "std",
        "large", "version-true", "units", "classes", "half-pixels", "pixels", "nan", "wide", "text",
    ],
)  # fmt: skip
def test_what_is_broken_is_one_line_before_training(stream, spoilt, damage, words):
    damage(spoilt)
    with pytest.raises(InputError, match=words):
        stream(spoilt).setup("fit")


def test_a_damaged_image_stops_even_where_unreadable_ones_are_skipped(stream, spoilt):
    data = stream(spoilt, on_corrupt="skip")
    data.setup("fit")
    images = data.rows("train").source.images
    path = spoilt / "train" / f"chunk-0-{images.chunk[5]}.bin"
    content = bytearray(path.read_bytes())
    content[images.offset[5] + 10] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"ant/05.jpg in .* is damaged \(its checksum is wrong\)"):
        batches(data, "bank_dataloader")


def test_an_image_that_never_was_one_is_skipped_as_in_files(image_root, tmp_path):
    shutil.copytree(image_root, tmp_path / "images")
    (tmp_path / "images/train/bee/01.jpg").write_bytes(b"no picture")
    made = ImageFolderDataModule(root=str(tmp_path / "images"))
    shard_images(made, tmp_path / "out", size=CHUNK)
    more = options(on_corrupt="skip")
    one = ImageFolderDataModule(root=str(tmp_path / "images"), **more)
    other = Streaming(url=str(tmp_path / "out"), **more)
    with pytest.warns(UserWarning, match="Skipped"):
        assert_same(*(batches(data, "bank_dataloader") for data in (one, other)))
    assert other.num_corrupt == 1


class Bomb:
    def __reduce__(self):
        return (os.mkdir, (os.environ["LIT_SSL_TEST_BOMB"],))


def test_a_hostile_shard_runs_nothing(shard_root, spoilt, stream, tmp_path, monkeypatch):
    """A set that says it holds pickles is refused; one that lies never reaches an unpickler."""
    litdata_writer = pytest.importorskip("litdata.streaming.writer")
    monkeypatch.setenv("LIT_SSL_TEST_BOMB", str(tmp_path / "exploded"))
    writer = litdata_writer.BinaryWriter(str(tmp_path / "hostile"), chunk_size=100)
    for row in range(3):
        writer[row] = (Bomb(), row)
    writer.done()
    writer.merge()
    index = json.loads((tmp_path / "hostile/index.json").read_text())
    assert "pickle" in index["config"]["data_format"]

    def lie(manifest):
        manifest["splits"]["train"]["format"] = index["config"]["data_format"]

    change(spoilt / "lit_ssl.json", lie)
    with pytest.raises(InputError, match=r"only shards of .* are read, which run no code"):
        stream(spoilt)
    # litdata's own index is not read: what it says does not matter
    shutil.copy(shard_root / "lit_ssl.json", spoilt)
    shutil.copy(tmp_path / "hostile/index.json", spoilt / "train")
    data = stream(spoilt)
    batches(data, "train_dataloader")
    # and a chunk of pickles is no image
    images = data.rows("train").source.images
    name = images.shards.files[0].name
    chunk = (tmp_path / "hostile/chunk-0-0.bin").read_bytes()
    size = (spoilt / "train" / name).stat().st_size
    (spoilt / "train" / name).write_bytes(chunk.ljust(size, b"\0")[:size])
    with pytest.raises(InputError, match="is damaged"):
        batches(stream(spoilt), "train_dataloader")
    assert not (tmp_path / "exploded").exists()


def test_a_name_with_control_characters_stays_one_line(stream, spoilt):
    with_column(spoilt, "other", lambda labels: labels)
    data = stream(spoilt)
    images = data.rows("train").source.images
    images.names = PackedStrings(["a\n\x1b[2J"] * len(images))
    images.crc = images.crc + 1
    with pytest.raises(InputError, match=r"^'a\\n\\x1b\[2J' in .* is damaged"):
        images.encoded(0)


def test_some_classes_of_shards_have_their_own_order(stream):
    with pytest.raises(InputError, match="mixes its images itself: leave out shuffle"):
        SomeClassesDataModule(stream(shuffle="chunks"), classes=[0])
