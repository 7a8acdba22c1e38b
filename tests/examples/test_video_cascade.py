"""The example of cascades runs, keeps what was done, and reports what it measured."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("mlxtend")
pytest.importorskip("matplotlib")
SCRIPT = Path(__file__).parents[2] / "examples" / "video_cascade.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("video_cascade", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["video_cascade"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(example, monkeypatch, capsys, tmp_path):
    def call(*more):
        words = ["example", "--quick", "--seeds", "1", "2", "--out", str(tmp_path), *more]
        monkeypatch.setattr(sys, "argv", words)
        example.main()
        return capsys.readouterr().out, list(csv.DictReader((tmp_path / "results.csv").open()))

    return call


def test_it_reports_what_was_found(example, run, tmp_path):
    for part, name, seed, result in (
        ("level1", "plain", 1, {"rfd": 12.5}),
        ("matching", "with", 1, {"rfd": 9, "steps": {"80": {"own": 0.1, "gap": 0.5}}}),
        ("matching", "with", 2, {"rfd": 11, "steps": {"80": {"own": 0.3, "gap": 0.7}}}),
        ("matching", "without", 1, {"rfd": 8, "steps": {"80": {"own": 0.4, "gap": 0.2}}}),
        ("cost", "4x16", 0, {"seconds": 0.5, "mebibytes": 100.25}),
    ):
        job = example.Job(part, name, seed, example.QUICK, tmp_path)
        record = {"part": part, "name": name, "seed": seed, "result": result, "cpu_seconds": 1.0}
        job.path.write_text(json.dumps({**record, "settings": example.settings(job)}))
        if part == "level1":
            job.checkpoint.touch()
    out, rows = run("--found")
    assert "| with | 2 | 0.60 ± 0.14 | 0.200 ± 0.141 | 10.0 ± 1.4 |" in out
    assert "| without | 1 | 0.20 ± 0.00 | 0.400 ± 0.000 | 8.0 ± 0.0 |" in out
    assert "| 4 | 16 | 0.500 | 100.2 |" in out
    assert "Level 1: RFD 12.5 ± 0.0 over 1 seeds" in out
    assert len(rows) == 1 + 3 * 3 + 2
    assert (tmp_path / "video_cascade.png").stat().st_size > 0
    # another setting is another run
    job.path.write_text(json.dumps({**record, "settings": "other"}))
    assert "CPU seconds" not in run("--found")[0]


def test_it_measures_a_step(example, run, monkeypatch):
    monkeypatch.setattr(example, "WINDOWS", (1, 2))
    monkeypatch.setattr(example, "LENGTHS", (8, 16))
    out, rows = run("--only", "cost")
    assert "| 2 | 8 | " in out
    kept = {row["name"]: float(row["value"]) for row in rows if row["measure"] == "mebibytes"}
    assert kept["2x8"] > 1.5 * kept["1x8"]
    assert kept["4x16"] > 1.5 * kept["2x8"]
    assert len(rows) == 2 * 3


@pytest.mark.slow
def test_it_trains_once(run, tmp_path):
    out, rows = run("--only", "matching")
    assert out.startswith("# level1 plain, seed 1")
    assert {row["measure"] for row in rows} == {"rfd", "own", "shuffled", "gap"}
    again, same = run("--only", "matching")
    assert "# " not in again
    assert same == rows
    assert len(list(tmp_path.glob("*.png"))) == 2 + 4 + 1
