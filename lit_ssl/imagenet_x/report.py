"""Several models' errors by factor, side by side: what to show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lit_ssl.errors import InputError
from lit_ssl.imagenet_x.comparison import FactorComparison
from lit_ssl.imagenet_x.factor_table import FactorTable
from lit_ssl.imagenet_x.intervals import DRAWS, LEVEL, holm
from lit_ssl.imagenet_x.scores import FactorScores

__all__ = [
    "SMALL",
    "FactorReportData",
    "build_report",
    "check_names",
    "protocol_lines",
    "summary",
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

    Args:
        names: one for each model.

    Raises:
        InputError: If two have the same name.
    """
    if len(set(names)) < len(names):
        raise InputError(
            f"two of the models have the same name: {', '.join(names)}; rename a file, the names "
            "of the files are those in the table"
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
        InputError: If two models have the same name.
    """
    check_names([one.name for one in scores])
    tables = [one.table(level, draws) for one in scores]
    changes = [scores[0].compare(other, level, draws) for other in scores[1:]]
    ratios = np.stack([table.error_ratio for table in tables])
    filled = np.where(np.isnan(ratios), -np.inf, ratios).mean(axis=0)
    return FactorReportData(
        scores=scores,
        tables=tables,
        changes=changes,
        order=np.argsort(-filled, kind="stable"),
        differs=_differing(tables, changes),
        protocol=_protocol(scores[0], tables[0], real_empty, draws, notes or {}),
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
    """The protocol, and how to read the numbers, in sentences.

    Args:
        report: of one model or several.
    """
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


def summary(scores: FactorScores, table: FactorTable) -> dict[str, Any]:
    """What is known of one model besides its factors.

    Args:
        scores: of the model.
        table: its accuracies by factor.

    Returns:
        Accuracies and the calibration error in [0, 1], by name; NaN where they are not known.
    """
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
