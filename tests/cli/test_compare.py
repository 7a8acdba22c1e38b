"""``lit-ssl compare`` as people type it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "runs"))
from written import write_metrics, write_run

from lit_ssl.cli.compare import run
from lit_ssl.errors import InputError


@pytest.fixture
def runs(tmp_path):
    for seed, value in enumerate([0.9, 0.94]):
        write_run(tmp_path / "runs" / f"{seed}", value, seed)
    return tmp_path / "runs"


def test_it_prints_and_writes(runs, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    run([str(runs), "--metric", "knn_acc1", "--output", str(out)])
    assert "92.0 ± 2.8" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == [
        "comparison.csv", "comparison.md", "comparison.png", "comparison.tex"
    ]  # fmt: skip
    assert (out / "comparison.png").read_bytes()[1:4] == b"PNG"
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(InputError, match=r"comparison.md is there; give another folder"):
        run([str(runs), "--output", str(out)])
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize(
    ("form", "text"), [("markdown", "| MSN | 2 |"), ("latex", "\\toprule"), ("csv", "table,model")]
)
def test_formats(runs, tmp_path, capsys, form, text):
    run([str(runs), "--format", form, "--output", str(tmp_path / "out"), "--no-plot"])
    printed = capsys.readouterr()
    assert text in printed.out
    assert "wrote" not in printed.out
    assert "wrote comparison.md" in printed.err
    assert not (tmp_path / "out" / "comparison.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: RUN"),
        (["RUNS", "--format", "html"], "invalid choice: 'html'"),
        (["RUNS", "--no-plot"], "--no-plot goes with --output"),
        (["RUNS", "--metric", "knn"], r"no run has a metric 'knn'\. Valid: knn_acc1, lowshot_1"),
        (["RUNS", "--output", "RUNS/0/report.json"], "report.json is a file"),
        (["RUNS/none"], "there is no"),
    ],
)
def test_mistakes_are_one_line(runs, words, message):
    with pytest.raises(InputError, match=message):
        run([word.replace("RUNS", str(runs)) for word in words])


def test_it_starts_without_torch(runs):
    code = (
        "import sys\nfrom lit_ssl.cli.words import run_word\n"
        f"run_word(['compare', {str(runs)!r}])\n"
        "assert not {'torch', 'lightning', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_what_is_left_out_is_no_line_of_a_table(runs, capsys):
    write_metrics(runs / "odd\x1b[31m", "epoch,train/loss\n0,1\n")
    run([str(runs), "--format", "csv"])
    said = capsys.readouterr()
    assert "left out" not in said.out
    assert "odd [31m/metrics.csv has no metrics" in said.err
