"""The benchmark of linear sweeps: both ways do the same work, and its table is printed."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "linear_sweep.py"


@pytest.fixture
def benchmark():
    spec = importlib.util.spec_from_file_location("linear_sweep", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_both_ways_train_the_same_heads(benchmark, monkeypatch):
    made = []
    for name in ("ProbeHead", "ProbeHeads"):
        kind = getattr(benchmark, name)
        monkeypatch.setattr(
            benchmark, name, lambda *a, kind=kind: made.append(kind(*a)) or made[-1]
        )
    options = argparse.Namespace(device="cpu", classes=3, labels=torch.arange(6) % 3)
    torch.manual_seed(0)
    together = benchmark.one_pass(4, 5, options)
    alone = []
    for rate in benchmark.rates(4):
        torch.manual_seed(0)
        alone.append(benchmark.single(rate, 5, options))
    for features in torch.randn(3, 6, 5):
        together(features)
        for step in alone:
            step(features)
    stacked, *single = made
    for index, head in enumerate(single):
        weight = stacked.select(index).linear.weight
        torch.testing.assert_close(weight, head.linear.weight, rtol=1e-4, atol=1e-5)


def test_it_prints_ratios_and_hardware(benchmark, monkeypatch, capsys):
    words = ["--backbone=resnet10t", "--size=32", "--batch=4", "--classes=3", "--heads=2"]
    words += ["--repeats=1"]
    monkeypatch.setattr(sys, "argv", ["linear_sweep.py", *words])
    benchmark.main()
    lines = capsys.readouterr().out.splitlines()
    assert f"torch {torch.__version__}" in lines[1]
    assert [line.split("  ")[0] for line in lines[3:]] == ["2 heads, with encoder", "2 heads alone"]
    assert all(float(line.split()[-1]) > 0 for line in lines[3:])
