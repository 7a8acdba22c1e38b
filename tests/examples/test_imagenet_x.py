"""The examples of ImageNet-X: the report, the factors of the spill-over study, and its effect."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(module, monkeypatch, *words):
    threads = torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", [module.__file__, *map(str, words)])
    try:
        return module.main()
    finally:
        torch.set_num_threads(threads)


def test_report_on_synthetic_data_finds_what_was_put_in(monkeypatch, capsys, tmp_path):
    pytest.importorskip("matplotlib")
    module = load("imagenet_x_report")
    call(module, monkeypatch, "--synthetic", "--out", tmp_path)
    content = json.loads((tmp_path / "factors.json").read_text())
    share, first, _ = zip(*module.SYNTHETIC.values(), strict=True)
    average = sum(p * e for p, e in zip(share, first, strict=True))
    for row in content["models"][0]["factors"]:
        error = module.SYNTHETIC[row["factor"]][1]
        assert row["error_ratio_low"] * 0.95 < error / average < row["error_ratio_high"] * 1.05
    assert content["models"][0]["factors"][0]["factor"] == "texture"
    significant = {
        r["factor"] for r in content["changes"][0]["factors"] if r["accuracy_p_holm"] < 0.05
    }
    assert significant == {"texture", "background"}
    assert (tmp_path / "factors.png").stat().st_size > 0
    assert "From first to second" in capsys.readouterr().out


def test_report_wants_either_files_or_synthetic_data(monkeypatch, capsys):
    module = load("imagenet_x_report")
    for words in ([], ["a.csv", "--synthetic"]):
        with pytest.raises(SystemExit):
            call(module, monkeypatch, *words)
        assert "give files of predictions, or --synthetic" in capsys.readouterr().err


@pytest.fixture(scope="module")
def study():
    pytest.importorskip("mlxtend")
    return load("imagenet_x_spillover")


def test_every_factor_changes_images_and_keeps_their_range(study):
    generator = torch.Generator().manual_seed(0)
    images = torch.zeros(40, 1, 28, 28)
    images[:, :, 8:20, 8:20] = 1
    for name, function in study.FACTORS.items():
        varied = function(images, generator)
        assert varied.shape == images.shape, name
        assert -1e-5 < varied.min() <= varied.max() < 1 + 1e-5, name
        assert ((varied - images).abs().flatten(1).sum(1) > 5).all(), name
    mass = {n: f(images, generator).sum() / images.sum() for n, f in study.FACTORS.items()}
    assert 0.25 < mass["smaller"] < 0.45  # 0.5 to 0.65 squared
    assert 1.7 < mass["larger"] < 2.6
    assert 0.12 < mass["darker"] < 0.3
    assert 0.5 < mass["texture"] < 0.6


def test_factors_are_drawn_as_often_as_asked(study):
    images = torch.rand(3000, 1, 28, 28)
    varied, factor = study.vary(images, 0.9, torch.Generator().manual_seed(0))
    assert (factor == -1).float().mean().item() == pytest.approx(0.1, abs=0.02)
    counts = torch.bincount(factor[factor >= 0], minlength=9)
    assert counts.min() > 0.8 * counts.float().mean()
    assert torch.equal(varied[factor == -1], images[factor == -1])


def test_rotation_goes_both_ways(study):
    image = torch.zeros(1, 1, 28, 28)
    image[..., 4, 14] = 1  # above the centre
    turned = study.warp(image, torch.tensor([90.0]), torch.ones(1))
    back = study.warp(image, torch.tensor([-90.0]), torch.ones(1))
    assert {turned.sum(2).argmax().item() < 14, back.sum(2).argmax().item() < 14} == {True, False}


@pytest.mark.slow
def test_augmentations_help_their_factor_and_spill_over(study, monkeypatch, capsys, tmp_path):
    pytest.importorskip("matplotlib")
    status = call(study, monkeypatch, "--seeds", 3, "--out", tmp_path)
    out = capsys.readouterr().out
    assert status == 0, out
    runs = json.loads((tmp_path / "results.json").read_text())
    assert len(runs) == 9
    # a share of the errors: where that of the target falls, the others' rise on average
    for name, target in study.TARGETS.items():
        ratios = study.changes(runs, name, "error_ratio")
        others = [sum(v) / 3 for factor, v in ratios.items() if factor != target]
        assert sum(ratios[target]) / 3 < -0.3
        assert sum(others) / len(others) > 0
    assert (tmp_path / "spillover.png").stat().st_size > 0
