"""Several models' errors by factor, side by side: what to show, and the files."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from lit_ssl.metrics.factor_comparison import FactorComparison
from lit_ssl.metrics.factor_scores import FactorScores
from lit_ssl.metrics.factors import FactorTable
from lit_ssl.metrics.intervals import DRAWS, LEVEL, holm
from lit_ssl.utils.files import write_file
from lit_ssl.utils.suggest import UserError

__all__ = [
    "SMALL",
    "FactorReportData",
    "build_report",
    "check_names",
    "protocol_lines",
    "write_report",
]

SMALL = 100  # images, below which a factor's numbers say little
SIGNIFICANT = 0.05


@dataclass(frozen=True, eq=False)
class FactorReportData:
    """What a report shows.

    Attributes:
        scores: One per model; the first is the one that others are compared with.
        tables: Their tables.
        changes: From the first model to each of the others.
        order: Positions of the factors by mean error ratio over models, largest first.
        differs: Per model and factor, ``[K, F]``: for one model, whether the interval of its error
            ratio leaves out 1; for several, whether its error ratio differs from the first
            model's (Holm over all factors and models); in the first row, whether any does.
        protocol: How the numbers came about.
    """

    scores: Sequence[FactorScores]
    tables: Sequence[FactorTable]
    changes: Sequence[FactorComparison]
    order: np.ndarray
    differs: np.ndarray
    protocol: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """Of the models."""
        return [scores.name for scores in self.scores]


def check_names(names: Sequence[str]) -> None:
    """Check that models can be told apart.

    Raises:
        UserError: If two have the same name.
    """
    if len(set(names)) < len(names):
        raise UserError(
            f"two of the models have the same name: {', '.join(names)}; rename a file, the names "
            "of the files are those in the table."
        )


def build_report(
    scores: Sequence[FactorScores],
    real_empty: str = "drop",
    level: float = LEVEL,
    draws: int = DRAWS,
    notes: dict[str, Any] | None = None,
) -> FactorReportData:
    """Compute all tables and comparisons.

    Args:
        scores: One per model, against the same annotations.
        real_empty: How empty sets of ReaL labels were treated, for the record.
        level: Of the intervals.
        draws: Of the bootstrap.
        notes: Further entries of the protocol.

    Raises:
        UserError: If two models have the same name.
    """
    check_names([one.name for one in scores])
    tables = [one.table(level, draws) for one in scores]
    changes = [scores[0].compare(other, level, draws) for other in scores[1:]]
    ratios = np.stack([table.error_ratio for table in tables])
    filled = np.where(np.isnan(ratios), -np.inf, ratios).mean(axis=0)
    return FactorReportData(
        scores,
        tables,
        changes,
        np.argsort(-filled, kind="stable"),
        _differing(tables, changes),
        _protocol(scores[0], tables[0], real_empty, draws, notes or {}),
    )


def _differing(tables: Sequence[FactorTable], changes: Sequence[FactorComparison]) -> np.ndarray:
    if not changes:
        table = tables[0]
        return ((table.error_ratio_low > 1) | (table.error_ratio_high < 1))[None]
    p = np.stack([change.error_ratio_p for change in changes])
    differs = holm(p.reshape(-1)).reshape(p.shape) < SIGNIFICANT
    return np.concatenate([differs.any(axis=0, keepdims=True), differs])


def _protocol(
    scores: FactorScores, table: FactorTable, real_empty: str, draws: int, notes: dict[str, Any]
) -> dict[str, Any]:
    annotations = scores.annotations
    protocol = {
        "annotations": annotations.source,
        "images": table.images,
        "annotated": len(annotations.numbers),
        "error_type": scores.error_type,
        "level": table.level,
        "accuracy_interval": "Wilson",
        "error_ratio_interval": f"bootstrap over images, percentiles of {draws} draws",
    }
    if annotations.kind != "own":
        protocol["prototypes"] = "kept" if annotations.keeps_prototypes else "left out"
    if scores.error_type == "real":
        protocol["images_without_real_label"] = (
            "are left out" if real_empty == "drop" else "count as errors"
        )
    return {**protocol, **notes}


def protocol_lines(report: FactorReportData) -> list[str]:
    """The protocol, and how to read the numbers, in sentences."""
    p = report.protocol
    images = f"{p['images']:,} images of {p['annotations']}"
    if "prototypes" in p:
        images += f", prototypes {p['prototypes']}"
    if p["images"] < p["annotated"] and "images_without_real_label" not in p:
        images += f" (PARTIAL: {p['annotated']:,} are annotated)"
    errors = {
        "class": "correct = the label",
        "metaclass": "correct = any class of the label's group",
        "real": "correct = one of the ReaL labels; images without any "
        f"{p.get('images_without_real_label', '')}",
    }[p["error_type"]]
    lines = [
        f"{images}; {errors}.",
        f"Error ratio = error of the factor / error of all. {p['level']:.0%} intervals: Wilson for "
        "accuracies, bootstrap over images for error ratios and differences.",
        "An error ratio is a share of a model's own errors: where one factor's falls, the others' "
        "rise. Compare models by accuracy differences too.",
    ]
    if (report.tables[0].count < SMALL).any():
        lines.append(f"†: fewer than {SMALL} images; read the interval, not the number.")
    return lines


# files


def write_report(report: FactorReportData, folder: Path, plot: bool = True) -> dict[str, Path]:
    """Write ``factors.csv``, ``.json``, ``.md``, ``.png`` and ``metaclasses.csv`` into a folder.

    Each file appears when it is complete.

    Args:
        report: What to write.
        folder: Where to.
        plot: Whether to draw ``factors.png`` (needs matplotlib).

    Returns:
        The files by kind.
    """
    from lit_ssl.utils.factor_text import markdown

    def rows(file: TextIO) -> None:
        _write_rows(file, [row for table in _long(report) for row in table])

    files = {
        "table": write_file(folder / "factors.csv", rows),
        "markdown": write_file(folder / "factors.md", lambda file: file.write(markdown(report))),
        "json": write_file(
            folder / "factors.json", lambda file: json.dump(_content(report), file, indent=2)
        ),
    }
    if report.scores[0].annotations.metaclasses:
        groups = [row for scores in report.scores for row in _group_rows(scores)]
        files["metaclasses"] = write_file(
            folder / "metaclasses.csv", lambda file: _write_rows(file, groups)
        )
    if plot:
        from lit_ssl.utils.factor_plot import draw_report, save_figure

        files["plot"] = save_figure(draw_report(report), folder / "factors.png")
    return files


def _write_rows(file: TextIO, rows: Sequence[dict[str, Any]]) -> None:
    writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _long(report: FactorReportData) -> list[list[dict[str, Any]]]:
    """One row per model and factor."""
    return [
        [
            {
                "model": name,
                "factor": table.factors[f],
                "images": int(table.count[f]),
                "accuracy": float(table.accuracy[f]),
                "accuracy_low": float(table.accuracy_low[f]),
                "accuracy_high": float(table.accuracy_high[f]),
                "error_ratio": float(table.error_ratio[f]),
                "error_ratio_low": float(table.error_ratio_low[f]),
                "error_ratio_high": float(table.error_ratio_high[f]),
            }
            for f in report.order
        ]
        for name, table in zip(report.names, report.tables, strict=True)
    ]


def _group_rows(scores: FactorScores) -> list[dict[str, Any]]:
    groups = scores.metaclasses()
    factors = scores.annotations.factors
    return [
        {
            "model": scores.name,
            "metaclass": name,
            "images": int(groups.count[g]),
            "accuracy": float(groups.average[g]),
            **{f"accuracy_{f}": float(groups.accuracy[g, i]) for i, f in enumerate(factors)},
            **{f"images_{f}": int(groups.factor_count[g, i]) for i, f in enumerate(factors)},
        }
        for g, name in enumerate(groups.names)
    ]


def summary(scores: FactorScores, table: FactorTable) -> dict[str, Any]:
    """What is known of one model besides its factors."""
    low, high = table.average_interval
    return {
        "model": scores.name,
        "accuracy": table.average,
        "accuracy_low": low,
        "accuracy_high": high,
        "accuracy_all_images": scores.all_images_accuracy(),
        "worst_factor": table.worst_factor,
        "worst_factor_accuracy": table.worst_accuracy,
        "worst_100_classes": scores.worst_classes(100),
        "calibration_error": scores.calibration()[0],
    }


def _content(report: FactorReportData) -> dict[str, Any]:
    pairs = zip(report.scores, report.tables, _long(report), strict=True)
    models = [{**summary(s, t), "factors": rows} for s, t, rows in pairs]
    changes = [
        {
            "from": report.names[0],
            "to": name,
            "accuracy": change.average,
            "accuracy_low": change.average_interval[0],
            "accuracy_high": change.average_interval[1],
            "accuracy_p": change.average_p,
            "factors": [_change_row(change, f) for f in report.order],
        }
        for name, change in zip(report.names[1:], report.changes, strict=True)
    ]
    return _without_nan({"protocol": report.protocol, "models": models, "changes": changes})


def _change_row(change: FactorComparison, f: int) -> dict[str, Any]:
    names = [
        f"{kind}{part}"
        for kind in ("accuracy", "error_ratio")
        for part in ("", "_low", "_high", "_p", "_p_holm")
    ]
    values = {name: float(getattr(change, name)[f]) for name in names}
    return {"factor": change.factors[f], "images": int(change.count[f]), **values}


def _without_nan(value: Any) -> Any:
    """The same with null for NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
