"""The picture of a factor report: bars from the baseline 1, and accuracies below."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from lit_ssl.errors import InputImportError
from lit_ssl.files import write_file
from lit_ssl.imagenet_x.report import FactorReportData

__all__ = ["draw_report", "figure_pixels", "save_figure"]

# Okabe and Ito's colours, which colour-blind readers tell apart
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999")
_PALE = 0.35


def draw_report(report: FactorReportData) -> Any:
    """Draw error ratios (top) and accuracies (bottom) by factor.

    Bars begin at 1, the average error; factors are sorted by mean error ratio, largest first. Pale
    bars: for one model, the interval contains 1; for several, the error ratio does not differ from
    the first model's (for the first: none differs from it).

    Args:
        report: What to draw.

    Returns:
        A ``matplotlib.figure.Figure``, which no window or global state knows of.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputImportError(
            "the plot needs matplotlib: pip install 'lit-ssl[examples]', or switch the plot off"
        ) from error
    factors, models = len(report.order), len(report.tables)
    width = min(max(7.0, 2.2 + factors * (0.42 + 0.2 * models)), 24.0)
    figure = Figure(figsize=(width, 7.2), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    slot = 0.8 / models
    for k in range(models):
        x = np.arange(factors) + (k - (models - 1) / 2) * slot
        _bars(top, report, k, x, slot)
        _points(bottom, report, k, x)
    _finish_top(top, report)
    _finish_bottom(bottom, report)
    _part_labels(bottom)
    return figure


def _label(report: FactorReportData, k: int) -> str:
    return f"{report.names[k]} ({100 * report.tables[k].average:.1f} %)"


def _bars(axes: Any, report: FactorReportData, k: int, x: np.ndarray, slot: float) -> None:
    table, order = report.tables[k], report.order
    ratio, low, high = (
        values[order]
        for values in (table.error_ratio, table.error_ratio_low, table.error_ratio_high)
    )
    colour = _COLOURS[k % len(_COLOURS)]
    bars = axes.bar(x, ratio - 1, slot * 0.92, bottom=1, color=colour)
    for bar, solid in zip(bars, report.differs[k][order], strict=True):
        bar.set_alpha(1.0 if solid else _PALE)
    errors = np.clip(np.stack([ratio - low, high - ratio]), 0, None)
    axes.errorbar(x, ratio, errors, fmt="none", ecolor="#333333", elinewidth=1, capsize=2)


def _points(axes: Any, report: FactorReportData, k: int, x: np.ndarray) -> None:
    table, order = report.tables[k], report.order
    accuracy, low, high = (
        100 * values[order] for values in (table.accuracy, table.accuracy_low, table.accuracy_high)
    )
    colour = _COLOURS[k % len(_COLOURS)]
    errors = np.clip(np.stack([accuracy - low, high - accuracy]), 0, None)
    axes.errorbar(x, accuracy, errors, fmt="o", color=colour, markersize=4, elinewidth=1, capsize=2)
    axes.axhline(100 * table.average, color=colour, linewidth=1, linestyle=(0, (4, 3)))


def _finish_top(axes: Any, report: FactorReportData) -> None:
    from matplotlib.patches import Patch

    p = report.protocol
    axes.axhline(1, color="black", linewidth=1)
    axes.set_ylabel("error ratio")
    axes.set_title(f"{p['annotations']}, {p['error_type']} errors, {p['images']:,} images",
                   loc="left", fontsize=10)  # fmt: skip
    for text, side, offset in (("less robust →", "bottom", 5), ("← more robust", "top", -5)):
        axes.annotate(text, (1, 1), (3, offset), ("axes fraction", "data"), "offset points",
                      rotation=90, ha="left", va=side, fontsize=8, color="#555555")  # fmt: skip
    several = len(report.tables) > 1
    pale = f"pale: no difference to {report.names[0]}" if several else "pale: may be 1"
    handles = [
        Patch(color=_COLOURS[k % len(_COLOURS)], label=_label(report, k))
        for k in range(len(report.tables))
    ]
    axes.legend(handles=handles, title=f"accuracy in brackets; {pale}", title_fontsize=8,
                fontsize=9, frameon=False, loc="upper right", alignment="right")  # fmt: skip


def _finish_bottom(axes: Any, report: FactorReportData) -> None:
    table = report.tables[0]
    names = [table.factors[f].replace("_", "\n") for f in report.order]
    counts = [f"n={table.count[f]:,}" for f in report.order]
    labels = [f"{name}\n{count}" for name, count in zip(names, counts, strict=True)]
    axes.set_xticks(np.arange(len(labels)), labels, fontsize=8)
    axes.set_ylabel("accuracy, %")
    axes.set_title(
        f"dashed: all images; error bars: {table.level:.0%} intervals", loc="left", fontsize=8,
        color="#555555",
    )  # fmt: skip
    for side in (axes, axes.figure.axes[0]):
        side.spines[["top", "right"]].set_visible(False)
        side.grid(axis="y", color="#dddddd", linewidth=0.6)
        side.set_axisbelow(True)
    axes.set_xlim(-0.6, len(labels) - 0.4)


def _part_labels(axes: Any) -> None:
    """Turn the labels of the factors, and make them smaller, until none lies on another."""
    names = [label.get_text().split("\n") for label in axes.get_xticklabels()]
    turned = [f"{' '.join(words)}\n{count}" for *words, count in names]
    for size in (8, 6, 4):
        axes.figure.draw_without_rendering()
        boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
        if all(one.x1 + 1 < other.x0 for one, other in pairwise(boxes)):
            return
        axes.set_xticks(np.arange(len(turned)), turned, fontsize=size, rotation=90)


def save_figure(figure: Any, path: Path) -> Path:
    """Write a figure as PNG; the file appears when it is complete.

    Args:
        figure: Of matplotlib.
        path: File to write; its folder is made.

    Returns:
        The path.
    """
    return write_file(path, lambda file: figure.savefig(file, format="png", dpi=130), binary=True)


def figure_pixels(figure: Any) -> np.ndarray:
    """A figure as uint8 ``[H, W, 3]``, for TensorBoard.

    Args:
        figure: of matplotlib.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
