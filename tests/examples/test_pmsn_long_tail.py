"""The long-tail example: its parts, its words, and (slow) its effect."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

PATH = Path(__file__).parents[2] / "examples" / "pmsn_long_tail.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("pmsn_long_tail", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["pmsn_long_tail"] = module  # NamedTuple looks its module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(example, monkeypatch, capsys):
    def call(*words):
        threads = torch.get_num_threads()
        monkeypatch.setattr(sys, "argv", ["pmsn_long_tail.py", *words])
        status = example.main()
        torch.set_num_threads(threads)
        return status, capsys.readouterr().out

    return call


def test_mixture_has_the_frequencies_it_says(example):
    data = example.Mixture(1.2, torch.Generator().manual_seed(0))
    first, second, labels = data.draw(20_000)
    assert first.shape == second.shape == (20_000, 16)
    counts = torch.bincount(labels, minlength=10)
    assert counts[0] / counts[9] == pytest.approx(10**1.2, rel=0.15)
    assert (first - second).std().item() == pytest.approx(0.3 * 2**0.5, rel=0.05)


def test_mutual_information(example):
    prototypes = torch.eye(10)
    labels = torch.arange(10).repeat(20)
    assert example.mutual_information(prototypes[labels], prototypes, labels) == pytest.approx(1.0)
    same = prototypes[torch.zeros_like(labels)]
    assert abs(example.mutual_information(same, prototypes, labels)) < 1e-5
    sklearn = pytest.importorskip("sklearn.metrics")
    mixed = torch.where(torch.rand(200) < 0.5, labels, torch.randint(0, 10, (200,)))
    expected = sklearn.normalized_mutual_info_score(labels, mixed)
    value = example.mutual_information(prototypes[mixed], prototypes, labels)
    assert value == pytest.approx(expected, abs=1e-5)


def test_training_finds_the_balanced_classes(example):
    msn = example.VARIANTS[0]
    assert example.agreement(msn, 0.0, seed=0, steps=300) > 0.9
    assert example.agreement(msn, 0.0, seed=0, steps=1) < 0.9


def test_quick_run_prints_the_table(run):
    status, out = run("--seeds", "1", "--steps", "2")
    assert status == 1  # two steps show nothing
    assert out.count(" ± 0.000 |") == 12  # the spread of one seed
    for line in ("| power law 0.25, λ 5 (PMSN) |", "(expected: at least +0.04)", "1 threads"):
        assert line in out


@pytest.mark.slow
def test_power_law_pays_on_the_long_tail_and_costs_on_balanced_data(run):
    status, out = run()
    assert status == 0, out
