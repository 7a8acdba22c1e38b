"""Tables of a factor report for the terminal and for Markdown."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lit_ssl.imagenet_x.report import SMALL, FactorReportData, protocol_lines, summary

__all__ = ["markdown", "print_report", "report_tables"]


class _Grid(NamedTuple):
    """A table: its title, headers, rows of cells, and rows of a summary below a line."""

    title: str
    headers: list[str]
    rows: list[list[str]]
    foot: list[list[str]]


def print_report(
    report: FactorReportData, console: Console | None = None, changes: bool = True
) -> None:
    """Print the tables and how to read them.

    Args:
        report: What to print.
        console: Where; None: standard output.
        changes: Whether to print the comparisons with the first model.
    """
    console = console or Console(highlight=False)
    if not console.is_terminal:  # a file or a pipe has no width that lines would have to fit
        console.width = max(console.width, 60 + 22 * len(report.names))
    for table in report_tables(report, changes):
        console.print()
        console.print(table)
    for line in protocol_lines(report):
        console.print(line, markup=False, style="dim")


def report_tables(report: FactorReportData, changes: bool = True) -> list[Table]:
    """The tables of a report, for the terminal.

    Args:
        report: what to show.
        changes: whether to show the comparisons with the first model.
    """
    return [_table(grid) for grid in _grids(report)[: None if changes else 2]]


def _table(grid: _Grid) -> Table:
    table = Table(title=escape(grid.title), title_justify="left")
    for column, header in enumerate(grid.headers):  # models are called as their files are
        justify: Any = "right" if column else "left"
        table.add_column(escape(header), justify=justify, no_wrap=column < 2)
    for number, row in enumerate(grid.rows, start=1):
        table.add_row(*map(escape, row), end_section=number == len(grid.rows))
    for row in grid.foot:
        table.add_row(*map(escape, row))
    return table


def markdown(report: FactorReportData) -> str:
    """All tables and how to read them as Markdown.

    Args:
        report: of one model or several.
    """
    parts = []
    for title, headers, rows, foot in _grids(report):
        lines = [" | ".join(cells) for cells in (headers, ["---", *["--:"] * (len(headers) - 1)])]
        lines += [" | ".join(cells) for cells in [*rows, *foot]]
        parts.append(f"### {title}\n\n" + "\n".join(f"| {line} |" for line in lines))
    parts.append("\n".join(protocol_lines(report)))
    return "\n\n".join(parts) + "\n"


def _grids(report: FactorReportData) -> list[_Grid]:
    pairs = zip(report.names[1:], range(len(report.changes)), strict=True)
    return [
        _ratio_grid(report),
        _accuracy_grid(report),
        *(_change_grid(report, name, k) for name, k in pairs),
    ]


def _ratio_grid(report: FactorReportData) -> _Grid:
    rows = [
        [*_factor(report, f), *(_ratio(t.error_ratio, t.error_ratio_low, t.error_ratio_high, f)
                                for t in report.tables)]
        for f in report.order
    ]  # fmt: skip
    title = "Error ratio by factor, largest first (1 = the average)"
    return _Grid(title, ["factor", "n", *report.names], rows, [])


def _accuracy_grid(report: FactorReportData) -> _Grid:
    rows = [
        [*_factor(report, f), *(_percent(t.accuracy[f], t.accuracy_low[f], t.accuracy_high[f])
                                for t in report.tables)]
        for f in report.order
    ]  # fmt: skip
    facts = [summary(s, t) for s, t in zip(report.scores, report.tables, strict=True)]
    foot = [
        ["all annotated", f"{report.tables[0].images:,}"]
        + [_percent(f["accuracy"], f["accuracy_low"], f["accuracy_high"]) for f in facts],
        ["worst factor", ""]
        + [f"{f['worst_factor']} {_number(f['worst_factor_accuracy'])}" for f in facts],
    ]
    if report.scores[0].annotations.num_classes > 100:
        foot.append(["worst 100 classes", "", *(_number(f["worst_100_classes"]) for f in facts)])
    if not all(math.isnan(f["accuracy_all_images"]) for f in facts):
        size = f"{report.scores[0].annotations.size:,}"
        foot.append(
            ["all images, label", size, *(_number(f["accuracy_all_images"]) for f in facts)]
        )
    if not all(math.isnan(f["calibration_error"]) for f in facts):
        foot.append(["calibration error", "", *(_number(f["calibration_error"]) for f in facts)])
    return _Grid("Accuracy by factor, %", ["factor", "n", *report.names], rows, foot)


def _change_grid(report: FactorReportData, name: str, k: int) -> _Grid:
    change = report.changes[k]
    rows = [
        [
            *_factor(report, f),
            _signed(100 * change.accuracy[f], 100 * change.accuracy_low[f],
                    100 * change.accuracy_high[f], 1),
            _p(change.accuracy_p_holm[f], change.accuracy_p_bound[f]),
            _signed(change.error_ratio[f], change.error_ratio_low[f],
                    change.error_ratio_high[f], 2),
            _p(change.error_ratio_p_holm[f], change.error_ratio_p_bound[f]),
        ]
        for f in report.order
    ]  # fmt: skip
    low, high = change.average_interval
    average = _signed(100 * change.average, 100 * low, 100 * high, 1)
    images = np.intersect1d(report.scores[0].numbers, report.scores[k + 1].numbers).size
    p = _p(change.average_p, change.average_p_bound)
    foot = [["all annotated", f"{images:,}", average, p, "", ""]]
    headers = ["factor", "n", "accuracy, points", "p", "error ratio", "p"]
    title = f"From {report.names[0]} to {name}, same images (p: Holm over factors)"
    return _Grid(title, headers, rows, foot)


def _factor(report: FactorReportData, f: int) -> list[str]:
    table = report.tables[0]
    mark = "†" if table.count[f] < SMALL else ""
    return [table.factors[f] + mark, f"{table.count[f]:,}"]


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def _percent(value: float, low: float, high: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f} ({100 * low:.1f}–{100 * high:.1f})"


def _ratio(value: np.ndarray, low: np.ndarray, high: np.ndarray, f: int) -> str:
    return "–" if math.isnan(value[f]) else f"{value[f]:.2f} ({low[f]:.2f}–{high[f]:.2f})"


def _signed(value: float, low: float, high: float, digits: int) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:+.{digits}f} ({low:+.{digits}f}…{high:+.{digits}f})"


def _p(value: float, is_bound: bool) -> str:
    if math.isnan(value):
        return "–"
    star = " *" if value < 0.05 else ""
    if value < 0.001:
        return "<.001" + star
    sign = "≤" if is_bound and value < 1 else ""
    return sign + (f"{value:.3f}".lstrip("0") if value < 1 else "1") + star
