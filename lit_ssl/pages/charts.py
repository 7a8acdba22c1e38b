"""Curves as drawings in SVG, which need no program to be seen."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lit_ssl.pages.markup import Markup, element

__all__ = ["Line", "charts", "draw_chart", "thinned"]

_WIDTH, _HEIGHT = 360, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 12, 38
_PLOT = _WIDTH - _LEFT - _RIGHT
_MOST_LINES = 7  # as many as there are colours
_HOVERED = 40  # points of a line that tell their value
_LOG_FROM = 100.0  # largest value / smallest one
_LARGEST, _SMALLEST = 1e300, 1e-300  # beyond them an axis cannot be computed
_PERCENT = re.compile(r"(^|_)(acc\d*|accuracy)$|_acc\d*(_|$)")
_STAGE = re.compile(r"^(train|val|valid|validation|test)[/_]")
_UNSEEN = ("epoch", "hp_metric")


class Line(NamedTuple):
    """One curve.

    Attributes:
        steps: ``[N]``, ascending.
        values: ``[N]``; where they are not finite the line has a gap, with a mark.
    """

    steps: np.ndarray
    values: np.ndarray


def charts(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], most: int = 48) -> list[Markup]:
    """Draw curves, those that belong together in one drawing.

    Metrics that differ in their stage alone (``train/loss``, ``val/loss``), in Lightning's
    ``_step`` and ``_epoch``, or in a number (``lowshot_1_acc1``, ``lowshot_5_acc1``) share one.

    Args:
        curves: steps and values by the name of the metric.
        most: drawings at most.

    Returns:
        Figures, those with a loss first, then those of the validation.
    """
    groups: dict[str, dict[str, Line]] = {}
    for name, (steps, values) in curves.items():
        if len(steps) and name not in _UNSEEN:
            groups.setdefault(_subject(name), {})[name] = Line(steps, values)
    parts = [
        dict(part)
        for group in sorted(groups.values(), key=_rank)
        for part in _split(list(group.items()))
    ]
    return [draw_chart(part) for part in parts[:most]]


def count_charts(curves: Mapping[str, object]) -> int:
    """How many drawings the curves would need.

    Args:
        curves: by the name of the metric.
    """
    sizes: dict[str, int] = {}
    for name in curves:
        if name not in _UNSEEN:
            sizes[_subject(name)] = sizes.get(_subject(name), 0) + 1
    return sum(-(-size // _MOST_LINES) for size in sizes.values())


def _rank(group: Iterable[str]) -> int:
    """Losses first, then what was validated, then the rest of the training, then how it ran."""
    names = list(group)
    if any("loss" in name for name in names):
        return 0
    if any(re.match("val|test", name) for name in names):
        return 2 if all(name.endswith("_std") for name in names) else 1
    return 3 if any(name.startswith("train") for name in names) else 4


def _subject(name: str) -> str:
    name = re.sub(r"_(step|epoch)$", "", _STAGE.sub("", name))
    return re.sub(r"\d+", "#", name)


def _split(items: Sequence[tuple[str, Line]]) -> Iterator[Sequence[tuple[str, Line]]]:
    for start in range(0, len(items), _MOST_LINES):
        yield items[start : start + _MOST_LINES]


def draw_chart(lines: Mapping[str, Line]) -> Markup:
    """Draw some curves over the steps of the training.

    Args:
        lines: curves by name, at most seven; each has a point.

    Returns:
        A figure with a caption that names the curves.
    """
    percent = all(_PERCENT.search(name) for name in lines)
    factor = 100.0 if percent else 1.0
    scaled = {n: Line(line.steps, _drawable(factor, line.values)) for n, line in lines.items()}
    finite = np.concatenate([line.values[np.isfinite(line.values)] for line in scaled.values()])
    steps = np.concatenate([line.steps for line in scaled.values()])
    is_log = not percent and len(finite) > 1 and finite.min() > 0
    is_log = bool(is_log and finite.max() / _LOG_FROM >= finite.min())
    x = _Axis.over(steps.astype(float), _LEFT, _WIDTH - _RIGHT, False, whole=True)
    y = _Axis.over(finite, _HEIGHT - _BOTTOM, _TOP, is_log)
    drawn: list[Markup] = [*_frame(x, y)]
    for number, line in enumerate(scaled.values()):
        drawn += _curve(line, x, y, number)
    for number, (name, line) in enumerate(scaled.items()):  # above all lines, to be hit
        drawn += _values(name, line, x, y, number, percent)
    unit = "%" if percent else "log scale" if is_log else ""
    if unit:
        drawn.append(element("text", unit, x=2, y=_TOP - 2, class_="unit"))
    told = "; ".join(_told(name, line, percent) for name, line in scaled.items())
    drawing = element(
        "svg",
        *drawn,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=f"Curves over training steps. {told}",
    )
    keys = [element("span", _swatch(n), name, class_="key") for n, name in enumerate(lines)]
    return element("figure", element("figcaption", *keys), drawing, class_="chart")


def _drawable(factor: float, values: np.ndarray) -> np.ndarray:
    """Values times a factor; those that no axis can hold as infinities and zeros."""
    scaled = np.where(np.abs(values) > _LARGEST, np.copysign(np.inf, values), values)
    scaled = np.where(np.isnan(values), values, factor * scaled)
    return np.where(np.abs(scaled) < _SMALLEST, 0.0, scaled)


class _Axis(NamedTuple):
    """From values to places."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool
    ticks: list[float]

    @classmethod
    def over(
        cls, values: np.ndarray, start: float, end: float, is_log: bool, whole: bool = False
    ) -> _Axis:
        low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
        if is_log:
            low, high = math.log10(low), math.log10(high)
        if not high > low:  # one value: in the middle
            pad = 1.0 if whole or not low else max(abs(low) * 0.1, 1e-6)
            low, high = low - (0.0 if whole else pad), high + pad
            if not high > low:  # a step so large that the next one is the same number
                high = low + abs(low)
        if is_log:
            first, last = math.floor(low), math.ceil(high)
            every = max(1, -(-(last - first) // 5))
            powers = range(first, last + 1, every)
            ticks = [float(power) for power in powers if low - 0.05 <= power <= high + 0.05]
        else:
            ticks = _round_numbers(low, high, whole)
            if not whole:  # up to the round numbers around
                low, high = ticks[0], ticks[-1]
        return cls(float(low), float(high), start, end, is_log, ticks)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            shown = np.log10(values) if self.is_log else values
        return self.start + (self.end - self.start) * (shown - self.low) / (self.high - self.low)

    def place(self, tick: float) -> float:
        share = (tick - self.low) / (self.high - self.low)
        return self.start + (self.end - self.start) * share


def _round_numbers(low: float, high: float, whole: bool) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten: within two whole numbers, around others."""
    span = (high - low) / 5
    size = 10.0 ** math.floor(math.log10(span))
    unit = next(m * size for m in (1, 2, 5, 10) if m * size >= span * 0.999)
    unit = max(unit, 1.0) if whole else unit
    if whole:
        first, last = math.ceil(low / unit - 1e-9), math.floor(high / unit + 1e-9)
    else:
        first, last = math.floor(low / unit + 1e-9), math.ceil(high / unit - 1e-9)
    return [number * unit for number in range(first, last + 1)] or [low]


def _frame(x: _Axis, y: _Axis) -> Iterator[Markup]:
    floor = _HEIGHT - _BOTTOM
    for tick in y.ticks:
        place = round(y.place(tick), 1)
        yield element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=place, y2=place, class_="grid")
        label = f"{10**tick:.3g}" if y.is_log else _number(tick)
        yield element("text", label, x=_LEFT - 5, y=place + 3.5, class_="tick y")
    for tick in x.ticks:
        place = round(x.place(tick), 1)
        yield element("line", x1=place, x2=place, y1=floor, y2=floor + 4, class_="axis")
        yield element("text", _number(tick), x=place, y=floor + 16, class_="tick x")
    yield element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=floor, y2=floor, class_="axis")
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    yield element("text", "training step", x=middle, y=_HEIGHT - 5, class_="tick x")


def _number(value: float) -> str:
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-3:
        return f"{value:.3g}"
    return f"{value:,.0f}" if size >= 1e4 else f"{round(value, 6):g}"


def thinned(places: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Choose the points that a drawing shows: of each column of pixels the ends and extremes.

    Args:
        places: where the points lie, in pixels, ascending ``[N]``.
        values: ``[N]``, all finite.

    Returns:
        Their numbers, ascending, at most four for each pixel.
    """
    if len(places) <= 2 * _PLOT:
        return np.arange(len(places))
    edges = np.flatnonzero(np.diff(np.floor(places))) + 1
    kept = []
    for part in np.split(np.arange(len(places)), edges):
        inside = values[part]
        kept += [part[0], part[inside.argmin()], part[inside.argmax()], part[-1]]
    return np.unique(kept)


def _curve(line: Line, x: _Axis, y: _Axis, number: int) -> Iterator[Markup]:
    """Its finite stretches, and marks below where it is not finite."""
    places, finite = x(line.steps.astype(float)), np.isfinite(line.values)
    heights = y(np.where(finite, line.values, np.nan))
    for part in _stretches(finite):
        kept = part[thinned(places[part], heights[part])]
        points = " ".join(f"{places[n]:.1f},{heights[n]:.1f}" for n in kept)
        style = f"line c{number}"
        if len(kept) == 1:
            dot = {"cx": f"{places[kept[0]]:.1f}", "cy": f"{heights[kept[0]]:.1f}", "r": 2.5}
            yield element("circle", class_=f"dot c{number}", **dot)
        else:
            yield element("polyline", points=points, class_=style)
    floor = _HEIGHT - _BOTTOM
    for part in _stretches(~finite):
        left, right = places[part[0]], places[part[-1]]
        first, last = line.steps[part[0]], line.steps[part[-1]]
        where = f"step {first:,}" if first == last else f"steps {first:,} to {last:,}"
        kinds = sorted({str(v) for v in line.values[part[:1000]]})
        title = element("title", f"{' and '.join(kinds)} at {where}")
        width = max(3.0, right - left)
        box = {"x": f"{left - 1.5:.1f}", "y": floor - 5, "width": f"{width:.1f}", "height": 5}
        yield element("rect", title, class_="missing", **box)


def _stretches(mask: np.ndarray) -> Iterable[np.ndarray]:
    """Numbers of the points where a mask holds, one array for each stretch without a gap."""
    inside = np.flatnonzero(mask)
    return np.split(inside, np.flatnonzero(np.diff(inside) > 1) + 1) if len(inside) else ()


def _values(
    name: str, line: Line, x: _Axis, y: _Axis, number: int, percent: bool
) -> Iterator[Markup]:
    """Places that tell a value to who points at them: spread evenly, with the extremes."""
    there = np.flatnonzero(np.isfinite(line.values))
    if not len(there):
        return
    spread = there[np.linspace(0, len(there) - 1, min(len(there), _HOVERED)).round().astype(int)]
    ends = there[[line.values[there].argmin(), line.values[there].argmax()]]
    places, heights = x(line.steps.astype(float)), y(line.values)
    for n in np.unique([*spread, *ends]):
        title = f"{name}, step {line.steps[n]:,}: {line.values[n]:.5g}{' %' if percent else ''}"
        where = {"cx": f"{places[n]:.1f}", "cy": f"{heights[n]:.1f}", "r": 5}
        yield element("circle", element("title", title), class_=f"hit c{number}", **where)


def _told(name: str, line: Line, percent: bool) -> str:
    """A curve in words."""
    there = line.values[np.isfinite(line.values)]
    unit = " %" if percent else ""
    if not len(there):
        return f"{name}: never finite"
    gap = "" if len(there) == len(line.values) else ", not finite in places"
    return f"{name}: from {there[0]:.4g}{unit} to {there[-1]:.4g}{unit}{gap}"


def _swatch(number: int) -> Markup:
    line = element("line", x1=0, x2=18, y1=4, y2=4, class_=f"line c{number}")
    return element("svg", line, viewBox="0 0 18 8", class_="swatch", aria_hidden="true")
