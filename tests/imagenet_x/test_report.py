"""Tables, plots and the words `lit-ssl imagenetx`."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from lit_ssl.errors import InputError
from lit_ssl.imagenet_x.annotations import read_annotations
from lit_ssl.imagenet_x.output import write_report
from lit_ssl.imagenet_x.plot import draw_report, figure_pixels
from lit_ssl.imagenet_x.predictions import Predictions
from lit_ssl.imagenet_x.report import build_report, protocol_lines
from lit_ssl.imagenet_x.text import markdown
from lit_ssl.metrics import FactorScores


@pytest.fixture
def scores(random_annotations):
    """Three models on 4,000 images with factors a to d: bad at d, like it, and good at d."""
    annotations = random_annotations(4000, (0.45, 0.35, 0.19, 0.01))
    errors = {
        "first": (0.2, 0.2, 0.1, 0.6),
        "same": (0.2, 0.2, 0.1, 0.6),
        "good": (0.2, 0.2, 0.4, 0),
    }

    def model(seed, name):
        rng = np.random.default_rng([seed % 2, 5])  # the third is wrong where the first is
        wrong = rng.random(4000) < annotations.members @ np.array(errors[name])
        classes = np.where(wrong, (annotations.labels + 1) % 10, annotations.labels)
        return Predictions(name, np.r_[-1, classes], np.r_[np.nan, rng.random(4000)])

    return [FactorScores(model(i, name), annotations) for i, name in enumerate(errors)]


def test_report_sorts_marks_and_compares(scores):
    report = build_report(scores)
    ratios = np.mean([table.error_ratio for table in report.tables], axis=0)
    assert np.all(np.diff(ratios[report.order]) <= 0)
    # the third differs from the first in c and d, which moves the ratios of a and b, too
    assert report.differs[2].all()
    assert (report.changes[1].accuracy_p_holm < 0.05).tolist() == [False, False, True, True]
    assert not report.differs[1].any()
    assert report.differs[0].all()  # some model differs from the first
    text = markdown(report)
    assert "| d† | 4" in text
    assert "### From first to good, same images" in text
    assert "†: fewer than 100 images" in text
    assert "rise. Compare models by accuracy" in " ".join(protocol_lines(report))
    single = build_report(scores[:1])
    table = single.tables[0]
    inside = (table.error_ratio_low <= 1) & (table.error_ratio_high >= 1)
    assert single.differs[0].tolist() == (~inside).tolist()
    with pytest.raises(InputError, match="same name: first, first"):
        build_report([scores[0], scores[0]])


def test_files_hold_the_numbers(scores, tmp_path):
    report = build_report(scores[:2])
    files = write_report(report, tmp_path / "out", plot=False)
    assert sorted(path.name for path in files.values()) == [
        "factors.csv", "factors.json", "factors.md", "metaclasses.csv",
    ]  # fmt: skip
    with files["table"].open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    first = rows[0]
    f = int(report.order[0])
    table = report.tables[0]
    assert (first["model"], first["factor"]) == ("first", table.factors[f])
    assert float(first["error_ratio_high"]) == table.error_ratio_high[f]
    content = json.loads(files["json"].read_text())
    (change,) = content["changes"]
    assert (change["from"], change["to"]) == ("first", "same")
    assert change["accuracy"] == pytest.approx(report.tables[1].average - table.average)
    assert content["models"][0]["worst_factor"] == table.worst_factor
    with files["metaclasses"].open() as file:
        groups = list(csv.DictReader(file))
    assert [row["metaclass"] for row in groups] == ["x", "y", "z"] * 2
    assert sum(int(row["images"]) for row in groups[:3]) == 4000
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
        path.name for path in files.values()
    )


def test_plot_draws_every_number(scores):
    pytest.importorskip("matplotlib")
    report = build_report([scores[0], scores[2]])
    figure = draw_report(report)
    top, bottom = figure.axes
    assert len(top.patches) == 8
    for k, table in enumerate(report.tables):
        bars = top.patches[4 * k : 4 * k + 4]
        heights = [bar.get_height() for bar in bars]
        np.testing.assert_allclose(heights, table.error_ratio[report.order] - 1)
        assert all(bar.get_y() == 1 for bar in bars)  # from the baseline
        solid = [bar.get_alpha() == 1 for bar in bars]
        assert solid == report.differs[k][report.order].tolist()
        assert len({bar.get_facecolor()[:3] for bar in bars}) == 1
        # ends of the error bars
        (lines,) = top.containers[2 * k + 1].lines[2]
        ends = np.array([segment[:, 1] for segment in lines.get_segments()])
        np.testing.assert_allclose(ends[:, 0], table.error_ratio_low[report.order], atol=1e-12)
        np.testing.assert_allclose(ends[:, 1], table.error_ratio_high[report.order], atol=1e-12)
    ticks = [label.get_text() for label in bottom.get_xticklabels()]
    table = report.tables[0]
    assert ticks == [f"{table.factors[f]}\nn={table.count[f]:,}" for f in report.order]
    entries = [text.get_text() for text in top.get_legend().get_texts()]
    assert entries == [f"{s.name} ({100 * t.average:.1f} %)"
                       for s, t in zip(report.scores, report.tables, strict=True)]  # fmt: skip
    texts = [text.get_text() for text in top.texts]
    assert any("less robust" in text for text in texts)
    assert any("more robust" in text for text in texts)
    pixels = figure_pixels(figure)
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


def overlaps(figure):
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[1].get_xticklabels()]
    return [i for i, (a, b) in enumerate(pairwise(boxes)) if a.x1 >= b.x0]


@pytest.mark.parametrize(
    ("factors", "models"), [(2, 1), (4, 1), (16, 1), (16, 3), (40, 1), (40, 4), (90, 1)]
)
def test_labels_of_factors_do_not_overlap(factors, models):
    pytest.importorskip("matplotlib")
    words = ("subcategory", "object_blocking", "averyveryverylongnameofafactorofmine", "x")
    names = [f"{words[n % 4]}{n}" for n in range(factors)]
    ones = np.ones(factors)
    table = SimpleNamespace(
        factors=names, count=np.full(factors, 49_999), average=0.7, level=0.95,
        **{f"{kind}{end}": ones * 0.8 for kind in ("error_ratio", "accuracy")
           for end in ("", "_low", "_high")},
    )  # fmt: skip
    report = SimpleNamespace(
        order=np.arange(factors), tables=[table] * models,
        names=[f"model{k}" for k in range(models)],
        differs=[ones > 0] * models,
        protocol={"annotations": "own", "error_type": "all", "images": 50_000},
    )  # fmt: skip
    figure = draw_report(report)
    assert overlaps(figure) == []
    labels = [label.get_text() for label in figure.axes[1].get_xticklabels()]
    assert [text.splitlines()[-1] for text in labels] == ["n=49,999"] * factors


def test_perfect_models_and_empty_factors_can_be_drawn(scores, tmp_path):
    pytest.importorskip("matplotlib")
    annotations = scores[0].annotations
    classes = np.r_[-1, annotations.labels]
    perfect = FactorScores(Predictions("perfect", classes, classes * np.nan), annotations)
    report = build_report([scores[0], perfect])
    files = write_report(report, tmp_path)
    assert files["plot"].read_bytes()[:4] == b"\x89PNG"
    assert json.loads(files["json"].read_text())["models"][1]["factors"][0]["error_ratio"] is None
    assert "–" in files["markdown"].read_text()


# ------------------------------------------------------- the words


@pytest.fixture
def two(predict, write_predictions_file):
    return [write_predictions_file(predict(seed, name)) for seed, name in enumerate("ab")]


def test_score_and_compare(lit_ssl, folder, two, tmp_path):
    base = [*two, "--annotations", folder]
    result = lit_ssl("imagenetx", "score", *base)
    assert result.code == 0, result.err
    assert "Accuracy by factor, %" in result.out
    assert "From a to b" not in result.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "annotations", "b.csv"]
    result = lit_ssl("imagenetx", "compare", *base, "--factors", "multi", "--out", "o", "--no-plot")
    assert "From a to b, same images (p: Holm over factors)" in result.out
    assert "o/factors.csv" in result.out
    assert not (tmp_path / "o" / "factors.png").exists()
    content = json.loads((tmp_path / "o" / "factors.json").read_text())
    annotations = read_annotations(str(folder), "multi")
    assert content["protocol"]["annotations"] == annotations.source == "ImageNet-X (multi factors)"


def test_real_labels_say_what_becomes_of_empty_sets(lit_ssl, folder, two):
    base = ["imagenetx", "score", two[0], "--annotations", folder, "--errors", "real"]
    dropped, wrong = lit_ssl(*base, "--human"), lit_ssl(*base, "--real-empty", "wrong")
    assert "images without any are left out" in dropped.out
    assert "images without any count as errors" in wrong.out
    assert "human" in dropped.out
    assert "50 images" in wrong.out
    assert "50 images" not in dropped.out


def test_wrong_words(lit_ssl, folder, two, predict, write_predictions_file, made_up):
    def error(*words):
        result = lit_ssl("imagenetx", *words)
        assert result.code == 2
        assert result.err.startswith("error: ")
        assert result.err.count("\n") == 1
        assert "Traceback" not in result.err
        return result.err

    base = ["--annotations", folder]
    assert "needs at least two files" in error("compare", two[0], *base)
    assert "--human needs --errors real" in error("score", two[0], "--human", *base)
    assert "invalid choice" in error("scores", two[0])
    assert "--level must lie between 0 and 1" in error("score", two[0], *base, "--level", "95")
    assert "no folder" in error("score", two[0], "--annotations", "absent")
    for out in (two[1], two[1] / "o"):
        assert "b.csv is a file; give a folder" in error("score", two[0], *base, "--out", out)
    short = write_predictions_file(predict(), "short", drop=[made_up.annotated[0]])
    assert "short has no prediction for 1 of the 50" in error("score", short, *base, "--out", "o")
    twice = write_predictions_file(predict(), "twice", double=[7])
    assert "1 images more than once" in error("score", two[0], twice, *base, "--out", "o")
    assert not (folder.parent / "o").exists()  # nothing half-written
    result = lit_ssl("imagenetx", "score", short, *base, "--partial")
    assert "PARTIAL: 50 are annotated" in result.out


def test_own_table_has_no_metaclasses(lit_ssl, tmp_path):
    (tmp_path / "mine.csv").write_text("file_name,label,night\na.png,0,1\nb.png,1,0\n")
    (tmp_path / "p.csv").write_text("file_name,predicted_class\na.png,0\nb.png,0\nc.png,0\n")
    words = ["imagenetx", "score", "p.csv", "--annotations", "mine.csv"]
    result = lit_ssl(*words)
    assert result.code == 0, result.err
    assert "1 predictions of images without annotations" in result.out
    assert "has nothing for error_type 'real'" in lit_ssl(*words, "--errors", "real").err


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['lit-ssl', 'imagenetx', 'score', '--help']\n"
        "from lit_ssl.__main__ import main\n"
        "try: main()\nexcept SystemExit as stop: assert stop.code == 0\n"
        "heavy = {'torch', 'numpy', 'lightning', 'timm', 'jsonargparse'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "PREDICTIONS.csv" in done.stdout
