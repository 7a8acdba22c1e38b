"""A comparison as one picture."""

from __future__ import annotations

from typing import Any

from lit_ssl.errors import InputError, InputImportError
from lit_ssl.runs.comparison import ComparedRow, ComparedTable, Comparison, Score
from lit_ssl.runs.formats import row_name
from lit_ssl.runs.reports import Column

__all__ = ["draw_comparison", "left_out_of_plot", "need_matplotlib"]

# Okabe and Ito's colours, which colour-blind readers tell apart
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999")
_MARKERS = "osD^vP*"
_MOST = 12  # panels
_LARGEST = 1e15  # on an axis


def need_matplotlib() -> None:
    """Refuse to go on where matplotlib is not installed.

    Raises:
        InputImportError: it is not.
    """
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise InputImportError(
            "the plot needs matplotlib: pip install 'lit-ssl[examples]', or say --no-plot"
        )


def draw_comparison(comparison: Comparison) -> Any:
    """Draw means with their standard deviations, a panel for each table and unit.

    Where exactly one key differs, and all its values are numbers, they are the horizontal axis;
    else each setting has a bar. Baselines that are the same for all settings are dashed lines
    beside curves.

    Args:
        comparison: with at least one table.

    Returns:
        A ``matplotlib.figure.Figure``, which no window or global state knows of.

    Raises:
        InputError: none of the columns has a number.
    """
    from matplotlib.figure import Figure

    panels = _panels(comparison)[:_MOST]
    if not panels:
        raise InputError("there is nothing to plot: no column has a number; say --no-plot")
    widths = [_width(table, columns) for table, columns in panels]
    figure = Figure(figsize=(max(widths), 3.9 * len(panels)), layout="constrained")
    all_axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for axes, (table, columns) in zip(all_axes, panels, strict=True):
        if _axis(table) is None:
            _draw_bars(axes, table, columns)
        else:
            _draw_curves(axes, table, columns)
        axes.set_title(_literal(table.title), loc="left", fontsize=9)
        unit = "%" if columns[0].is_share else _literal(table.label(columns[0]))
        axes.set_ylabel(unit)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        if columns[0].is_share or len(columns) > 1:
            axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def left_out_of_plot(comparison: Comparison) -> int:
    """How many panels a plot has no room for.

    Args:
        comparison: to draw.
    """
    return max(0, len(_panels(comparison)) - _MOST)


def _panels(comparison: Comparison) -> list[tuple[ComparedTable, list[Column]]]:
    return [
        (table, columns)
        for table in comparison.tables
        for is_share in (True, False)
        for columns in _of_unit(table, is_share)
    ]


def _of_unit(table: ComparedTable, is_share: bool) -> list[list[Column]]:
    """Shares together, each other number by itself; without columns that have no numbers."""
    columns = [
        column
        for column in table.columns
        if column.is_share == is_share and any(row.scores[column] for row in table.rows)
    ]
    if is_share:
        return [columns] if columns else []
    return [[column] for column in columns]


def _axis(table: ComparedTable) -> list[float] | None:
    """The values of the one key that differs, where they are numbers."""
    own = [row for row in table.rows if row.baseline is None]
    if len(table.keys) != 1 or len(own) < 2:
        return None
    values = [row.setting[table.keys[0]] for row in own]
    for value in values:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not abs(value) < _LARGEST:  # nor NaN
            return None
    return [float(value) for value in values]


def _width(table: ComparedTable, columns: list[Column]) -> float:
    if _axis(table) is not None:
        return 7.0
    return min(24.0, max(7.0, 2.5 + 0.22 * len(table.rows) * (len(columns) + 1)))


def _draw_curves(axes: Any, table: ComparedTable, columns: list[Column]) -> None:
    own = [row for row in table.rows if row.baseline is None]
    others = [row for row in table.rows if row.baseline is not None]
    places = _axis(table)
    assert places is not None
    for number, column in enumerate(columns):
        colour = _COLOURS[number % len(_COLOURS)]
        points = [(x, score) for x, row in zip(places, own, strict=True)
                  if (score := row.scores[column])]  # fmt: skip
        factor = 100.0 if column.is_share else 1.0
        axes.errorbar(
            [x for x, _ in points],
            [factor * score.mean for _, score in points],
            [factor * _spread(score) for _, score in points],
            fmt=_MARKERS[number % len(_MARKERS)] + ("--" if number >= len(_COLOURS) else "-"),
            color=colour, markersize=4, capsize=3,
            elinewidth=1, label=_literal(table.label(column)),
        )  # fmt: skip
        for row in others:
            score = row.scores[column]
            is_one_line = all(value is None for value in row.setting.values())
            if score is not None and is_one_line:
                style = ":" if row.baseline == "pixels" else (0, (4, 3))
                axes.axhline(factor * score.mean, color=colour, linewidth=0.8, linestyle=style)
    names = {row.baseline: None for row in others if not any(row.setting.values())}
    shown = [f"{'dotted' if name == 'pixels' else 'dashed'}: {name}" for name in names]
    axes.set_xlabel(_literal("; ".join([table.keys[0], *map(str, shown)])))
    if min(places) > 0 and max(places) / min(places) >= 30:
        axes.set_xscale("log")


def _draw_bars(axes: Any, table: ComparedTable, columns: list[Column]) -> None:
    slot = 0.8 / len(columns)
    for number, column in enumerate(columns):
        factor = 100.0 if column.is_share else 1.0
        offset = (number - (len(columns) - 1) / 2) * slot
        scores: list[tuple[int, Score]] = [
            (place, score) for place, row in enumerate(table.rows) if (score := row.scores[column])
        ]
        axes.bar(
            [place + offset for place, _ in scores],
            [factor * score.mean for _, score in scores],
            slot * 0.92,
            hatch="///" if number >= len(_COLOURS) else None, edgecolor="white", linewidth=0,
            yerr=[factor * _spread(score) for _, score in scores],
            color=_COLOURS[number % len(_COLOURS)], capsize=2, error_kw={"elinewidth": 1},
            label=_literal(table.label(column)),
        )  # fmt: skip
    names = [_literal(_bar_name(row)) for row in table.rows]
    turned = max(map(len, names)) > 14 and len(names) > 3
    axes.set_xticks(range(len(names)), names, fontsize=8)
    if turned:
        for tick in axes.get_xticklabels():
            tick.set(rotation=30, ha="right", rotation_mode="anchor")


def _spread(score: Score) -> float:
    """NaN for a single value, of which no bar of error is drawn."""
    return float("nan") if score.sd is None else score.sd


def _bar_name(row: ComparedRow) -> str:
    return row_name(row).replace(", ", "\n")


def _literal(text: str) -> str:
    """Without what matplotlib would take for mathematics."""
    return text.replace("$", r"\$")
