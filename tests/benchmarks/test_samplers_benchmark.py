"""The benchmark of samplers: both ways agree (it checks that itself), and its table is printed."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "samplers.py"


def test_it_prints_a_line_for_each_measurement(monkeypatch, capsys):
    words = ["--rows=3000", "--classes=20", "--repeats=1"]
    monkeypatch.setattr(sys, "argv", ["samplers.py", *words])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("3,000 rows of 20 classes")
    assert len(lines) == 13
    assert all(float(line.split()[-1]) >= 0 for line in lines[2:])
