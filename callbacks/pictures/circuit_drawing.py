"""Pictures of a circuit: its graph, and what its modules do for each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lit_ssl.callbacks.pictures.circuit_layout import CircuitLayout

__all__ = ["draw_activity", "draw_graph"]

# Okabe and Ito's colours, which colour-blind readers tell apart, and two more
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#5B3A8C",
            "#7A5230")  # fmt: skip
_GREY = "#AAAAAA"  # of further clusters
_MOST_LINES = 3000
_MOST_NUMBERS = 64  # modules that are drawn with their numbers
_MOST_NAMES = 40  # classes that are written with their names
_DPI = 130


def draw_graph(
    probabilities: np.ndarray,
    links: np.ndarray,
    layout: CircuitLayout,
    names: np.ndarray,
    title: str = "",
) -> Any:
    """Draw the link probabilities in the order of clusters, the degrees, and the graph.

    Args:
        probabilities: P ``[N, N]`` of the mediators.
        links: bool ``[N, N]``, which count as links.
        layout: of these.
        names: int ``[N]``, what the modules are called.
        title: of the picture.

    Returns:
        A ``matplotlib.figure.Figure``, which no window or global state knows of.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(21, 7.6), dpi=_DPI, layout="constrained")
    matrix, degrees, drawing = figure.subplots(1, 3, width_ratios=[1.1, 0.5, 1.1])
    _matrix(matrix, probabilities, layout, names)
    _degrees(degrees, layout)
    _drawing(drawing, probabilities, links, layout, names)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def draw_activity(
    activity: np.ndarray,
    counts: np.ndarray,
    layout: CircuitLayout,
    names: np.ndarray,
    class_names: Sequence[str] | None = None,
    title: str = "",
) -> Any:
    """Draw how large the states of the modules are for the samples of each class.

    The upper part shows the mean norm of each module over classes; the lower one by how many
    percent the norm for a class differs from it. Modules are in the order of clusters; classes
    without samples are grey.

    Args:
        activity: mean norms ``[K, N]``; anything for classes without samples.
        counts: samples of each class, ``[K]``.
        layout: of the modules.
        names: int ``[N]``, what the modules are called.
        class_names: K names; None: numbers.
        title: of the picture.

    Returns:
        A ``matplotlib.figure.Figure``, which no window or global state knows of.
    """
    from matplotlib.figure import Figure

    classes, modules = activity.shape
    seen = counts > 0
    ordered = np.where(seen[:, None], activity, np.nan)[:, layout.order]
    mean = ordered[seen].mean(0) if seen.any() else np.zeros(modules)
    percent = 100 * (ordered / np.where(mean > 0, mean, 1.0) - 1)
    height = 3.0 + min(max(0.22 * classes, 1.5), 9.0)
    figure = Figure(figsize=(13, height), dpi=_DPI, layout="constrained")
    bars, heat = figure.subplots(2, 1, sharex=True, height_ratios=[1.3, height - 2.4])
    bars.bar(np.arange(modules), mean, width=1.0, color=_cluster_colours(layout)[layout.order])
    bars.set_ylabel("mean norm")
    bars.spines[["top", "right"]].set_visible(False)
    limit = max(float(np.quantile(np.abs(percent[seen]), 0.99)) if seen.any() else 0.0, 1e-3)
    image = heat.imshow(percent, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto",
                        interpolation="nearest")  # fmt: skip
    heat.set_facecolor("#BBBBBB")
    figure.colorbar(image, ax=heat, label="norm, % above the module's mean", pad=0.01)
    _boundaries(heat, layout, horizontal=False)
    _number(heat, names[layout.order])
    heat.set_xlabel("modules in the order of clusters (colours as in the graph)")
    heat.set_ylabel("class")
    if classes <= _MOST_NAMES:
        labels = class_names if class_names is not None else [str(c) for c in range(classes)]
        heat.set_yticks(np.arange(classes), [str(label)[:24] for label in labels], fontsize=8)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def _matrix(axes: Any, probabilities: np.ndarray, layout: CircuitLayout, names: np.ndarray) -> None:
    order = layout.order
    others = probabilities[~np.eye(len(order), dtype=bool)]  # each module hears itself, with 1
    low, high = np.quantile(others, [0, 0.999]) if others.size else (0.0, 1.0)
    image = axes.imshow(probabilities[order][:, order], cmap="viridis", vmin=low,
                        vmax=max(high, low + 1e-3))  # fmt: skip
    axes.figure.colorbar(image, ax=axes, label="link probability", fraction=0.045, pad=0.02,
                         extend="max")  # fmt: skip
    _boundaries(axes, layout, horizontal=True)
    _number(axes, names[order], vertical=True)
    axes.set_title("modules in the order of clusters", loc="left", fontsize=10)
    axes.set_xlabel("sender")
    axes.set_ylabel("receiver")


def _number(axes: Any, names: np.ndarray, vertical: bool = False) -> None:
    """Write what modules are called, in place of where they stand, if there is room."""
    if len(names) > _MOST_NUMBERS:
        return
    axes.set_xticks(np.arange(len(names)), names, fontsize=6, rotation=90 if vertical else 0)
    if vertical:
        axes.set_yticks(np.arange(len(names)), names, fontsize=6)


def _boundaries(axes: Any, layout: CircuitLayout, horizontal: bool) -> None:
    sizes = np.bincount(layout.cluster)
    if len(sizes) > 2 * len(_COLOURS):  # of so many clusters, lines would hide the picture
        return
    for edge in np.cumsum(sizes)[:-1] - 0.5:
        axes.axvline(edge, color="white", linewidth=0.8)
        axes.axvline(edge, color="black", linewidth=0.8, linestyle=(0, (2, 2)))
        if horizontal:
            axes.axhline(edge, color="white", linewidth=0.8)
            axes.axhline(edge, color="black", linewidth=0.8, linestyle=(0, (2, 2)))


def _degrees(axes: Any, layout: CircuitLayout) -> None:
    degree = layout.degree
    largest = int(degree.max())
    step = max(1, -(-largest // 40))
    edges = np.arange(0, largest + step + 1, step) - 0.5
    axes.hist(degree, bins=edges, color=_COLOURS[0], edgecolor="white", linewidth=0.4)
    axes.axvline(degree.mean(), color="black", linewidth=1, linestyle=(0, (4, 3)))
    axes.set_title(f"links of a module: mean {degree.mean():.1f}, {degree.min()} … {largest}",
                   loc="left", fontsize=10)  # fmt: skip
    axes.set_xlabel("links")
    axes.set_ylabel("modules")
    axes.spines[["top", "right"]].set_visible(False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_major_locator().set_params(integer=True)


def _drawing(
    axes: Any,
    probabilities: np.ndarray,
    links: np.ndarray,
    layout: CircuitLayout,
    names: np.ndarray,
) -> None:
    from matplotlib.collections import LineCollection

    n, place, degree = len(names), layout.position, layout.degree
    one, other = np.nonzero(np.triu(links, 1))
    strength = np.maximum(probabilities, probabilities.T)[one, other]
    shown = np.argsort(-strength, kind="stable")[:_MOST_LINES]
    lines = np.stack([place[one[shown]], place[other[shown]]], axis=1)
    alpha = float(np.clip(300 / max(1, len(shown)), 0.1, 0.6))
    axes.add_collection(LineCollection(list(lines), colors="#444444", linewidths=0.7, alpha=alpha))
    size = (10 + 2600 / max(n, 12)) * (0.5 + degree / max(1, degree.max()))
    is_numbered = n <= _MOST_NUMBERS
    axes.scatter(*place.T, s=size * (1.6 if is_numbered else 1.0), c=_cluster_colours(layout),
                 edgecolors="white", linewidths=0.4, zorder=2)  # fmt: skip
    if is_numbered:
        for (x, y), name in zip(place, names, strict=True):
            axes.annotate(str(name), (x, y), ha="center", va="center", fontsize=7, zorder=3)
    clusters = int(layout.cluster.max()) + 1
    text = f"{n} modules, {len(one):,} links, {clusters} cluster{'s' * (clusters > 1)}"
    if len(one) > len(shown):
        text += f"; drawn: the {len(shown):,} most probable"
    axes.set_title(text, loc="left", fontsize=10)
    axes.set_xlim(-1.08, 1.08)
    axes.set_ylim(-1.08, 1.08)
    axes.set_aspect("equal")
    axes.set_axis_off()


def _cluster_colours(layout: CircuitLayout) -> np.ndarray:
    colours = np.array([*_COLOURS, _GREY])
    return colours[np.minimum(layout.cluster, len(_COLOURS))]
