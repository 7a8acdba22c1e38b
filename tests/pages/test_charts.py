from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from lit_ssl.pages.charts import Line, charts, count_charts, draw_chart, thinned
from lit_ssl.pages.style import STYLE


def line(values):
    return Line(np.arange(len(values)), np.array(values, float))


def parsed(figure):
    return ElementTree.fromstring(str(figure))


def test_what_belongs_together_shares_a_drawing():
    names = ["val/knn_acc1", "train/loss", "val/loss", "epoch", "train/acc_step", "train/acc_epoch"]
    names += [f"val/lowshot_{n}_acc1" for n in (1, 2, 5)]
    curves = {name: line([1.0, 2.0]) for name in names}
    drawn = charts(curves)
    keys = [[key.text or key[0].tail for key in parsed(d).iter("span")] for d in drawn]
    assert keys[0] == ["train/loss", "val/loss"]
    assert ["val/lowshot_1_acc1", "val/lowshot_2_acc1", "val/lowshot_5_acc1"] in keys
    assert ["train/acc_step", "train/acc_epoch"] in keys
    assert len(drawn) == count_charts(curves) == 4


def test_more_lines_than_colours_are_several_drawings():
    curves = {f"layer_{n}": line([0.0, 1.0]) for n in range(20)}
    assert len(charts(curves)) == count_charts(curves) == 3
    assert len(charts(curves, most=2)) == 2


def test_gaps_are_seen():
    figure = draw_chart({"loss": line([1.0, 2.0, np.nan, np.inf, 1.5, 1.0, np.nan, 3.0])})
    tree = parsed(figure)
    lines = [e for e in tree.iter("polyline") if "points" in e.attrib]
    assert [len(e.get("points").split()) for e in lines] == [2, 2]
    assert len([e for e in tree.iter("circle") if "dot" in e.get("class")]) == 1  # the last one
    missing = [e[0].text for e in tree.iter("rect")]
    assert missing == ["inf and nan at steps 2 to 3", "nan at step 6"]
    assert "not finite in places" in tree.find("svg").get("aria-label")


@pytest.mark.parametrize(
    "values", [[], [5.0], [0.0], [np.nan], [2.0, 2.0], [1e-30, 1e30], [-1e9, 1e9], [-3.0, -3.0]]
)
def test_odd_curves_are_drawn_within_the_picture(values):
    drawn = charts({"loss": line(values)})
    assert len(drawn) == (1 if values else 0)
    for figure in drawn:
        assert "nan," not in str(figure)
        assert ",nan" not in str(figure)
        for points in re.findall(r'points="([^"]*)"', str(figure)):
            x, y = np.array([pair.split(",") for pair in points.split()], float).T
            assert x.min() >= 52
            assert x.max() <= 350
            assert y.min() >= 11
            assert y.max() <= 183


def test_rates_have_a_log_scale_and_accuracies_percent():
    rates = str(draw_chart({"lr": line([1e-5, 1e-2])}))
    assert "log scale" in rates
    assert ">0.001<" in rates
    accuracies = str(draw_chart({"val/knn_acc1": line([0.25, 0.5])}))
    assert ">%<" in accuracies
    assert "step 1: 50 %" in accuracies
    assert "log" not in accuracies


def test_many_points_keep_their_extremes():
    values = np.sin(np.arange(100_000) / 50)
    values[54_321] = 9.0
    kept = thinned(np.linspace(52, 350, 100_000), values)
    assert len(kept) <= 4 * 300
    assert 54_321 in kept
    assert kept[0] == 0
    assert kept[-1] == 99_999
    figure = str(draw_chart({"loss": Line(np.arange(100_000), values)}))
    assert len(figure) < 40_000
    assert "step 54,321: 9" in figure


def test_names_are_text():
    figure = draw_chart({'<script>alert("x")</script>': line([1.0, 2.0])})
    assert "<script" not in str(figure)
    assert "&lt;script&gt;" in str(figure)
    parsed(figure)


@pytest.mark.parametrize(
    "values", [[-1e308, 1e308], [1e308, 1.7e308], [5e-324, 1e-323], [1e-300, 1e300], [1.79e308] * 3]
)
@pytest.mark.filterwarnings("error")
def test_values_at_the_ends_of_what_numbers_hold(values):
    figure = str(draw_chart({"loss": line(values)}))
    assert not re.search(r"(points|[xy][12]?|c[xy])=\"[^\"]*(nan|inf)", figure)
    parsed(draw_chart({"loss": line(values)}))


@pytest.mark.parametrize("steps", [[2**62], [2**62, 2**62 + 1], [-(2**63), 2**63 - 1]])
@pytest.mark.filterwarnings("error")
def test_steps_at_the_ends_of_what_numbers_hold(steps):
    parsed(draw_chart({"loss": Line(np.array(steps), np.arange(len(steps), dtype=float))}))


def test_long_names_break_within_their_drawing():
    rule = re.search(r"\.key\{([^}]*)\}", STYLE)[1]  # a flex item grows with its longest word, else
    assert "overflow-wrap:anywhere" in rule


def test_a_curve_of_zeros_has_an_axis_that_can_be_read():
    texts = [text.text for text in parsed(draw_chart({"val/acc1": line([0.0])})).iter("text")]
    assert not any("e-" in text for text in texts if text)
