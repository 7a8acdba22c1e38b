"""Table, files and curve of a sweep over numbers of modules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lit_ssl.errors import InputImportError
from lit_ssl.files import write_csv, write_json
from lit_ssl.imagenet_x.plot import save_figure

__all__ = [
    "FILES",
    "draw_sweep",
    "module_table",
    "need_matplotlib",
    "print_sweep",
    "sweep_lines",
    "write_sweep",
]

FILES = ("module_drop.csv", "module_drop.json", "module_drop.png")

TITLE = "Circuit with fewer modules"

Row = dict[str, Any]


def write_sweep(
    folder: Path, rows: Sequence[Row], summary: dict[str, Any], figure: Any
) -> dict[str, str]:
    """Write ``module_drop.csv`` (rows), ``.json`` (rows and summary) and, if drawn, ``.png``.

    Args:
        folder: where to.
        rows: one for each number of modules.
        summary: what holds for all rows.
        figure: of matplotlib, or None: no picture.

    Returns:
        The files by kind.
    """
    files = {
        "table": str(write_csv(folder / FILES[0], rows)),
        "json": str(write_json(folder / FILES[1], {**summary, "levels": list(rows)})),
    }
    if figure is not None:
        files["curve"] = str(save_figure(figure, folder / FILES[2]))
    return files


def print_sweep(rows: Sequence[Row], summary: dict[str, Any], files: dict[str, str]) -> None:
    """Print the table, what it was measured on, and whether the sweep is void.

    Args:
        rows: one for each number of modules; at least one, all with the same names.
        summary: what holds for all rows, as for ``sweep_lines``.
        files: paths by kind, printed below.
    """
    from rich.console import Console

    table = module_table(rows)
    columns = len(table.columns)
    console = Console(highlight=False, width=None if columns < 9 else 24 + 11 * columns)
    console.print(table)
    for line in sweep_lines(summary):
        console.print(line, markup=False, soft_wrap=True)
    for kind, path in files.items():
        console.print(f"{kind + ':':<7}{path}", markup=False, soft_wrap=True)


def module_table(rows: Sequence[Row]) -> Any:
    """Table of the levels for the terminal.

    Args:
        rows: of the sweep.

    Returns:
        A ``rich`` table.
    """
    from rich.table import Table

    table = Table(title=TITLE, title_justify="left")
    names = [name for name in rows[0] if name != "share"]
    for name in names:
        table.add_column(_title(name), justify="right")
    for row in rows:
        table.add_row(*(_cell(name, row[name]) for name in names))
    return table


def sweep_lines(summary: dict[str, Any]) -> list[str]:
    """The lines under the table.

    Args:
        summary: with ``method``, ``device``, ``threads``, ``precision`` and ``gate``.
    """
    gate = summary["gate"]
    name = next(name for name in gate if name.endswith("acc1"))
    lines = [
        f"modules ranked by {summary['method']}; ms per input, medians on {summary['device']}, "
        f"{summary['threads']} threads, precision {summary['precision']}",
        f"gate: {100 * gate[name]:.1f} % with {gate['network']}, "
        f"{100 * gate['gap']:.1f} points below the full circuit",
    ]
    if gate["is_void"]:
        lines.append(
            "VOID: the full circuit is not 5 points better than that, so that dropping modules "
            "shows nothing about them"
        )
    return lines


def draw_sweep(rows: Sequence[Row], summary: dict[str, Any], batch_sizes: Sequence[int]) -> Any:
    """Draw accuracy by number of modules (left) and by measured speed-up (right).

    Args:
        rows: Of the sweep.
        summary: Of the sweep; the gate is drawn as a line.
        batch_sizes: That were timed.

    Returns:
        A ``matplotlib.figure.Figure``, which no window or global state knows of.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    modules = [row["modules"] for row in rows]
    scores = [name for name in rows[0] if name.endswith("acc1")]
    for name in scores:
        left.plot(modules, [100 * row[name] for row in rows], "o-", label=_title(name))
    gate = summary["gate"]
    floor = 100 * gate[scores[0]]
    left.axhline(floor, color="#999999", linestyle=":", label=gate["network"])
    left.set_xscale("log", base=2)
    left.set_xticks(modules, [str(n) for n in modules])
    left.minorticks_off()
    left.set_xlabel("modules kept")
    left.set_ylabel("accuracy, %")
    left.legend()
    accuracy = [100 * row[scores[0]] for row in rows]
    for number, size in enumerate(batch_sizes):
        for kind, style in (("circuit", "o-"), ("network", "s--")):
            name = f"{kind}_speedup_b{size}"
            if name in rows[0]:
                speed = [row[name] for row in rows]
                label = f"{kind}, batch {size}"
                right.plot(speed, accuracy, style, color=f"C{number}", label=label)
    right.axhline(floor, color="#999999", linestyle=":")
    right.set_xlabel("measured speed-up")
    if right.get_legend_handles_labels()[0]:
        right.legend()
    void = ": void, see the gate" if gate["is_void"] else ""
    figure.suptitle(f"modules dropped by {summary['method']}{void}")
    return figure


def need_matplotlib() -> None:
    """Raise InputImportError where matplotlib is not installed.

    Raises:
        InputImportError: it is not.
    """
    if find_spec("matplotlib") is None:
        raise InputImportError(
            "the plot needs matplotlib: pip install 'lit-ssl[examples]', or set plot: false"
        )


def _title(name: str) -> str:
    kind, _, size = name.rpartition("_b")
    for unit, shown in (("_ms", "ms"), ("_speedup", "x faster")):
        if size.isdigit() and kind.endswith(unit):
            return f"{kind.removesuffix(unit)} {shown}, batch {size}"
    return name.replace("_acc1", " acc1 %") if "_acc1" in name else name.replace("acc1", "acc1 %")


def _cell(name: str, value: float) -> str:
    if math.isnan(value):
        return "–"
    if name.endswith("acc1"):
        return f"{100 * value:.1f}"
    return str(value) if name == "modules" else f"{value:.3g}"
