from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path

import pytest
import torch

PATH = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def gpu():
    spec = importlib.util.spec_from_file_location("gpu_benchmark", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_row_runs_in_small_and_is_one_line_of_json(gpu, tmp_path, capsys):
    gpu.main(["--tiny", "--device", "cpu", "--steps", "1", "--json", str(tmp_path / "rows.jsonl")])
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["name"] for row in rows] == [row.name for row in gpu.all_rows(tiny=True)]
    assert all(row["ms"] > 0 and not row["fault"] and row["tiny"] for row in rows)
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| MSN")]
    assert len(shown) == sum(row["name"].startswith("MSN") for row in rows)
    one = next(row for row in rows if row["name"].startswith("ImageClassifier"))
    assert 0 < one["outside"] < 1
    cascade = next(row for row in rows if row["name"].startswith("Cascaded"))
    assert "outside" not in cascade  # it runs its optimizers itself


def test_the_table_of_a_gpu_has_all_sizes_and_ways(gpu):
    names = [row.name for row in gpu.all_rows(tiny=False)]
    for size in "SBL":
        for way in ("eager", "fused", "fused, compiled blocks"):
            assert f"MSN, ViT-{size}/16, {way}" in names


def test_a_row_without_room_says_so_and_the_others_run(gpu, capsys):
    row = gpu.Call("too large", lambda device: _no_room, 1)
    found = gpu.measured(row, gpu.argparse.Namespace(device="cpu", warmup=0, steps=1))
    assert found.fault == "out of memory"
    assert "out of memory" in found.line()
    assert math.isnan(found.ms)


def _no_room() -> None:
    raise torch.OutOfMemoryError("no room")


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_without_a_gpu_the_full_table_is_refused(gpu, capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--device", "cpu"])
    assert "--tiny" in capsys.readouterr().err
