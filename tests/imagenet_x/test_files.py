"""Annotations and predictions on disk: layouts, round trips, and what is said of wrong files."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lit_ssl.errors import InputError
from lit_ssl.files import write_file
from lit_ssl.imagenet_x import annotation_files as imagenet_x_files
from lit_ssl.imagenet_x.annotations import read_annotations
from lit_ssl.imagenet_x.predictions import read_predictions, write_predictions

# ------------------------------------------------------- ImageNet-X's files


@pytest.mark.parametrize("kind", ["top", "multi"])
def test_reads_the_official_layout(folder, made_up, kind):
    annotations = read_annotations(str(folder), kind, keep_prototypes=True)
    assert annotations.numbers.tolist() == made_up.annotated.tolist()
    top = made_up.top[:, None] == np.arange(16)
    np.testing.assert_array_equal(annotations.members, made_up.multi if kind == "multi" else top)
    np.testing.assert_array_equal(annotations.labels, made_up.labels)
    flat, offset = annotations.real
    assert [flat[a:b].tolist() for a, b in pairwise(offset)] == made_up.real
    groups = [annotations.metaclasses[i] for i in annotations.class_to_metaclass]
    assert groups == made_up.groups
    without = read_annotations(str(folder), kind)
    assert set(annotations.numbers) - set(without.numbers) == set(made_up.prototypes)


def test_found_in_the_installed_package_without_importing_it(tmp_path, folder, monkeypatch):
    package = tmp_path / "site" / "imagenet_x"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    folder.rename(package / "annotations")
    monkeypatch.syspath_prepend(package.parent)
    assert imagenet_x_files.find_folder() == package / "annotations"
    assert len(read_annotations().numbers) == 50
    assert "imagenet_x" not in sys.modules
    # a file of the same name hides the package from imports
    hidden = package.parent / "imagenet_x-0.0.7.dist-info"
    hidden.mkdir()
    (hidden / "METADATA").write_text("Metadata-Version: 2.1\nName: imagenet-x\nVersion: 0.0.7\n")
    monkeypatch.setattr(imagenet_x_files, "find_spec", lambda name: None)
    assert imagenet_x_files.find_folder() == package / "annotations"
    # a clone of the repository, and the folder itself, do as well
    assert len(read_annotations(str(package.parent)).numbers) == 50
    assert len(read_annotations(str(package / "annotations")).numbers) == 50


def test_nothing_is_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(imagenet_x_files, "_installed", lambda: [])
    with pytest.raises(InputError, match=r"not installed: .*lit-ssl\[imagenet-x\].*CC BY-NC"):
        read_annotations()
    with pytest.raises(InputError, match=r"no folder .*absent"):
        read_annotations(str(tmp_path / "absent"))
    with pytest.raises(InputError, match=r"has no imagenet_x_val_top_factor\.jsonl"):
        read_annotations(str(tmp_path))


def test_incomplete_and_broken_files(folder):
    (folder / "prototypical_paths.csv").rename(folder / "p.csv")
    with pytest.raises(InputError, match=r"lacks prototypical_paths\.csv"):
        read_annotations(str(folder))
    (folder / "p.csv").rename(folder / "prototypical_paths.csv")
    (folder / "imagenet_x_val_multi_factor.jsonl").write_text('{"file_name": "x.JPEG"}\n')
    with pytest.raises(InputError, match="are not those of ImageNet-X: KeyError"):
        read_annotations(str(folder))


def test_cache_is_used_and_renewed(folder, made_up, monkeypatch):
    first = read_annotations(str(folder))
    (cached,) = Path(os.environ["XDG_CACHE_HOME"]).glob("lit_ssl/imagenet_x_*.npz")
    real = imagenet_x_files._read_factors
    calls = []
    monkeypatch.setattr(
        imagenet_x_files, "_read_factors", lambda path: calls.append(path) or real(path)
    )
    assert (read_annotations(str(folder)).members == first.members).all()
    assert calls == []
    cached.write_bytes(b"half-writ")  # by whatever
    assert (read_annotations(str(folder)).members == first.members).all()
    assert len(calls) == 1
    with (folder / "prototypical_paths.csv").open("a") as file:
        file.write(f"ILSVRC2012_val_{first.numbers[0]:08d}.JPEG\n")
    assert first.numbers[0] not in read_annotations(str(folder)).numbers
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")  # a home that cannot be written to
    assert len(read_annotations(str(folder)).numbers) == 49


def test_names_of_images(folder):
    names = [
        "ILSVRC2012_val_00000007.JPEG",
        "/data/val/n01440764/ILSVRC2012_val_00000060.JPEG",
        "ILSVRC2012_val_00000001_n01440764.JPEG",
        r"C:\val\ILSVRC2012_val_00000002.png",
        "ILSVRC2012_val_00000061.JPEG",  # beyond the last one
        "ILSVRC2012_val_000000071.JPEG",
        "n01440764_10026.JPEG",
    ]
    numbers = read_annotations(str(folder)).find_numbers(names)
    assert numbers.tolist() == [7, 60, 1, 2, 0, 0, 0]


# ------------------------------------------------------- a user's own table

TABLE = "file_name,label,night,rain\na/1.png,0,1,0\nb/1.png,2,0,0\nc.png,1,1,1\n"


def test_own_table(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("\ufeff" + TABLE)
    annotations = read_annotations(str(path))
    assert annotations.factors == ("night", "rain")
    assert annotations.members.tolist() == [[1, 0], [0, 0], [1, 1]]
    assert annotations.labels.tolist() == [0, 2, 1]
    # by whole name, or by the last part where only one file has it
    names = ["b/1.png", "1.png", "x/c.png", "c.png", "d.png"]
    assert annotations.find_numbers(names).tolist() == [2, 0, 3, 3, 0]
    assert annotations.file_name(3) == "c.png"
    assert annotations.fits(3)
    assert annotations.fits(1000)
    assert not annotations.fits(2)


def test_own_table_with_folders(tmp_path):
    # a folder may be missing on one of both sides, but never be another one
    path = tmp_path / "mine.csv"
    path.write_text("file_name,label,night\ndog/3.png,0,1\ncat\\4.png,1,0\n5.png,1,0\n")
    annotations = read_annotations(str(path))
    names = ["cat/3.png", "dog/3.png", "3.png", "val/dog/3.png", "cat/4.png", "cat/5.png"]
    assert annotations.find_numbers(names).tolist() == [0, 1, 1, 1, 2, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("file_name", "filename"), "has no column file_name: .*Did you mean filename"),
        ((",night,rain", ""), "values for 2 columns|the columns file_name, label"),
        (("a/1.png,0,1,0", "a/1.png,0,2,0"), "column night of .* holds '2' in line 2: expected 0"),
        (("a/1.png,0", "a/1.png,cat"), "column label of .* holds 'cat' in line 2: expected class"),
        (("a/1.png,0", "a/1.png,1" + "0" * 20), "column label of .* in line 2: expected class"),
        (("b/1.png", "a/1.png"), "names 1 images twice, e.g. a/1.png"),
        ((",0,0\n", ",0\n"), "line 3 of .* has 3 values for 4 columns"),
        ((TABLE, "file_name,label,x\n"), "has no images"),
        ((TABLE, ""), "has no column file_name"),
    ],
)
def test_wrong_tables(tmp_path, change, message):
    path = tmp_path / "mine.csv"
    path.write_text(TABLE.replace(*change))
    with pytest.raises(InputError, match=message):
        read_annotations(str(path))


def test_own_table_that_is_no_text(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(TABLE.replace("night", "nächte"), encoding="latin-1")
    with pytest.raises(InputError, match="is no table in UTF-8: expected the columns file_name"):
        read_annotations(str(path))


# ------------------------------------------------------- predictions


def test_round_trip(folder, predict, tmp_path):
    annotations, predictions = read_annotations(str(folder)), predict()
    path = write_predictions(tmp_path / "new" / "toy.csv", predictions, annotations)
    again = read_predictions(path, annotations)
    np.testing.assert_array_equal(again.classes, predictions.classes)
    np.testing.assert_array_equal(again.probability, predictions.probability)
    assert (again.name, again.extra) == ("toy", 0)


def test_round_trip_without_probabilities(folder, predict, tmp_path):
    annotations, predictions = read_annotations(str(folder)), predict()
    predictions.probability[5:] = np.nan
    path = write_predictions(tmp_path / "toy.csv", predictions, annotations)
    again = read_predictions(path, annotations)
    np.testing.assert_array_equal(again.classes, predictions.classes)
    np.testing.assert_array_equal(again.probability, predictions.probability)


def test_columns_in_any_order_and_no_probability(folder, tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("note,predicted_class,file_name\nx,3,val/ILSVRC2012_val_00000002.JPEG\n")
    predictions = read_predictions(path, read_annotations(str(folder)))
    assert predictions.classes[2] == 3
    assert (predictions.classes >= 0).sum() == 1
    assert np.isnan(predictions.probability).all()


ROW = "ILSVRC2012_val_00000001.JPEG,3,0.5\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file_name,class\n", "has no column predicted_class: expected a CSV"),
        ("", r"has no column file_name: expected .* It is empty"),
        (f"H\n{ROW}{ROW}", "1 images more than once, e.g. ILSVRC2012_val_00000001.JPEG .2 times"),
        (f"H\n{ROW}cat.jpg,3,0.5\n", "1 images that are not in the annotations, e.g. cat.jpg"),
        (f"H\n{ROW}".replace(",3,", ",20,"), "line 2 of .* holds '20': .* indices from 0 to 19"),
        (f"H\n{ROW}".replace(",3,", ",-1,"), "line 2 of .* holds '-1'"),
        (f"H\n{ROW}".replace(",3,", ",tench,"), "line 2 of .* holds 'tench'"),
        (f"H\n\n{ROW}".replace(",3,", ",tench,"), "line 3 of .* holds 'tench'"),
        (f"H\n{ROW}".replace("0.5", "50"), "line 2 of .* holds '50': expected numbers from 0 to 1"),
        (f"H\n{ROW}".replace("0.5", "nan"), "line 2 of .* holds 'nan'"),
        (f"H\n{ROW}ILSVRC2012_val_00000002.JPEG,1", "ends in the middle of line 3"),
    ],
)
def test_wrong_predictions(folder, tmp_path, text, message):
    path = tmp_path / "p.csv"
    path.write_text(text.replace("H\n", "file_name,predicted_class,predicted_probability\n"))
    with pytest.raises(InputError, match=message):
        read_predictions(path, read_annotations(str(folder)))


def test_classes_in_a_table_of_floats(folder, tmp_path):
    path = tmp_path / "p.csv"
    text = f"file_name,predicted_class,predicted_probability\n{ROW}"
    annotations = read_annotations(str(folder))
    for written in ("3.0", " 3.00 ", "3.000000e+00"):  # of pandas, by hand, of NumPy
        path.write_text(text.replace(",3,", f",{written},"))
        assert read_predictions(path, annotations).classes[1] == 3
    for written in ("3.5", "nan", "inf", "-1.0", ""):
        path.write_text(text.replace(",3,", f",{written},"))
        with pytest.raises(
            InputError, match=rf"line 2 of .* holds '{written}': expected class indices"
        ):
            read_predictions(path, annotations)


def test_predictions_that_are_no_text(folder, tmp_path):
    annotations = read_annotations(str(folder))
    (tmp_path / "p.csv").write_bytes(b"\x93NUMPY\x01\x00\xff\xfe" * 9)
    with pytest.raises(InputError, match="is no text with comma-separated values"):
        read_predictions(tmp_path / "p.csv", annotations)
    with pytest.raises(InputError, match=r"no predictions at .*absent.csv"):
        read_predictions(tmp_path / "absent.csv", annotations)


def test_a_user_may_annotate_a_part_of_the_images(tmp_path):
    (tmp_path / "mine.csv").write_text(TABLE)
    annotations = read_annotations(str(tmp_path / "mine.csv"))
    path = tmp_path / "p.csv"
    path.write_text("file_name,predicted_class\nc.png,700\nother.png,1\na/1.png,0\nb/1.png,2\n")
    predictions = read_predictions(path, annotations)
    assert predictions.classes[1:].tolist() == [0, 2, 700]
    assert predictions.extra == 1
    path.write_text("file_name,predicted_class\nother.png,1\n")
    with pytest.raises(InputError, match="names 1 images that are not in the annotations"):
        read_predictions(path, annotations)


def test_files_are_never_half_written(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("the old one")

    def fails(file):
        file.write("half of the new")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_file(path, fails)
    assert path.read_text() == "the old one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.txt"]


# ------------------------------------------------------- the licence


def test_no_annotations_are_in_the_repository():
    """CC BY-NC: none of ImageNet-X's files may be tracked, under their names or as arrays."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        pytest.skip("this is no clone of the repository")
    done = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("git cannot list the files here")
    names = {Path(line).name for line in done.stdout.splitlines()}
    assert names & set(imagenet_x_files._FILES.values()) == set()
    assert not [name for name in names if name.startswith("imagenetx_") and name.endswith(".npz")]
