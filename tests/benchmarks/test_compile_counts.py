"""No method breaks its graphs or compiles anything anew while it trains."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "compile.py"


def load():
    spec = importlib.util.spec_from_file_location("compile_counts", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


benchmark = load()
QUICK = ("MSN", "FineTuning", "NAC")
CASES = [
    pytest.param(name, mode, marks=() if name in QUICK and mode == "blocks" else pytest.mark.slow)
    for name in benchmark.METHODS
    for mode in ("blocks", "network")
]


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_graphs_are_made_in_the_first_steps_only(name, mode):
    graphs, breaks = benchmark.count(benchmark.METHODS[name], mode)
    assert graphs[0] > 0
    assert graphs[1] == graphs[-1]
    assert not breaks
