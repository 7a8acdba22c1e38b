"""The table of few group labels: what it prints, and the direction of its results."""

from __future__ import annotations

import importlib.util
import statistics
import sys
from pathlib import Path

import pytest

pytest.importorskip("mlxtend")
PATH = Path(__file__).parents[2] / "examples" / "barack_partial_labels.py"


@pytest.fixture
def example():
    spec = importlib.util.spec_from_file_location(PATH.stem, PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[PATH.stem] = module  # NamedTuple looks its module up
    spec.loader.exec_module(module)
    return module


def test_table_and_plot(example, tmp_path, capsys):
    records = [
        {"method": name, "fraction": fraction, "seed": seed, "worst": 0.5 + seed / 10, "average": 1}
        for name, fractions in [
            (example.ERM, [0.0]), (example.ORACLE, [1.0]), ("BARACK", [0.01, 0.05]),
        ]
        for fraction in fractions
        for seed in (0, 1)
    ]  # fmt: skip
    example.print_table(records, [0.01, 0.05], ["BARACK"])
    shown = capsys.readouterr().out
    assert "| BARACK | 55.0 ± 7.1 | 55.0 ± 7.1 |" in shown
    assert f"| {example.ERM} | 100.0 ± 0.0 | 100.0 ± 0.0 |" in shown
    example.plot(records, [0.01, 0.05], ["BARACK"], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_few_group_labels_are_enough(example):
    """Means of 3 seeds with 5 % of the labels; the bounds are those of the specification."""
    seeds, methods = (0, 1, 2), ("BARACK", "Subset-GDRO")
    records = example.measure([0.05], seeds, methods)
    worst = {
        name: statistics.mean(example.select(records, name, None))
        for name in (example.ERM, example.ORACLE, *methods)
    }
    assert worst["BARACK"] - worst[example.ERM] >= 0.4
    assert abs(worst["BARACK"] - worst[example.ORACLE]) <= 0.06
    assert worst["BARACK"] - worst["Subset-GDRO"] >= 0.2
