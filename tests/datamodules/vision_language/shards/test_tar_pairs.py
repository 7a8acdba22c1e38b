"""Pairs in tars on disk: the index, random access, and tars as they should not be."""

from __future__ import annotations

import json
import os
import pickle
import tarfile
import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lit_ssl.datamodules import (
    CorruptImageError,
    ImageCaptionModule,
    Subset,
    TarPairs,
    VLPretrainDataModule,
)
from lit_ssl.datamodules.vision_language.shards import tar_members, tar_pairs
from lit_ssl.datamodules.vision_language.shards.tar_index import index_path
from lit_ssl.datamodules.vision_language.shards.tar_members import CorruptShardError
from lit_ssl.errors import InputError
from lit_ssl.files import write_file


class Module(ImageCaptionModule):
    def __init__(self, source, **kwargs):
        options = {"num_workers": 0, "batch_size": 4, "image_size": 8, "mean": [0.0] * 3}
        super().__init__(**{**options, "std": [1.0] * 3, **kwargs})
        self.hparams.pop("source", None)
        self.source = source

    def load_rows(self, split):
        return self.source.load_rows(split)


def reds(rows):
    return [int(rows.source.read(row)[0, 0, 0]) for row in range(len(rows))]


# What is read


def test_rows(shards, tmp_path):
    folder = shards(tmp_path / "cc3m", [3, 1, 4])
    source = TarPairs(str(folder / "{00000..00002}.tar"))
    rows = source.load_rows("train")
    for shards_of in ("/{00000..00002}.tar", "/*.tar", "/*", "/", ""):
        assert TarPairs(f"{folder}{shards_of}").name == "cc3m"
    assert rows.source.texts == [str(number) for number in range(8)]
    assert reds(rows) == list(range(8))
    assert rows.columns["image_number"].tolist() == list(range(8))
    assert rows.labels.tolist() == [-1] * 8
    assert [rows.name(row) for row in (0, 3, 7)] == [
        "00000.tar/000000000", "00001.tar/000000003", "00002.tar/000000007",
    ]  # fmt: skip
    assert source.load_rows("val") is None
    assert source.load_rows("test") is None
    image = rows.source.read(5)
    assert image.shape == (3, 9, 12)
    assert image.dtype == torch.uint8
    assert rows.source.images.read(5, max_side=6).shape[-1] == 6


def test_splits_and_ways_to_name_shards(shards, tmp_path):
    folder = shards(tmp_path / "a", [2, 3])
    other = shards(tmp_path / "b", [1], first=50)
    source = TarPairs(
        [str(folder / "*.tar"), str(other)],
        val_shards=str(other / "00000.tar"),
        test_shards=str(folder / "0000{1,0}.tar"),
    )
    train = source.load_rows("train")
    assert train.source.texts == ["0", "1", "2", "3", "4", "50"]
    assert train.name(5) == "b/00000.tar/000000050"
    assert source.load_rows("val").source.texts == ["50"]
    assert source.load_rows("test").source.texts == ["2", "3", "4", "0", "1"]


@pytest.mark.parametrize(("caption", "first"), [("txt", "0"), ("caption", "json 0")])
def test_captions_from_text_or_json(shards, tmp_path, caption, first):
    folder = shards(tmp_path, [2])
    # Both indices may lie beside each other.
    TarPairs(str(folder)).load_rows("train")
    rows = TarPairs(str(folder), caption=caption).load_rows("train")
    assert rows.source.texts[0] == first


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "png", "webp"])
def test_suffixes(tar, members, tmp_path, suffix):
    # An image is opened by what is in it.
    tar(tmp_path / "0.tar", [*members(3, suffix), *members(4, suffix)])
    assert reds(TarPairs(str(tmp_path)).load_rows("train")) == [3, 4]


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_folders_long_names_and_names_that_climb(tar, members, tmp_path, kind):
    folder = tarfile.TarInfo("./")
    folder.type = tarfile.DIRTYPE
    link = tarfile.TarInfo("000000009.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    long = "x" * (60 if kind == tarfile.USTAR_FORMAT else 300)
    entries = [folder, link]
    for number, key in enumerate(
        ["./a/0", "../../x", f"{long}/{long}", "/root/y", "d.ir/z", "\u00fc\u4e2d", "\udcff"]
    ):
        entries += [(key + name[9:], content) for name, content in members(number)]
    path = tar(tmp_path / "in/0.tar", entries, kind)
    rows = TarPairs(str(path), index_dir=str(tmp_path / "index")).load_rows("train")
    assert reds(rows) == list(range(7))
    names = [rows.name(row).removeprefix("0.tar/") for row in range(7)]
    assert names[:2] == ["a/0", "../../x"]
    assert names[4:] == ["d.ir/z", "\u00fc\u4e2d", "\udcff"]
    # Nothing is unpacked.
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["in", "index"]
    assert [entry.name for entry in (tmp_path / "in").iterdir()] == ["0.tar"]
    assert pickle.loads(pickle.dumps(rows.source)).read(1)[0, 0, 0] == 1


# The index


def test_a_tar_is_read_once_and_again_where_it_has_changed(shards, tar, members, tmp_path):
    folder = shards(tmp_path / "cc", [2, 2])
    source = TarPairs(str(folder), index_dir=str(tmp_path / "index"))
    source.load_rows("train")
    kept = sorted((tmp_path / "index").rglob("*.npz"))
    assert len(kept) == 2
    assert not (folder / ".lit_ssl_index").exists()
    times = [path.stat().st_mtime_ns for path in kept]
    assert source.load_rows("train").source.texts == ["0", "1", "2", "3"]
    assert [path.stat().st_mtime_ns for path in kept] == times
    before = (folder / "00001.tar").stat()
    tar(folder / "00001.tar", [*members(7), *members(8)])  # of the same size
    assert (folder / "00001.tar").stat().st_size == before.st_size
    os.utime(folder / "00001.tar", ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))
    rows = source.load_rows("train")
    assert rows.source.texts == ["0", "1", "7", "8"]
    assert reds(rows) == [0, 1, 7, 8]
    kept[0].write_bytes(kept[0].read_bytes()[:100])
    kept[1].write_bytes(b"")
    assert source.load_rows("train").source.texts == ["0", "1", "7", "8"]


def test_sets_with_the_same_names_share_a_folder_of_indices(shards, tmp_path):
    for name, first in (("a", 0), ("b", 10)):
        shards(tmp_path / name, [2], first=first)
        source = TarPairs(str(tmp_path / name), index_dir=str(tmp_path / "index"))
        assert source.load_rows("train").source.texts[0] == str(first)
    assert len(list((tmp_path / "index").rglob("*.npz"))) == 2


def test_an_index_that_cannot_be_written(shards, tmp_path):
    folder = shards(tmp_path, [1])
    (folder / ".lit_ssl_index").write_text("a file")
    with pytest.raises(
        InputError, match=r"index of .*00000\.tar cannot be written .* set index_dir"
    ):
        TarPairs(str(folder)).load_rows("train")


def test_processes_begin_at_different_tars(shards, tmp_path, monkeypatch):
    folder = shards(tmp_path / "cc", [1] * 6)
    made = []
    original = tar_pairs.index_tar
    monkeypatch.setattr(
        tar_pairs, "index_tar", lambda tar, *rest: made.append(tar.name) or original(tar, *rest)
    )
    monkeypatch.setattr(tar_pairs, "world_size", lambda: 3)
    monkeypatch.setattr(tar_pairs, "process_rank", lambda: 2)
    rows = TarPairs(str(folder)).load_rows("train")
    assert rows.source.texts == [str(number) for number in range(6)]
    assert made[0] == "00004.tar"
    assert sorted(made) == [f"0000{number}.tar" for number in range(6)]
    # What another process has made meanwhile is not made again.
    made.clear()
    for path in (folder / ".lit_ssl_index").iterdir():
        path.unlink()
    first = [index_path(folder / "00002.tar", "txt", None)]

    def stored(tar, caption, path, known=tar_pairs.stored_index):
        if path in first and made:
            original(tar, caption, path)
            first.clear()
        return known(tar, caption, path)

    monkeypatch.setattr(tar_pairs, "stored_index", stored)
    TarPairs(str(folder)).load_rows("train")
    assert "00002.tar" not in made


def test_few_files_stay_open(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(tar_pairs, "_MOST_OPEN", 2)
    rows = TarPairs(str(shards(tmp_path, [1] * 5))).load_rows("train")
    for row in (0, 4, 1, 3, 2, 0):
        assert int(rows.source.read(row)[0, 0, 0]) == row
    assert len(rows.source.images._files._files) == 2


# What is no pair


def broken(folder, shards, keep):
    path = shards(folder, [3, 3]) / "00001.tar"
    content = path.read_bytes()
    path.write_bytes(content[: keep if keep < 0 else int(keep)])
    return path


BLOCKS = {
    # a sample is 3 headers and 3 files of a block each
    "in an image": (6 * 512 + 700, ["3"]),
    "behind a header": (6 * 512 + 512, ["3"]),
    "in a header": (6 * 512 + 200, []),
    "between samples": (12 * 512, ["3"]),
    "all but the end mark": (18 * 512, ["3", "4"]),
    "at the very beginning": (300, []),
    "empty": (0, []),
}


@pytest.mark.parametrize("case", BLOCKS)
def test_a_tar_that_is_cut_short(shards, tmp_path, case):
    keep, rest = BLOCKS[case]
    path = broken(tmp_path, shards, keep)
    with pytest.raises(CorruptShardError, match=r"00001\.tar is no whole tar \(.*on_corrupt: skip"):
        TarPairs(str(tmp_path)).load_rows("train")
    with pytest.warns(UserWarning, match=r"00001\.tar is no whole tar .*pairs before are used"):
        rows = TarPairs(str(tmp_path), on_corrupt="skip").load_rows("train")
    # The last sample before a cut is not known to be whole.
    assert rows.source.texts == ["0", "1", "2", *rest]
    assert reds(rows) == [int(text) for text in rows.source.texts]
    assert path.exists()


def test_other_files_than_tars(shards, tmp_path):
    folder = shards(tmp_path, [1, 1])
    path = folder / "00001.tar"
    whole = path.read_bytes()
    for content, why in (
        (b"<html>404</html>" * 100, "no whole tar"),
        (b"\x1f\x8b" + bytes(600), r"no whole tar \(it is compressed"),
        (whole + whole, "more follows behind its end mark"),
        (whole[:2048] + b"\xff" * 512 + whole[2560:], "no file of a tar at byte 2,048"),
    ):
        path.write_bytes(content)
        with pytest.raises(CorruptShardError, match=why):
            TarPairs(str(folder)).load_rows("train")


def test_what_cannot_be_opened(shards, tmp_path):
    folder = shards(tmp_path, [1])
    (folder / "sub.tar").mkdir()
    with pytest.raises(InputError, match=r"sub\.tar cannot be read \(.*leave it out"):
        TarPairs(str(folder)).load_rows("train")


def test_a_failing_disk_leaves_no_index(shards, tmp_path, monkeypatch):
    """Else the tar would count as broken when the disk works again."""
    folder = shards(tmp_path, [2])
    read = tar_members._Forward.read

    def fails(self, size):
        if self.tell() > 1024:
            raise OSError(5, "Input/output error")
        return read(self, size)

    with monkeypatch.context() as patch:
        patch.setattr(tar_members._Forward, "read", fails)
        with pytest.raises(CorruptShardError, match="Input/output error"):
            TarPairs(str(folder)).load_rows("train")
    assert len(TarPairs(str(folder)).load_rows("train")) == 2


def test_two_machines_write_one_file_at_once(tmp_path):
    """In containers, processes on several machines may have one number."""

    def write(file):
        file.write("outer")
        write_file(tmp_path / "index", lambda inner: inner.write("inner"))

    write_file(tmp_path / "index", write)
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
    assert (tmp_path / "index").read_text() == "outer"


def test_names_of_folders(shards, tmp_path, monkeypatch):
    folder = shards(tmp_path / "cc3m", [1])
    monkeypatch.chdir(folder)
    for given in (str(folder), f"{folder}/", f"{folder}/*.tar", ".", "00000.tar", ["00000.tar"]):
        assert TarPairs(given).name == "cc3m", given
    assert TarPairs("https://host/cc3m/{0..3}.tar").name == "cc3m"


def test_one_tar_by_two_names(shards, tmp_path):
    folder = shards(tmp_path / "a", [1])
    (tmp_path / "link").symlink_to(folder)
    for other in (f"{folder}/../a/00000.tar", str(tmp_path / "link" / "00000.tar")):
        with pytest.raises(InputError, match="is named twice"):
            TarPairs([str(folder / "00000.tar"), other]).load_rows("train")


def test_a_header_with_a_false_size(shards, tmp_path):
    folder = shards(tmp_path, [2])
    path = folder / "00000.tar"
    content = bytearray(path.read_bytes())
    content[124:136] = b"\xff" * 8 + (-1024).to_bytes(4, "big", signed=True)  # base 256
    content[148:156] = b"        "
    content[148:156] = b"%06o\0 " % sum(content[:512])
    path.write_bytes(bytes(content))
    with pytest.raises(CorruptShardError, match="no whole tar"):
        TarPairs(str(folder)).load_rows("train")


def test_an_empty_tar_is_said(shards, tar, tmp_path):
    folder = shards(tmp_path, [2])
    tar(folder / "00001.tar", [])
    with pytest.warns(UserWarning, match=r"1 tars have no pair, such as .*00001\.tar"):
        rows = TarPairs(str(folder)).load_rows("train")
    assert len(rows) == 2


def test_samples_that_are_no_pairs_are_counted(tar, members, tmp_path):
    image, fields, text = zip(*(members(number) for number in range(9)), strict=True)
    tar(
        tmp_path / "0.tar",
        [
            ("README", b"no suffix"), ("._000000000.png", b"of a Mac"),
            *members(0),
            fields[1],  # a download that failed
            text[2], fields[2],
            image[3], fields[3],
            image[4], ("000000004.txt", b" \n"),
            ("000000005.png", b""), text[5],
            *members(6), *members(0), text[7], image[7],
            *members(8), image[8],
        ],
    )  # fmt: skip
    with pytest.warns(UserWarning, match="left out") as caught:
        rows = TarPairs(str(tmp_path)).load_rows("train")
    assert rows.source.texts == ["0", "6", "7", "8"]
    assert reds(rows) == [0, 6, 7, 8]
    (line,) = [str(one.message) for one in caught if "left out" in str(one.message)]
    assert "3 samples without an image (such as" in line
    assert "2 samples without a caption (such as" in line
    assert "1 samples that come twice (such as" in line
    assert "1 members that come twice" in line
    assert "0.tar: '000000001'" in line
    with warnings.catch_warnings():  # the second time from the index
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="3 samples without an image"):
            TarPairs(str(tmp_path)).load_rows("train")


@pytest.mark.parametrize(
    ("caption", "suffix", "content"),
    [
        ("txt", "txt", b"caf\xe9"),
        ("caption", "json", b"{"),
        ("caption", "json", b"[1]"),
        ("caption", "json", b'{"caption": 3}'),
        ("caption", "json", b'{"caption": "\\ud800"}'),
        ("caption", "json", b"[" * 100_000),
    ],
)
def test_captions_that_are_no_text(tar, members, tmp_path, caption, suffix, content):
    one = members(1)
    tar(tmp_path / "0.tar", [*members(0), one[0], (f"{one[0][0][:9]}.{suffix}", content)])
    message = r"1 captions that are no text in UTF-8 .*0\.tar: '000000001'.*on_corrupt: skip"
    with pytest.raises(CorruptShardError, match=message):
        TarPairs(str(tmp_path), caption=caption).load_rows("train")
    with pytest.warns(UserWarning, match="1 captions that are no text"):
        rows = TarPairs(str(tmp_path), caption=caption, on_corrupt="skip").load_rows("train")
    assert len(rows) == 1


def test_a_byte_order_mark_is_no_word(tar, members, tmp_path):
    image = members(1)[0]
    tar(tmp_path / "0.tar", [image, (image[0][:9] + ".txt", b"\xef\xbb\xbf a \xc3\xbc\r\n")])
    assert TarPairs(str(tmp_path)).load_rows("train").source.texts == ["a \u00fc"]


def test_no_pairs_at_all(tar, members, shards, tmp_path):
    whole = [members(number) for number in range(3)]
    images, texts = [one[0] for one in whole], [one[2] for one in whole]
    tar(tmp_path / "apart/0.tar", images + texts)
    with pytest.raises(
        InputError, match=r"no pair .* 3 samples that come twice .*followed by <key>"
    ):
        TarPairs(str(tmp_path / "apart")).load_rows("train")
    folder = shards(tmp_path / "other", [2])
    with pytest.raises(InputError, match=r"2 samples without a caption .*with a text 'title'; set"):
        TarPairs(str(folder), caption="title").load_rows("train")


def test_shards_that_are_not_there(shards, tmp_path):
    folder = shards(tmp_path / "cc", [1, 1])
    for names, message in (
        (
            str(folder / "{00000..00003}.tar"),
            r"2 of the 4 that .* not there \(.*00002\.tar, .*00003",
        ),
        (
            str(folder / "x*.tar"),
            r"1 of the 1 that .*x\*\.tar names are not there\. Found: .*holds",
        ),
        (str(folder / "{3..1}.tar"), "counts from 3 down to 1"),
        (str(folder / "{0..99999999}.tar"), "more than 1,000,000"),
        ([str(folder), str(folder / "00000.tar")], "00000.tar is named twice"),
        ([], "at least one"),
        ("http://host/0.tar", "stream it with CaptionShardsDataModule"),
    ):
        with pytest.raises(InputError, match=message):
            TarPairs(names).load_rows("train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no \*\.tar in .*empty is empty"):
        TarPairs(str(tmp_path / "empty")).load_rows("train")
    with pytest.raises(InputError, match="on_corrupt must be"):
        TarPairs("x", on_corrupt="ignore")


def test_an_image_that_cannot_be_decoded(tar, members, tmp_path):
    bad = members(1)
    tar(tmp_path / "0.tar", [*members(0), (bad[0][0], bad[0][1][:40]), *bad[1:]])
    rows = TarPairs(str(tmp_path)).load_rows("train")
    with pytest.raises(CorruptImageError, match=r"0\.tar/000000001 \(in .*0\.tar\)"):
        rows.source.read(1)


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_whose_image_cannot_be_decoded(tar, members, tmp_path, vocabulary, numbers, workers):
    bad = members(1)
    tar(tmp_path / "0.tar", [*members(0), (bad[0][0], bad[0][1][:40]), *bad[1:], *members(2)])
    options = {"tokenizer": vocabulary, "num_workers": workers, "batch_size": 3}
    source = TarPairs(str(tmp_path), val_shards=str(tmp_path))
    with pytest.raises(CorruptImageError, match=r"0\.tar/000000001 .*set on_corrupt: skip"):
        list(Module(source, **options).val_dataloader())
    data = Module(source, on_corrupt="skip", other_images=True, **options)
    ((inputs, image_numbers),) = data.val_dataloader()
    # Never a caption with another image: the next row, with all that is its own.
    assert numbers(inputs) == [0, 2, 2]
    assert image_numbers.tolist() == [0, 2, 2]
    assert data.num_corrupt == 1
    ((inputs, image_numbers),) = data.train_dataloader()
    assert numbers(inputs) == image_numbers.tolist()
    assert set(inputs["other_images"][:, 0].float().mean((1, 2)).round().tolist()) <= {0, 2}


def test_a_tar_that_shrinks_while_it_is_used(shards, tmp_path):
    rows = TarPairs(str(shards(tmp_path, [2]))).load_rows("train")
    (tmp_path / "00000.tar").write_bytes(b"")
    with pytest.raises(CorruptImageError, match="shorter than it was"):
        rows.source.read(1)
    (tmp_path / "00000.tar").unlink()
    rows.source.images._files.__init__()
    with pytest.raises(CorruptImageError, match="No such file"):
        rows.source.read(1)


# As rows of a data module


def test_batches_with_workers(shards, tmp_path, vocabulary, numbers):
    source = TarPairs(str(shards(tmp_path / "a", [5, 1, 4])), val_shards=str(tmp_path / "a"))
    data = Module(source, tokenizer=vocabulary, num_workers=2, batch_size=3)
    data.setup("fit")
    assert list(data.source.load_rows("train").source.read(0).shape) == [3, 9, 12]
    seen = []
    for inputs, image_numbers in data.train_dataloader():
        assert inputs["images"].shape == (3, 3, 8, 8)
        assert inputs["images"].dtype == torch.uint8
        assert inputs["word_ids"][:, :3].tolist() == [[-1, 0, -1]] * 3
        assert numbers(inputs) == image_numbers.tolist()
        seen += image_numbers.tolist()
    assert len(set(seen)) == 9
    assert seen != sorted(seen)
    batches = list(data.val_dataloader())
    assert [len(image_numbers) for _, image_numbers in batches] == [3, 3, 3, 1]
    assert [number for inputs, _ in batches for number in numbers(inputs)] == list(range(10))


def test_mixed_with_another_source(shards, tmp_path, vocabulary, numbers):
    first = TarPairs(str(shards(tmp_path / "a", [3, 2])))
    second = TarPairs(str(shards(tmp_path / "b", [4], first=50)), val_shards=str(tmp_path / "a"))
    options = {"tokenizer": vocabulary, "num_workers": 0, "batch_size": 4, "image_size": 8}
    data = VLPretrainDataModule(sources=[first, second], weights={"a": 1, "b": 3}, **options)
    data.setup("fit")
    assert data.rows("train").name(4) == "a/00001.tar/000000004"
    seen = [number for inputs, _ in data.train_dataloader() for number in numbers(inputs)]
    assert sum(number >= 50 for number in seen) == 6
    inputs, image_numbers = next(iter(data.val_dataloader()))
    assert numbers(inputs) == image_numbers.tolist() == [0, 1, 2, 3]


def test_forked_workers_share_no_position(shards, tmp_path):
    rows = TarPairs(str(shards(tmp_path, [100]))).load_rows("train")
    rows.source.read(0)  # the tar is open before the fork

    class Reds(torch.utils.data.Dataset):
        def __len__(self):
            return 100

        def __getitem__(self, row):
            return int(rows.source.read(row)[0, 0, 0])

    loader = DataLoader(Reds(), batch_size=1, num_workers=3, multiprocessing_context="fork")
    assert [int(value) for value in loader] == list(range(100))


def test_subset_and_hold_out_by_name(shards, tmp_path, vocabulary):
    source = TarPairs(str(shards(tmp_path / "a", [2, 3])))
    (tmp_path / "list.txt").write_text("00001.tar/000000004\n00000.tar/000000001\n")
    data = Module(source, tokenizer=vocabulary, subset=Subset(file=str(tmp_path / "list.txt")))
    data.setup("fit")
    assert data.column("image_number", "train").tolist() == [1, 4]


def test_resume_in_the_middle_of_an_epoch(shards, tmp_path, vocabulary, fit, save_everywhere):
    folder = shards(tmp_path / "a", [5, 3, 6])

    def make(workers=0):
        return Module(
            TarPairs(str(folder)), tokenizer=vocabulary, batch_size=3, num_workers=workers, seed=1
        )

    saved = tmp_path / "saved"
    saved.mkdir()
    whole = fit(make(), callbacks=[save_everywhere(saved)])
    assert len(whole.seen) == 12
    assert whole.seen[0][1] != whole.seen[4][1]
    for name, workers in (("02-batch", 2), ("04-epoch", 0), ("07-batch", 0)):
        rest = fit(make(workers), saved / f"{name}.ckpt")
        assert rest.seen == whole.seen[int(name[:2]) :]


def test_an_index_of_many_members(tar, tmp_path):
    """Order and offsets in a tar of thousands, against tarfile's own."""
    rng = np.random.default_rng(0)
    entries = []
    for number in range(1500):
        size = int(rng.integers(1, 3000))
        entries += [(f"{number:05d}.jpg", rng.bytes(size)), (f"{number:05d}.txt", b"a b")]
        if number % 3 == 0:
            entries.append((f"{number:05d}.json", json.dumps({"n": number}).encode()))
    path = tar(tmp_path / "0.tar", entries)
    images = TarPairs(str(path)).load_rows("train").source.images
    with tarfile.open(path) as whole, path.open("rb") as file:
        for row in range(0, 1500, 7):
            file.seek(int(images.offsets[row]))
            content = file.read(int(images.sizes[row]))
            assert content == whole.extractfile(f"{row:05d}.jpg").read()
