from __future__ import annotations

import gzip
import lzma

import numpy as np
import pytest

from lit_ssl.datamodules import Subset
from lit_ssl.datamodules.reading.images import FileImages
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.stratified_split import stratified_split
from lit_ssl.errors import InputError

LABELS = np.repeat([0, 1, 2], [50, 30, 3])
NAMES = [f"n{label}/n{label}_{index}.JPEG" for index, label in enumerate(LABELS)]
IMAGES = Rows(FileImages("train", NAMES), {"label": LABELS})
ALL = np.arange(len(LABELS))


def choose(allowed=ALL, images=IMAGES, **arguments):
    return Subset(**arguments).select(images, allowed, lambda label: f"n{label}")


@pytest.fixture
def listed(tmp_path):
    def write(*entries):
        (tmp_path / "list.txt").write_text("\n".join(map(str, entries)) + "\n\n")
        return str(tmp_path / "list.txt")

    return write


@pytest.mark.parametrize("arguments", [{}, {"fraction": 0.1, "per_class": 1}, {"seed": 3}])
def test_exactly_one_choice(arguments):
    with pytest.raises(ValueError, match=r"exactly one of fraction, per_class, .* and file"):
        Subset(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fraction": 0.0}, r"\(0, 1\], got 0"),
        ({"fraction": 1.5}, "1.5"),
        ({"per_class": 0}, "1"),
        ({"exponential": 0.5}, "exponential must be at least 1, got 0.5"),
        ({"power_law": -1.0}, "power_law must be at least 0, got -1"),
        ({"power_law": 1.0, "min_per_class": 0}, "min_per_class must be at least 1, got 0"),
        ({"fraction": 0.5, "min_per_class": 2}, "belong to a long tail.*not fraction"),
        ({"per_class": 5, "permute_classes": True}, "belong to a long tail.*not per_class"),
    ],
)
def test_ranges(arguments, message):
    with pytest.raises(ValueError, match=message):
        Subset(**arguments)


def test_fraction_is_stratified():
    chosen = choose(fraction=0.1)
    assert np.bincount(LABELS[chosen]).tolist() == [5, 3, 1]  # 0.3 of an image counts as one
    assert (np.diff(chosen) > 0).all()
    assert choose(fraction=1.0).tolist() == ALL.tolist()


def test_per_class_and_seeds():
    first = choose(per_class=3)
    assert np.bincount(LABELS[first]).tolist() == [3, 3, 3]
    assert choose(per_class=3).tolist() == first.tolist()
    assert choose(per_class=3, seed=1).tolist() != first.tolist()


def test_too_few_in_a_class():
    with pytest.raises(ValueError, match=r"per_class=4, but 1 classes .*n2 \(3\)"):
        choose(per_class=4)


def test_draws_leave_the_validation_images_alone():
    rest, held_out = stratified_split(LABELS, 20, 0)
    for arguments in ({"fraction": 0.5}, {"per_class": 2}):
        chosen = choose(allowed=rest, **arguments)
        assert set(chosen) <= set(rest)
        assert not set(chosen) & set(held_out)


def test_list_of_indices(listed):
    assert choose(file=listed(7, 3, 80, 3)).tolist() == [3, 7, 80]


def test_list_of_file_names_and_of_paths(listed):
    assert choose(file=listed("n1_60.JPEG", "n0_4.JPEG")).tolist() == [4, 60]
    assert choose(file=listed("n1/n1_60.JPEG", "./n0/n0_4.JPEG")).tolist() == [4, 60]


def test_lists_with_the_folder_of_the_split_and_labels(listed):
    # as in ImageNet_LT_train.txt
    lines = ["train/n1/n1_60.JPEG 1", "train/n0/n0_4.JPEG\t0", "n2/n2_81.JPEG -1"]
    assert choose(file=listed(*lines)).tolist() == [4, 60, 81]
    with pytest.raises(ValueError, match=r"1 of the 2 images .*: train/n0/n0_99.JPEG 0"):
        choose(file=listed("train/n0/n0_4.JPEG 0", "train/n0/n0_99.JPEG 0"))
    # a name is taken as it is where it exists
    images = Rows(FileImages("train", ["a/cat 1", "a/cat"]), {"label": np.array([0, 0])})
    assert choose(images=images, allowed=np.arange(2), file=listed("a/cat 1")).tolist() == [0]


@pytest.mark.parametrize(("suffix", "opener"), [(".gz", gzip.open), (".xz", lzma.open)])
def test_compressed_lists(tmp_path, suffix, opener):
    path = tmp_path / f"list.txt{suffix}"
    with opener(path, "wt") as file:
        file.write("n0_4.JPEG\nn2_81.JPEG\n")
    assert choose(file=str(path)).tolist() == [4, 81]


def test_missing_entries_are_counted_and_shown(listed):
    with pytest.raises(
        ValueError, match=r"7 of the 8 images .*83 training images: 99, 100"
    ) as error:
        choose(file=listed(1, 99, 100, 101, 102, 103, 104, -1))
    assert "103, …" in str(error.value)
    with pytest.raises(ValueError, match=r"1 of the 2 images .*: n9_1.JPEG"):
        choose(file=listed("n0_4.JPEG", "n9_1.JPEG"))


def test_listed_images_that_are_held_out(listed):
    rest, held_out = stratified_split(LABELS, 20, 0)
    with pytest.raises(ValueError, match=r"2 of the 3 images .*val_size: 0"):
        choose(allowed=rest, file=listed(rest[0], *held_out[:2]))


def test_ambiguous_names(listed):
    images = Rows(
        FileImages("train", ["a/1.png", "b/1.png", "b/2.png"]), {"label": np.array([0, 1, 1])}
    )
    with pytest.raises(ValueError, match=r"fit several training images: 1.png\. .*class/name"):
        choose(images=images, allowed=np.arange(3), file=listed("1.png"))
    listing = listed("b/1.png", "2.png")
    assert choose(images=images, allowed=np.arange(3), file=listing).tolist() == [1, 2]


PETS = Rows(
    FileImages("data/pets", ["cat/3.png", "cat/4.png", "dog/4.png", "5.png", "my dog/6.png"]),
    {"label": np.array([0, 0, 1, -1, 2])},
)


@pytest.mark.parametrize(
    ("line", "index"),
    [
        ("cat/3.png", 0),
        ("3.png", 0),
        ("5.png", 3),
        ("my dog/6.png 2", 4),
        ("dog/4.png,1", 2),
        ("dog\\4.png", 2),
        (".\\my dog\\6.png", 4),
        ("pets/dog/4.png", 2),
        ("pets/5.png", 3),
        ("train/dog/4.png", 2),
        ("/home/me/data/pets/dog/4.png", 2),
        ("C:\\data\\pets\\dog\\4.png\t1", 2),
        ("dog//4.png", 2),
    ],
)
def test_names_of_one_image(listed, line, index):
    assert choose(images=PETS, allowed=np.arange(5), file=listed(line)).tolist() == [index]


@pytest.mark.parametrize(
    "line",
    ["dog/3.png", "dog\\3.png", "cats/3.png", "/data/val/dog/4.png", "train/3.png", "x/5.png",
     "train/5.png", "Cat/3.png", "../dog/4.png", "pets\\3.png", "C:\\data\\pets\\3.png 0",
     "./3.png", "pets\\4.png"],
)  # fmt: skip
def test_a_path_never_stands_for_the_file_of_another_folder(listed, line):
    with pytest.raises(ValueError, match=r"1 of the 2 images .* whole path below"):
        choose(images=PETS, allowed=np.arange(5), file=listed("cat/3.png", line))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-8"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "  \r\n"])
def test_lists_from_any_editor(tmp_path, encoding, end):
    (tmp_path / "list.txt").write_bytes(f"n0_4.JPEG{end}{end}n2_81.JPEG".encode(encoding))
    assert choose(file=str(tmp_path / "list.txt")).tolist() == [4, 81]


@pytest.mark.parametrize("name", ["list.txt", "list.gz", "list.xz"])
@pytest.mark.parametrize(
    "content", ["n0_4.JPEG\n".encode("utf-16-le"), b"\xff\x00\x81", b"K\xf6ln"]
)
def test_lists_that_are_no_text(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name} is no text in UTF-8"):
        choose(file=str(tmp_path / name))


@pytest.mark.parametrize("line", ["--1", "\N{SUPERSCRIPT TWO}", "83", "-1"])
def test_numbers_that_are_no_index(listed, line):
    with pytest.raises(InputError, match=rf"of the 2 images in .*training images: (0, )?{line}\."):
        choose(file=listed("0", line))


def test_a_backslash_in_the_name_of_a_file(listed):
    pets = Rows(FileImages("pets", ["cat/x\\1.png", "dog/1.png"]), {"label": np.array([0, 1])})
    for line in ("x\\1.png", "cat/x\\1.png", "pets/cat/x\\1.png"):
        assert choose(images=pets, allowed=np.arange(2), file=listed(line)).tolist() == [0]


def test_unusable_lists(tmp_path, listed):
    with pytest.raises(FileNotFoundError, match=r"no list file .*absent.txt"):
        choose(file=str(tmp_path / "absent.txt"))
    with pytest.raises(ValueError, match="is empty"):
        choose(file=listed())


def test_names_for_images_without_names(toy, listed):
    with pytest.raises(ValueError, match="no file names: list indices"):
        toy(subset=Subset(file=listed("a.png"))).setup("fit")


def test_split_is_stratified_and_fixed():
    rest, held_out = stratified_split(LABELS, 20, 0)
    assert sorted([*rest, *held_out]) == ALL.tolist()
    assert np.bincount(LABELS[held_out]).tolist() == [12, 7, 1]
    assert stratified_split(LABELS, 0, 0)[1].tolist() == []
    with pytest.raises(ValueError, match="Cannot hold out 83 of 83"):
        stratified_split(LABELS, 83, 0)


def test_split_of_images_without_labels():
    rest, held_out = stratified_split(np.full(10, -1), 4, 0)
    assert (len(rest), len(held_out)) == (6, 4)
