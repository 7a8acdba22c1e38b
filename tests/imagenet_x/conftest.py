"""Made-up annotations in the layout of ImageNet-X's files, images for them, and a reference."""

from __future__ import annotations

import csv
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

# Here, because Lightning's log handler keeps the error stream of the moment when it is imported.
from lit_ssl import cli  # noqa: F401
from lit_ssl.__main__ import main
from lit_ssl.imagenet_x.annotation_files import FACTORS, METACLASSES
from lit_ssl.imagenet_x.annotations import FactorAnnotations
from lit_ssl.imagenet_x.predictions import Predictions

IMAGES, CLASSES = 60, 20


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("LIT_SSL_DEBUG", raising=False)


def file_name(number):
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def write_csv(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture(scope="session")
def made_up():
    """What the files say: 60 images, 55 annotated (one without a factor), 5 prototypes."""
    rng = np.random.default_rng(0)
    annotated = np.sort(rng.permutation(IMAGES)[:55]) + 1
    multi = rng.random((55, 16)) < 0.2
    top = rng.integers(0, 16, 55)
    multi[np.arange(55), top] = True
    multi[3] = False
    return SimpleNamespace(
        annotated=annotated,
        multi=multi,
        top=np.where(np.arange(55) == 3, -1, top),
        prototypes=annotated[[1, 8, 20, 33, 50]],
        labels=rng.integers(0, CLASSES, IMAGES),
        real=[rng.permutation(CLASSES)[: rng.integers(0, 4)].tolist() for _ in range(IMAGES)],
        groups=[METACLASSES[i] for i in rng.integers(0, 17, CLASSES)],
    )


@pytest.fixture
def folder(tmp_path, made_up):
    """The files, lines in no particular order, in a folder `annotations`."""
    out = tmp_path / "annotations"
    out.mkdir()
    order = np.random.default_rng(1).permutation(55)
    for kind in ("top", "multi"):
        lines = []
        for i in order:
            has = made_up.multi[i] if kind == "multi" else np.arange(16) == made_up.top[i]
            row = {"file_name": file_name(made_up.annotated[i]), "class": 0}
            row |= {name: int(value) for name, value in zip(FACTORS, has, strict=True)}
            lines.append(json.dumps({**row, "justification": 'a "made-up" one, é', "one_word": ""}))
        (out / f"imagenet_x_val_{kind}_factor.jsonl").write_text("\n".join(lines) + "\n")
    write_csv(
        out / "prototypical_paths.csv", ["file_name"], [[file_name(n)] for n in made_up.prototypes]
    )
    rows = [[file_name(i + 1), label] for i, label in enumerate(made_up.labels)]
    write_csv(out / "filename_label.csv", ["file_name", "label"], rows[::-1])
    # names outside of the list belong to "other"
    names = ["fish" if name == "other" else name for name in made_up.groups]
    write_csv(
        out / "imagenet_1k_classes_to_100_metaclasses.csv",
        ["wnid", "name", "metaclass"],
        [["n0", name, 0] for name in names],
    )
    (out / "imagenet_real_labels.jsonl").write_text(json.dumps(made_up.real))
    return out


@pytest.fixture
def predict(made_up):
    """Predictions that are right for about seven of ten images."""

    def make(seed=0, name="toy"):
        rng = np.random.default_rng(seed)
        classes = np.where(
            rng.random(IMAGES) < 0.7, made_up.labels, rng.integers(0, CLASSES, IMAGES)
        )
        probability = rng.random(IMAGES).round(6)
        return Predictions(name, np.r_[-1, classes], np.r_[np.nan, probability])

    return make


@pytest.fixture
def write_predictions_file(tmp_path):
    def write(predictions, name=None, drop=(), double=(), names=file_name):
        rows = []
        for number in range(1, len(predictions.classes)):
            row = [names(number), predictions.classes[number], predictions.probability[number]]
            rows += [row] * (0 if number in drop else 2 if number in double else 1)
        header = ["file_name", "predicted_class", "predicted_probability"]
        return write_csv(tmp_path / f"{name or predictions.name}.csv", header, rows)

    return write


@pytest.fixture
def random_annotations():
    """Annotations in memory, of any size, with one factor an image (`top`) or several."""

    def make(images=4000, prevalence=(0.5, 0.3, 0.15, 0.05), seed=0, multi=False, classes=10):
        rng = np.random.default_rng(seed)
        size = len(prevalence)
        if multi:
            members = rng.random((images, size)) < np.array(prevalence)
        else:
            members = rng.choice(size, images, p=prevalence)[:, None] == np.arange(size)
        return FactorAnnotations(
            factors=tuple("abcdefgh"[:size]),
            numbers=np.arange(1, images + 1),
            members=members,
            labels=rng.integers(0, classes, images),
            kind="top",
            source="made up",
            class_to_metaclass=np.arange(classes) % 3,
            metaclasses=("x", "y", "z"),
        )

    return make


@pytest.fixture
def write_images():
    """Writes an image for each number; `names` gives the path below the folder."""

    def write(folder, numbers, names=file_name):
        for number in numbers:
            path = folder / names(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path, format="PNG")
        return folder

    return write


@pytest.fixture
def lit_ssl(tmp_path, monkeypatch, capsys):
    """Runs `lit-ssl` in process, in an empty folder; returns exit code and output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["lit-ssl", *map(str, words)])
        capsys.readouterr()
        code = 0
        try:
            assert main() is None
        except SystemExit as stop:
            code = stop.code
        shown = capsys.readouterr()
        return SimpleNamespace(code=code, out=shown.out, err=shown.err)

    return run
