"""The examples of MSN and PAWS with few labels run and compare like with like."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("mlxtend")
EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # NamedTuple looks its module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    def call(name, *words):
        module = load(name)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *words, "--out", str(tmp_path)])
        module.main()
        rows = list(csv.DictReader((tmp_path / "results.csv").open()))
        return capsys.readouterr().out, rows

    return call


def test_paws_prints_all_rows_with_both_numbers(run):
    out, rows = run("paws_few_labels", "--seeds", "0", "1", "--per-class", "1", "--steps", "1")
    assert "1 label(s) per class, 2 seeds" in out
    assert [row["method"] for row in rows[:5]] == [
        "PAWS", "PAWS without me-max", "PAWS without sharpening", "supervised, same labels",
        "raw pixels, 1-NN",
    ]  # fmt: skip
    assert len(rows) == 10
    pixels = [float(row["accuracy"]) for row in rows if row["method"].startswith("raw")]
    assert all(0.3 < value < 0.7 for value in pixels)
    assert pixels[0] != pixels[1]  # another seed, other labels


def test_paws_and_the_supervised_network_see_the_same_labelled_digits():
    digits = load("paws_few_labels").Digits(per_class=2, seed=3)
    both, alone = digits.two_streams(), digits.labelled()
    for data in (both, alone):
        data.setup()
    images = [
        np.stack([image.numpy() for batch in loader for image in batch[0]])
        for loader in (both.support_dataloader(), alone.bank_dataloader())
    ]
    np.testing.assert_array_equal(*images)
    assert len(images[0]) == 20


@pytest.mark.slow
def test_msn_prints_all_rows(run):
    words = ("--seeds", "0", "--shots", "1", "5", "--steps", "1", "--epochs", "1")
    out, rows = run("msn_low_shot", *words)
    assert [row["row"] for row in rows] == [
        "MSN", "MSN without masks", "untrained ViT", "raw pixels",
        "supervised ViT, same labels", "supervised WRN-10-1, same labels",
    ]  # fmt: skip
    pixels = next(row for row in rows if row["row"] == "raw pixels")
    assert float(pixels["1_per_class"]) + 5 < float(pixels["5_per_class"])
    assert f"| raw pixels | {float(pixels['1_per_class']):.1f} ± 0.0 |" in out
    assert rows[0]["5_per_class"] != rows[1]["5_per_class"]  # the masks reached the recipe


def test_msn_supervised_network_is_trained(run):
    example = load("msn_low_shot")
    before = torch.tensor(example.supervised("vit", 5, seed=0, steps=1))
    assert example.supervised("vit", 5, seed=0, steps=80) > before + 10
