"""`lit-ssl neighbours`: images that are alike, from what predict wrote."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lit_ssl.metrics import closest_pairs

NAMES = [f"{label}/{number}.png" for label in ("a", "b") for number in range(6)]


def features(count=12, width=4):
    """Rows on a half circle, in growing steps: the nearest of row 2 are 1, 0, 3."""
    angle = 3 * torch.linspace(0, 1, count) ** 2
    plane = torch.stack([angle.cos(), angle.sin()], dim=1)
    return torch.nn.functional.pad(plane, (0, width - 2)) * torch.linspace(1, 5, count)[:, None]


def write(folder, values, rows=None, names=NAMES, images="images", stem="predictions"):
    folder.mkdir(parents=True, exist_ok=True)
    rows = list(range(len(values))) if rows is None else rows
    metadata = {} if images is None else {"folder": os.path.abspath(images)}
    tensors = {"features": values, "rows": torch.tensor(rows)}
    save_file(tensors, folder / f"{stem}.safetensors", metadata)
    lines = [f"{row},{names[row]},{row // 6},{'ab'[row // 6]}" for row in rows]
    (folder / f"{stem}.csv").write_text("\n".join(["row,file,label,class", *lines, ""]))
    return folder / f"{stem}.safetensors"


@pytest.fixture
def photos(workdir):
    """Twelve images of two classes, of different shades."""
    for shade, name in enumerate(NAMES):
        path = workdir / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 12), (20 * shade, 9, 9)).save(path)
    return workdir / "images"


def table(workdir, name="neighbours.csv"):
    with (workdir / "lit_ssl_neighbours/version_0" / name).open() as file:
        return list(csv.DictReader(file))


def test_nearest_of_one_image(lit_ssl, workdir, photos):
    write(workdir / "run", features())
    result = lit_ssl("neighbours", "run", "--query", "a/2.png", "--k", 3)
    assert result.code == 0, result.err
    found = table(workdir)
    assert [row["file"] for row in found] == ["a/1.png", "a/0.png", "a/3.png"]
    assert {(row["query_row"], row["query_file"]) for row in found} == {("2", "a/2.png")}
    assert [row["rank"] for row in found] == ["1", "2", "3"]
    assert [row["class"] for row in found] == ["a"] * 3
    assert float(found[0]["similarity"]) == pytest.approx(np.cos(9 / 121), abs=1e-5)
    with Image.open(workdir / "lit_ssl_neighbours/version_0/neighbours.png") as sheet:
        assert sheet.width > 4 * 128  # the query and three neighbours
    assert sorted(os.listdir(workdir / "lit_ssl_neighbours/version_0")) == [
        "neighbours.csv", "neighbours.png",
    ]  # fmt: skip


@pytest.mark.parametrize("query", ["5", "images/a/5.png", "a/5.png"])
def test_ways_to_name_an_image(lit_ssl, workdir, photos, query):
    path = write(workdir / "run", features())
    assert lit_ssl("neighbours", path, "--query", query, "--k", 2).code == 0
    assert [row["file"] for row in table(workdir)] == ["a/4.png", "b/0.png"]


def test_without_a_query(lit_ssl, workdir, photos):
    values = features()
    values[7] = values[3] * 1.5  # another length, the same direction
    write(workdir / "run", values)
    result = lit_ssl("neighbours", "run", "--threshold", 0.9999)
    assert result.code == 0, result.err
    assert len({row["query_row"] for row in table(workdir)}) == 8
    (pair,) = table(workdir, "near_duplicates.csv")
    assert (pair["first_file"], pair["second_file"]) == ("a/3.png", "b/1.png")
    assert pair["similarity"] == "1.000000"
    assert (workdir / "lit_ssl_neighbours/version_0/near_duplicates.png").is_file()
    assert "near-duplicates: 1 pairs" in result.out
    values[7] = -values[3]
    write(workdir / "run", values)
    assert "no two images" in lit_ssl("neighbours", "run", "--threshold", 0.9999).out


def test_files_of_several_processes(lit_ssl, workdir, photos):
    values = features()
    for rank in range(2):
        write(
            workdir / "run",
            values[rank::2].contiguous(),
            list(range(rank, 12, 2)),
            stem=f"predictions_{rank}",
        )
    assert lit_ssl("neighbours", "run", "--query", "2", "--k", "2").code == 0
    assert [row["row"] for row in table(workdir)] == ["1", "0"]


def test_images_that_were_not_among_them(lit_ssl, workdir, photos):
    write(workdir / "run", features())
    Image.new("RGB", (9, 9)).save(workdir / "new.png")
    write(workdir / "other", features()[4:5] + 0.01, [0], ["new.png"], images=".")
    result = lit_ssl("neighbours", "run", "--query", "other/predictions.safetensors", "--k", "1")
    assert result.code == 0, result.err
    (found,) = table(workdir)
    assert (found["query_file"], found["file"]) == ("new.png", "a/4.png")


def test_images_that_have_moved(lit_ssl, workdir, photos):
    write(workdir / "run", features(), images="elsewhere")
    result = lit_ssl("neighbours", "run", "--query", "0")
    assert "no gallery: the images are not there any more" in result.out
    os.makedirs("root")
    os.rename("images", "root/test")
    result = lit_ssl("neighbours", "run", "--query", "0", "--images", "root")
    assert (result.code, "gallery" in result.out) == (0, True), result.err


def test_more_neighbours_than_images(lit_ssl, workdir, photos):
    write(workdir / "run", features())
    result = lit_ssl("neighbours", "run", "--query", "0", "1", "--k", "50")
    assert "there are 11 other images" in result.out
    assert len(table(workdir)) == 22


def test_one_line_for_what_does_not_fit(lit_ssl, workdir, photos):
    bad = features()
    bad[3, 0] = torch.nan
    write(workdir / "nan", bad)
    path = write(workdir / "run", features())
    write(workdir / "again", features())
    write(workdir / "wide", features(width=5), list(range(12)))
    write(workdir / "out", features(1), [0], ["../../secret.png"])
    save_file(
        {"predictions": torch.zeros(2, 3), "rows": torch.arange(2)}, workdir / "cls.safetensors"
    )
    short = write(workdir / "short", features())
    lines = short.with_suffix(".csv").read_text().splitlines()
    short.with_suffix(".csv").write_text("\n".join(lines[:-1]))
    (workdir / "text.safetensors").write_text("no tensors")
    os.makedirs("bare")
    save_file({"features": features(), "rows": torch.arange(12)}, "bare/predictions.safetensors")
    for words, text in (
        (("nowhere",), "there is no file nowhere"),
        (("images",), "has no predictions.safetensors"),
        (("recipe.yaml",), "is no .safetensors"),
        (("text.safetensors",), "cannot be read as safetensors"),
        (("cls.safetensors",), "holds no features but predictions of a classifier"),
        (("bare",), "there is no file"),
        (("short",), "has 11 rows that are not the 12 rows"),
        (("nan",), "the features of 1 of 12 images are NaN or infinite: a/3.png"),
        (("out",), "outside of the images' folder"),
        (("run", "wide"), "4 and 5 dimensions"),
        (("run", "again"), "12 rows are in several"),
        (("run", "--query", "12"), "no such row; there are 12, from 0 to 11"),
        (("run", "--query", "c/2.png"), "is not among the 12 images"),
        (("run", "--query", "2.png"), "may be 2 images: a/2.png, b/2.png"),
        (("run", "--query", "0", str(path)), "not both"),
        (("run", "--query", "wide/predictions.safetensors"), "predict both with one network"),
        (("run", "--k", "0"), "--k must be at least 1"),
        (("run", "--threshold", "2"), "--threshold must lie"),
        (("run", "--images", "run"), "does not hold a/0.png"),
        (("run", "--output", "images"), "is there already"),
    ):
        result = lit_ssl("neighbours", *words)
        assert (result.code, text in result.err) == (2, True), (words, result.err)
        assert result.err.count("\n") == 1, result.err
    assert not (workdir / "lit_ssl_neighbours").exists()


def test_one_row_has_no_neighbours(lit_ssl, workdir, photos):
    write(workdir / "run", features(1), [0])
    result = lit_ssl("neighbours", "run")
    assert (result.code, "neighbours need two" in result.err) == (2, True)


def test_after_predict(lit_ssl, workdir, photos):
    kwargs = "{img_size: 8, patch_size: 4, depth: 1, embed_dim: 12, num_heads: 2}"
    result = lit_ssl(
        "predict", "--model=FrozenEncoder", "--model.backbone=vit_tiny_patch16_224",
        f"--model.backbone_kwargs={kwargs}", "--data=ImageFolderDataModule", "--data.root=images",
        "--data.image_size=8", "--data.batch_size=5", "--data.num_workers=0",
        "--trainer.logger=false", "--trainer.default_root_dir=run", "--trainer.precision=bf16-true",
        "--trainer.accelerator=cpu",
    )  # fmt: skip
    assert result.code == 0, result.err
    os.makedirs("away")
    os.chdir("away")  # the folder of the images is known by its whole path
    result = lit_ssl("neighbours", "../run", "--query", "b/3.png")
    assert (result.code, "gallery" in result.out) == (0, True), result.err


@pytest.mark.parametrize("rows", [1, 2, 5, 5_000])
def test_closest_pairs_are_those_of_all_comparisons(rows):
    values = torch.randn(rows, 6)
    if rows > 2:
        values[3] = 2 * values[1]
    unit = torch.nn.functional.normalize(values, dim=1)
    similar = (unit @ unit.T).triu(diagonal=1)
    threshold = 0.9
    expected = (similar >= threshold).nonzero()
    found, pairs, count = closest_pairs(values, threshold, most=10)
    assert abs(count - len(expected)) <= 1  # one may lie at the threshold
    assert len(pairs) == min(10, count)
    assert (found.diff() <= 0).all()
    best = similar[similar >= threshold].sort(descending=True).values[: len(found)]
    torch.testing.assert_close(found, best.clamp(max=1), atol=1e-5, rtol=0)
    if rows > 2:
        assert [1, 3] in pairs.tolist()


def test_images_of_the_same_split_elsewhere(lit_ssl, workdir, photos, monkeypatch):
    """Of splits in which files have the same names, that of the features is shown."""
    from lit_ssl.cli.neighbours import _Gallery
    from lit_ssl.cli.predicted_features import read_features

    for split in ("train", "test"):
        shutil.copytree(photos, workdir / "moved" / split)
    write(workdir / "run", features(), images="images/train")
    known = read_features([str(workdir / "run")])
    assert _Gallery(known, "moved").folder == Path("moved/train")
    (workdir / "moved/train/b/5.png").unlink()  # a split that holds all comes first
    assert _Gallery(known, "moved").folder == Path("moved/test")


def test_images_that_cannot_be_shown_are_named(lit_ssl, workdir, photos):
    write(workdir / "run", features())
    (photos / "a/1.png").write_bytes(b"no image")
    result = lit_ssl("neighbours", "run", "--query", "a/2.png")
    assert result.code == 0, result.err
    assert "cannot be read: 1 images: a/1.png" in result.out


def test_gallery_is_not_written_among_the_images(lit_ssl, workdir, photos, monkeypatch):
    write(workdir / "run", features())
    monkeypatch.chdir(photos)
    result = lit_ssl("neighbours", "../run")
    assert result.code == 2
    assert "count as images" in result.err
    assert sorted(os.listdir(photos)) == ["a", "b"]


def test_no_frame_where_a_class_is_not_known(lit_ssl, workdir, photos):
    from lit_ssl.cli.neighbours import _frame, _Gallery
    from lit_ssl.cli.predicted_features import read_features
    from lit_ssl.drawing.palette import RIGHT, WRONG

    write(workdir / "run", features())
    known = read_features([str(workdir / "run")])
    known.labels[1] = -1
    known.classes[1] = ""
    gallery = _Gallery(known, None)
    frames = [_frame(gallery, 0, gallery, place) for place in (1, 2, 6)]
    assert frames == [None, RIGHT, WRONG]
    assert _frame(gallery, 1, gallery, 1) is None
    nameless = _Gallery(known._replace(classes=[""] * 12), None)
    assert [_frame(nameless, 0, nameless, place) for place in (2, 6)] == [RIGHT, WRONG]
    assert _frame(nameless, 0, gallery, 2) is None  # labels of other data


def test_the_gallery_has_so_many_columns_at_most(lit_ssl, workdir, photos, monkeypatch):
    monkeypatch.setattr("lit_ssl.cli.neighbours._WIDEST", 3)
    write(workdir / "run", features())
    result = lit_ssl("neighbours", "run", "--query", "3", "--k", 11)
    assert result.code == 0, result.err
    assert len(table(workdir)) == 11
    with Image.open(workdir / "lit_ssl_neighbours/version_0/neighbours.png") as gallery:
        assert gallery.width < 5 * 140


def test_files_of_two_runs(lit_ssl, workdir, photos):
    first = write(workdir / "one", features(6), rows=range(6))
    other = write(workdir / "two", features(6), rows=range(6, 12), images="elsewhere")
    result = lit_ssl("neighbours", first, other)
    assert result.code == 2
    assert "give the files of one run" in result.err


@pytest.mark.parametrize("name", ["~nobody_of_this_name/x", "a" * 5000])
def test_names_that_no_system_has(lit_ssl, workdir, photos, name):
    write(workdir / "run", features())
    for words in (("run", "--query", name), (name,), ("run", "--images", name)):
        result = lit_ssl("neighbours", *words)
        assert result.code == 2, result.err
        assert "Traceback" not in result.err
