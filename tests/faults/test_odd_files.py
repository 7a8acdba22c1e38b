"""Pipes, closed folders, broken archives, odd digits, bombs: one line each, at once."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from lit_ssl.arrays import ArrayFileError, read_array, read_arrays
from lit_ssl.cells import name_of_cell, plain_cell
from lit_ssl.datamodules import CIFAR10DataModule, ImageFolderDataModule
from lit_ssl.datamodules.reading.decoding import CorruptImageError, read_image
from lit_ssl.datamodules.reading.folders import missing_images
from lit_ssl.datamodules.selection.lists import read_lines
from lit_ssl.errors import InputError, InputFileNotFoundError, OutputError, listed, quoted
from lit_ssl.files import read_text, text_lines, write_csv, write_file, write_json
from lit_ssl.json_text import JSONError, parse_json
from lit_ssl.numerals import finite_number, whole_number
from lit_ssl.opening import open_file

IS_ROOT = os.geteuid() == 0


@pytest.mark.parametrize("text", ["٣", "1_000", "+5", " 5", "5\u00a0", "1e3", "²", "", "9" * 5000])
def test_only_plain_digits_are_whole_numbers(text):
    assert whole_number(text) is None
    assert whole_number("-12") == -12


@pytest.mark.parametrize("text", ["nan", "inf", "1e999", "1_0.5", "٣", "0x10", "1" * 1000, ""])
def test_only_finite_plain_numbers_are_numbers(text):
    assert finite_number(text) is None
    assert [finite_number(t) for t in ("5", "-.5", "1.e3")] == [5, -0.5, 1000]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"a": 1, "b": 2, "a": 3}', "'a' stands twice"),
        ("[1, NaN]", "NaN"),
        ("[-Infinity]", "Infinity"),
        ("1e999", "too large"),
        ("9" * 5000, "thousands of digits"),
        ("[" * 50_000, "nested too deeply"),
        (b"\xff\xfe\x00", "no text"),
        ('{"a": ', "Expecting value in line 1, column 7"),
    ],
)
def test_faults_of_json_are_one_error(text, why):
    with pytest.raises(JSONError, match=why):
        parse_json(text)


def test_messages_are_short_whatever_a_file_holds():
    deep = json.loads("[" * 90 + "]" * 90)
    for value in ("x" * 10**6, ["y" * 1000] * 1000, {"k": "v" * 9999}, deep, 10**200):
        assert len(quoted(value)) < 70
    assert len(listed(["n" * 10**6] * 9)) < 1100
    assert listed(["a", "b"]) == "a, b"
    assert quoted("a") == "'a'"


@pytest.mark.parametrize(("ending", "opened"), [(".gz", gzip), (".xz", lzma)])
def test_broken_archives_of_lists(tmp_path, ending, opened):
    whole = opened.compress(b"".join(f"{n}.jpg\n".encode() for n in range(500)))
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    for content in (whole[: len(whole) // 2], bytes(damaged), b"plain text", b""):
        path = tmp_path / f"list.txt{ending}"
        path.write_bytes(content)
        if content:
            with pytest.raises(InputError, match=r"list\.txt"):
                read_lines(str(path))


def test_a_bomb_of_an_archive_is_not_expanded(tmp_path):
    path = tmp_path / "list.txt.xz"
    with lzma.open(path, "wb", preset=0) as file:
        for _ in range(100):
            file.write(bytes(1 << 20))
    with pytest.raises(InputError, match="expands to more than"):
        read_lines(str(path))


def test_pipes_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(OSError, match="pipe or a device"):
        open_file(tmp_path / "pipe.png")
    with pytest.raises(CorruptImageError, match="pipe or a device"):
        read_image(str(tmp_path / "pipe.png"))
    for read in (read_text, lambda path: list(text_lines(path))):
        with pytest.raises(InputError, match="pipe or a device"):
            read(tmp_path / "pipe.png")


def test_pipes_in_a_folder_of_images_are_left_out(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "train" / name / "a.png")
    os.mkfifo(tmp_path / "train/cat/b.png")
    data = ImageFolderDataModule(root=str(tmp_path), batch_size=2, num_workers=0)
    with pytest.warns(UserWarning, match=r"pipes, sockets and devices \(1: cat/b.png\)"):
        assert len(data.load_rows("train")) == 2


def test_a_missing_file_and_a_folder_are_one_line(tmp_path):
    with pytest.raises(InputFileNotFoundError, match="there is no file"):
        read_text(tmp_path / "no")
    with pytest.raises(InputError, match="it is a folder"):
        read_text(tmp_path)
    with pytest.raises(InputFileNotFoundError):
        read_text(tmp_path / "half \ud800")


@pytest.mark.skipif(IS_ROOT, reason="root may read everything")
def test_a_closed_file_is_one_line(tmp_path):
    (tmp_path / "a").write_text("x")
    (tmp_path / "a").chmod(0)
    with pytest.raises(InputError, match="Permission denied"):
        read_text(tmp_path / "a")


@pytest.mark.parametrize("name", ["a\0b.jpg", "\ud800.jpg", "x\0/y.jpg", "b" * 5000])
def test_names_that_no_file_can_have_are_missing(tmp_path, name):
    (tmp_path / "there.jpg").touch()
    with pytest.raises(InputFileNotFoundError, match="1 of the 2 images"):
        missing_images(tmp_path, ["there.jpg", name], tmp_path / "list", "X")


def test_an_image_that_claims_to_be_huge_is_corrupt(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    import zlib

    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(CorruptImageError, match="DecompressionBomb"):
        read_image(str(tmp_path / "a.png"))


def test_a_false_shape_takes_no_memory(tmp_path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999,), }"
    header = header.ljust(117) + b"\n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(80)
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ArrayFileError, match="ends before"):
        read_array(tmp_path / "a.npy")
    np.savez(tmp_path / "b.npz", x=np.array([{}], dtype=object))
    with pytest.raises(ArrayFileError, match="Python objects"):
        read_arrays(tmp_path / "b.npz")


# CIFAR


def cifar(folder, **content):
    folder = folder / "cifar-10-batches-py"
    folder.mkdir(exist_ok=True)
    content = {"data": np.zeros((3, 3072), np.uint8), "labels": [0, 1, 9], **content}
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return CIFAR10DataModule(root=str(folder.parent), val_size=0, num_workers=0)


@pytest.mark.parametrize(
    "content",
    [
        {"labels": [-1, -1, -1]},
        {"labels": [0, 1, 10]},
        {"labels": [0, 1]},
        {"labels": [0, 1, 2**70]},
        {"labels": ["0", "1", "2"]},
        {"labels": [0.5, 1, 2]},
        {"labels": None},
        {"data": np.zeros((3, 3072), np.float32)},
        {"data": np.zeros((3, 3071), np.uint8)},
        {"data": [[0] * 3072] * 3},
        {"data": np.zeros((0, 3072), np.uint8), "labels": []},
    ],
)
def test_cifar_of_wrong_types_or_labels(tmp_path, content):
    with pytest.raises(InputError, match="Extract the official archive again"):
        cifar(tmp_path, **content).load_rows("train")


def test_a_pickle_that_asks_for_a_huge_table_is_refused_at_once(tmp_path):
    data = cifar(tmp_path)
    path = tmp_path / "cifar-10-batches-py/data_batch_1"
    path.write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")  # a table of 2 ** 31 entries: 34 GB
    with pytest.raises(InputError, match="data_batch_1"):
        data.load_rows("train")


# What is written


@pytest.mark.parametrize(
    "name", ["=1+1", "'=x", "''@x", "+a", "-b", "@c", "\td", "-1", "1e5", "'-1", "a", "'a", ""]
)
def test_names_come_back_from_cells(name):
    cell = plain_cell(name)
    assert name_of_cell(cell) == name
    assert cell[:1] not in "=@+-\t\r" or finite_number(cell) is not None or not cell


def test_no_formula_gets_into_a_table_and_numbers_stay(tmp_path):
    rows = [{"=name": "=HYPERLINK(1)", "value": -0.5, "n": 3}, {"=name": "b", "value": 1, "n": -2}]
    text = write_csv(tmp_path / "t.csv", rows).read_text()
    assert text == "'=name,value,n\n'=HYPERLINK(1),-0.5,3\nb,1,-2\n"


def test_names_that_are_no_utf8_are_written(tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    assert b"caf\xe9.jpg" in write_csv(tmp_path / "t.csv", [{"file": name}]).read_bytes()
    assert json.loads(write_json(tmp_path / "t.json", {"file": name}).read_text()) == {"file": name}


def test_json_of_numbers_that_json_lacks(tmp_path):
    path = write_json(tmp_path / "t.json", {"a": float("nan"), "b": [float("inf")]})
    assert json.loads(path.read_text()) == {"a": None, "b": ["inf"]}


def test_a_full_disk_is_one_line(tmp_path):
    def full(file):
        file.write("x")
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match=r"cannot write .*t\.csv \(No space left on device\)"):
        write_file(tmp_path / "t.csv", full)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OutputError, match="cannot write"):
        write_file("/proc/lit_ssl/t.csv", full)
