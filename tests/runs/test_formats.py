"""Tables of comparisons: what is escaped, bold and left empty; the picture."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from written import config, write_config, write_metrics, write_report, write_run

from lit_ssl.errors import InputError
from lit_ssl.runs import compare_runs
from lit_ssl.runs.formats import as_csv, as_latex, as_markdown, print_comparison

pytestmark = pytest.mark.filterwarnings("error")
WRONG = "a_b & <i>50%</i> | `x` **#1** $y$ [l](http://e.x) {z}~^\\ \x1b[31m"


@pytest.fixture
def found(tmp_path):
    for seed, value in enumerate([0.9, 0.94]):
        write_run(tmp_path / f"a{seed}", value, seed, backbone="vit_tiny")
    write_run(tmp_path / "b", 0.5, 0, backbone=WRONG)
    write_run(tmp_path / "c", None, 0, backbone="=1+1")
    return compare_runs([tmp_path])


def test_markdown(found):
    text = as_markdown(found)
    lines = text.splitlines()
    assert lines[2] == "| backbone | n | k-NN | 1-shot |"
    assert lines[3] == "| --- | --: | --: | --: |"
    row = next(line for line in lines if line.startswith("| vit"))
    assert row == r"| vit\_tiny | 2 | **92.0 ± 2.8** | **50.0 ± 0.0** |"
    empty = next(line for line in lines if line.startswith("| =1+1"))
    assert empty.split(" | ")[2] == "–"
    for sign in ("<i>", "[l](", r"\\[", "**#1**", "\x1b", "$"):
        assert sign not in text
    assert all(line.replace("\\|", "").count("|") == 5 for line in lines if line[:1] == "|")


def test_latex(found):
    text = as_latex(found)
    assert r"\begin{tabular}{lrrr}" in text
    assert r"vit\_tiny & 2 & \textbf{92.0 $\pm$ 2.8} & \textbf{50.0 $\pm$ 0.0} \\" in text
    body = [line for line in text.splitlines() if " & " in line and line[:1] != "%"]
    assert all(line.replace(r"\&", "").count("&") == 3 for line in body)
    assert r"a\_b \& \textless{}i\textgreater{}50\%" in text
    assert text.count("\\midrule") == 2


def test_csv(found):
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert rows[0]["backbone"] in ("'=1+1", "vit_tiny", rows[0]["backbone"])
    assert {row["backbone"] for row in rows} >= {"'=1+1", "vit_tiny"}
    (empty,) = [row for row in rows if row["backbone"] == "'=1+1" and row["metric"] == "knn_acc1"]
    assert empty["mean"] == empty["sd"] == ""
    assert empty["n"] == "0"
    (both,) = [row for row in rows if row["backbone"] == "vit_tiny" and row["metric"] == "knn_acc1"]
    assert float(both["mean"]) == pytest.approx(0.92)
    assert both["seeds"] == "0 1"


@pytest.mark.parametrize("columns", ["200", "40"])
def test_terminal(found, capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    print_comparison(found)
    text = capsys.readouterr().out
    assert "92.0 ± 2.8" in text
    assert "vit_tiny" in text
    assert "\x1b[31m" not in text
    assert "Bold: the best mean of a column" in text


@pytest.mark.parametrize("keys", [{}, {"lr": 1e-4}, {"lr": 1e-4, "mask_ratio": 0.5}])
def test_plot(tmp_path, keys):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from lit_ssl.runs.plot import draw_comparison

    write_run(tmp_path / "a0", 0.8, 0)
    write_run(tmp_path / "a1", 0.9, 1)
    write_run(tmp_path / "b", None, 0, **keys, backbone="$x$" if len(keys) > 1 else "vit")
    figure = draw_comparison(compare_runs([tmp_path]))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    assert np.asarray(canvas.buffer_rgba()).std() > 1
    (axes,) = figure.axes
    assert bool(axes.patches) == (len(keys) != 1)


def test_keys_that_are_called_as_columns_of_numbers(tmp_path):
    write_run(tmp_path / "a", 0.8, mean=0.1, n=5)
    write_run(tmp_path / "b", 0.9, mean=0.2, n=4, lr=1)
    found = compare_runs([tmp_path])
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    knn = [row for row in rows if row["metric"] == "knn_acc1" and not row["baseline"]]
    assert [(row["mean"], row["n"], row["model.mean"]) for row in knn] == [
        ("0.8", "1", "0.1"), ("0.9", "1", "0.2")
    ]  # fmt: skip


@pytest.mark.parametrize("value", [10**400, float("nan"), float("inf")])
def test_values_that_no_axis_has(tmp_path, value):
    from lit_ssl.runs.plot import draw_comparison

    write_run(tmp_path / "a", 0.8, lr=value)
    write_run(tmp_path / "b", 0.9, lr=2)
    (axes,) = draw_comparison(compare_runs([tmp_path])).axes
    assert axes.patches


def test_what_a_plot_leaves_out(tmp_path):
    from lit_ssl.runs.plot import draw_comparison, left_out_of_plot

    for number in range(14):
        write_config(write_report(tmp_path / f"{number}", 0.5, data=f"D{number}"), config(0))
    assert left_out_of_plot(compare_runs([tmp_path])) == 2
    write_config(write_metrics(tmp_path / "nan", "epoch,val/loss\n0,nan\n"), config(0))
    with pytest.raises(InputError, match="nothing to plot: no column has a number"):
        draw_comparison(compare_runs([tmp_path / "nan"]))
