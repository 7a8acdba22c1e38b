"""`lit-ssl look`: what is in a folder of images."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lit_ssl.cli.look_advice import choose_sizes
from lit_ssl.datamodules import ImageFolderDataModule


def write(path, size=(40, 30), mode="RGB", seed=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = np.random.default_rng(hash(str(path)) % 2**32 if seed is None else seed)
    pixels = drawn.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return path


@pytest.fixture
def images(workdir):
    """Two classes of three images, in PNG."""
    for name in ("a", "b"):
        for number in range(3):
            write(workdir / "images" / name / f"{number}.png")
    return workdir / "images"


@pytest.fixture
def look(lit_ssl, workdir):
    """Looks at `images`; returns what is printed and what look.json holds."""

    def run(*words, folder="images"):
        result = lit_ssl("look", folder, "--workers", "1", "--output", "found", *words)
        assert result.code == 0, result.err
        found = json.loads((workdir / "found/look.json").read_text())
        shutil.rmtree(workdir / "found")
        return result.out, found

    return run


def test_plain_class_folders(look, images, workdir):
    out, found = look()
    assert "train: 6 images of 2 classes in images" in out
    assert "val:   none: hold some out by val_size" in out
    assert found["splits"]["train"] == {
        "folder": ".", "images": 6, "classes": {"a": 3, "b": 3}
    }  # fmt: skip
    assert found["formats"] == {"PNG": 6}
    assert found["pixels"]["shorter_side"] == {"smallest": 30, "median": 30, "largest": 30}
    assert "6 with a shorter side below the 96 pixels" in out
    for name in ("unreadable", "not_taken", "in_no_split", "duplicates", "notes"):
        assert not found[name], name
    assert len(found["next"]) == 7


def test_same_images_as_the_data_module(look, images):
    write(images / "beside.png")
    write(images / ".hidden/x.png")
    (images / "a/notes.txt").write_text("no image")
    out, found = look()
    data = ImageFolderDataModule(root=str(images), batch_size=1, num_workers=0)
    with pytest.warns(UserWarning, match="left out"):
        assert len(data.rows("train")) == found["splits"]["train"]["images"] == 6
    assert found["in_no_split"] == ["beside.png"]
    assert sorted(name for names in found["not_taken"].values() for name in names) == [
        ".hidden",
        "a/notes.txt",
    ]
    assert "images that no split has: 1: beside.png" in out


def test_splits(look, images, workdir):
    shutil.move(images, workdir / "train")
    shutil.move(workdir / "train", images / "train")
    write(images / "Test/b/9.png")
    out, found = look()
    assert {s: p["folder"] for s, p in found["splits"].items()} == {
        "train": "train", "val": "Test", "test": "Test",
    }  # fmt: skip
    assert "val:   1 image of 1 of 2 classes (none of a) in images/Test (the test images" in out
    assert found["splits"]["val"]["classes"] == {"a": 0, "b": 1}
    assert "val_size" not in found["next"][0]["command"]


def test_all_that_may_be_odd(look, images):
    (images / "a/cut.jpg").write_bytes(write(images / "a/0.jpg").read_bytes()[:700])
    (images / "a/no.jpg").write_bytes(b"<html>")
    (images / "a/empty.png").touch()
    shutil.copy(images / "a/0.png", images / "a/again.png")
    shutil.copy(images / "a/1.png", images / "b/elsewhere.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    write(images / "a/turned.jpg", exif=exif)
    write(images / "a/grey.png", mode="L")
    write(images / "a/cmyk.jpg", mode="CMYK")
    deep = np.arange(60_000, 60_000 + 1200, dtype=np.uint16).reshape(30, 40)
    Image.fromarray(deep).save(images / "a/deep.png")
    clear = Image.new("RGBA", (40, 30), (9, 9, 9, 0))
    clear.save(images / "a/clear.png")
    frames = [Image.new("RGB", (40, 30), colour).convert("P") for colour in ("red", "blue")]
    frames[0].save(images / "b/film.gif", save_all=True, append_images=frames[1:])
    out, found = look()
    assert sorted(found["unreadable"]) == ["a/cut.jpg", "a/empty.png", "a/no.jpg"]
    assert found["unreadable"]["a/empty.png"] == "the file is empty"
    assert "no image in a format" in found["unreadable"]["a/no.jpg"]
    assert found["duplicates"] == [["a/0.png", "a/again.png"], ["a/1.png", "b/elsewhere.png"]]
    assert found["duplicates_across_classes"] == [["a/1.png", "b/elsewhere.png"]]
    assert (found["turned_by_exif"], found["transparent"], found["several_pictures"]) == (1, 1, 1)
    assert {"grey", "CMYK", "more than 8 bits", "RGBA", "palette"} <= set(found["modes"])
    assert "lie in several classes, as a/1.png, b/elsewhere.png" in out
    command = found["next"][0]["command"]
    assert "--data.on_corrupt skip" in command
    assert "--data.background '[255, 255, 255]'" in command


def test_test_images_that_were_trained_on(look, images):
    for number in range(3):
        write(images / f"train/a/{number}.png", seed=number)
    write(images / "test/a/same.png", seed=1)
    shutil.rmtree(images / "a")
    shutil.rmtree(images / "b")
    out, found = look()
    assert found["duplicates_across_splits"] == [["test/a/same.png", "train/a/1.png"]]
    assert "results will be too good" in out


def test_images_without_labels(look, images, workdir):
    for number in range(3):
        write(workdir / "plain" / f"{number}.png")
    out, found = look(folder="plain")
    assert found["splits"]["train"]["classes"] == {}
    assert "3 images without labels" in out
    assert [step["command"].split()[1] for step in found["next"]] == [
        "fit", "predict", "neighbours", "pictures"
    ]  # fmt: skip


def test_what_the_data_module_refuses_is_a_finding(look, images):
    (images / "c").mkdir()
    out, found = look()
    assert "no training on it as it is" in out
    assert "hold no image: c" in found["problem"]
    assert (found["next"], found["images"]) == ([], 6)


def test_layout_that_nothing_tells(look, images):
    for name in ("a", "b"):
        shutil.move(images / name, images / "val" / name)
    write(images / "c/0.png")
    assert "may be splits" in look()[1]["problem"]
    found = look("--layout", "classes")[1]
    assert list(found["splits"]["train"]["classes"]) == ["c", "val"]
    assert "--data.layout classes" in found["next"][0]["command"]


def test_sheet_and_new_folders(lit_ssl, images, workdir):
    for number in range(2):
        assert lit_ssl("look", "images").code == 0
        with Image.open(workdir / f"lit_ssl_look/version_{number}/sheet.png") as sheet:
            assert min(sheet.size) > 128
    assert sorted(os.listdir(workdir / "lit_ssl_look/version_0")) == ["look.json", "sheet.png"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("nowhere",), "does not exist"),
        (("empty",), "image files in empty"),
        (("images", "--output", "full"), "--output full is there already"),
        (("images", "--output", "images/new"), "give an --output outside"),
        (("images", "--workers", "0"), "--workers must be at least 1"),
    ],
)
def test_one_line_where_it_cannot_look(lit_ssl, images, workdir, words, text):
    (workdir / "empty").mkdir()
    write(workdir / "full/x.png")
    result = lit_ssl("look", *words)
    assert (result.code, text in result.err, result.err.count("\n")) == (2, True, 1), result.err
    assert not (workdir / "lit_ssl_look").exists()


def test_names_that_no_terminal_shows(look, images):
    write(images / "a" / "\x1b[2Jred.png")
    write(images / "b" / os.fsdecode(b"K\xf6ln.png")).rename(
        images / "b" / os.fsdecode(b"\xf6.png")
    )
    (images / "a" / os.fsdecode(b"\xff.jpg")).write_bytes(b"x")
    out, found = look()
    assert "\x1b" not in out
    assert found["images"] == 9
    assert list(found["unreadable"]) == [os.fsdecode(b"a/\xff.jpg")]


def test_several_processes_say_the_same(lit_ssl, images, workdir):
    for number in range(250):
        write(images / f"a/more{number}.png", size=(9, 8))
    (images / "a/broken.jpg").write_bytes(b"x")
    found = []
    for workers in (1, 2):
        assert lit_ssl("look", "images", "--workers", workers, "--output", f"w{workers}").code == 0
        found.append(json.loads((workdir / f"w{workers}/look.json").read_text()))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("images", "recipe"),
    [(1, "folder_small"), (200, "folder_small"), (5_000, "folder_small"), (50_000, "folder"),
     (500_000, "folder_large")],
)  # fmt: skip
@pytest.mark.parametrize("classes", [0, 2, 1_000])
def test_sizes(images, recipe, classes):
    sizes = choose_sizes(images, classes)
    assert sizes.recipe == recipe
    assert 0 <= sizes.val_size < max(1, images)
    assert 1 <= sizes.warmup_epochs <= sizes.max_epochs
    assert 16 <= sizes.num_prototypes <= 1_024
    assert 4 <= sizes.batch_size <= 64


def test_table_of_the_page():
    page = (Path(__file__).parents[2] / "docs/getting_started.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if "`msn/folder" in line]
    rows = [row for row in rows if len(row) == 8]
    assert [row[0] for row in rows] == ["200", "1,000", "5,000", "20,000", "100,000", "500,000"]
    for images, recipe, *numbers in rows:
        count = int(images.replace(",", ""))
        sizes = choose_sizes(count, 10)
        assert recipe == f"`msn/{sizes.recipe}`"
        found = [int(number.split()[0].replace(",", "")) for number in numbers]
        assert found == [*sizes[5:], *sizes[1:5], choose_sizes(count).num_prototypes], images


def test_what_runs_have_written_is_no_class(look, images):
    for place in ("lightning_logs/version_0/views", "lit_ssl_runs/version_0", "a/lit_ssl_look"):
        write(images / place / "0.png")
    out, found = look()
    assert "train: 6 images of 2 classes in images" in out
    assert found["not_taken"] == {
        "folders that runs have written": ["a/lit_ssl_look", "lightning_logs", "lit_ssl_runs"]
    }


@pytest.mark.parametrize("seen", [1, 2])
def test_two_at_once_write_two_folders(lit_ssl, images, workdir, monkeypatch, seen):
    """Another command makes the folder while this one still reads."""
    from lit_ssl.cli import look_advice

    def beside(*args):
        for number in range(seen):
            (workdir / f"lit_ssl_look/version_{number}").mkdir(parents=True)
        return []

    monkeypatch.setattr(look_advice, "next_steps", beside)
    assert lit_ssl("look", "images", "--workers", "1").code == 0
    assert not any((workdir / "lit_ssl_look/version_0").iterdir())
    assert (workdir / f"lit_ssl_look/version_{seen}/look.json").is_file()


def test_a_given_folder_that_another_command_takes(lit_ssl, images, workdir, monkeypatch):
    from lit_ssl.cli import look_advice

    def beside(*args):
        (workdir / "found").mkdir()
        (workdir / "found/theirs").touch()
        return []

    monkeypatch.setattr(look_advice, "next_steps", beside)
    result = lit_ssl("look", "images", "--workers", "1", "--output", "found")
    assert result.code == 2
    assert "--output found is there already" in result.err
    assert os.listdir(workdir / "found") == ["theirs"]


@pytest.mark.parametrize("folder", ["~nobody_of_this_name/x", "a" * 5000])
def test_folders_that_no_system_can_name(lit_ssl, workdir, folder):
    for words in ((folder,), (".", "--output", folder)):
        result = lit_ssl("look", *words)
        assert result.code == 2, result.err
        assert "error: " in result.err
        assert "Traceback" not in result.err


def test_line_breaks_in_names_start_no_line(look, images):
    write(images / "a" / "x\nnext:\n  rm -r y\u202e.png").write_bytes(b"")
    out, _ = look()
    assert "a/x\\nnext:\\n  rm -r y\\u202e.png" in out


def test_too_few_images_to_learn_from(look, images):
    shutil.rmtree(images / "b")
    for number in range(2):
        (images / f"a/{number}.png").write_bytes(b"")
    out, found = look()
    assert "no commands to run next: a training needs at least two images" in out
    assert found["next"] == []


def test_features_are_predicted_with_the_network_that_was_trained(look, images):
    _, found = look()
    commands = {step["purpose"]: step["command"] for step in found["next"]}
    shape = "--model.num_prototypes 16"
    assert shape in commands["pretrain, without labels"]
    assert shape in commands["write the features of the images"]
