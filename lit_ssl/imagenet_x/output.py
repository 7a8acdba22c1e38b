"""The files of a report on factors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lit_ssl.files import write_csv, write_file, write_json
from lit_ssl.imagenet_x.comparison import FactorComparison
from lit_ssl.imagenet_x.plot import draw_report, save_figure
from lit_ssl.imagenet_x.report import FactorReportData, summary
from lit_ssl.imagenet_x.scores import FactorScores
from lit_ssl.imagenet_x.text import markdown

__all__ = ["FILES", "write_report"]

# of a factor
_NUMBERS = tuple(
    f"{kind}{part}" for kind in ("accuracy", "error_ratio") for part in ("", "_low", "_high")
)
FILES = ("factors.csv", "factors.json", "factors.md", "factors.png", "metaclasses.csv")


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
    files = {
        "table": write_csv(folder / "factors.csv", [row for rows in _long(report) for row in rows]),
        "markdown": write_file(folder / "factors.md", lambda file: file.write(markdown(report))),
        "json": write_json(folder / "factors.json", _content(report)),
    }
    if report.scores[0].annotations.metaclasses:
        groups = [row for scores in report.scores for row in _group_rows(scores)]
        files["metaclasses"] = write_csv(folder / "metaclasses.csv", groups)
    if plot:
        files["plot"] = save_figure(draw_report(report), folder / "factors.png")
    return files


def _long(report: FactorReportData) -> list[list[dict[str, Any]]]:
    """One row per model and factor."""
    return [
        [
            {
                "model": name,
                "factor": table.factors[f],
                "images": int(table.count[f]),
                **{name: float(getattr(table, name)[f]) for name in _NUMBERS},
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
            "accuracy_p_bound": change.average_p_bound,
            "factors": [_change_row(change, f) for f in report.order],
        }
        for name, change in zip(report.names[1:], report.changes, strict=True)
    ]
    return {"protocol": report.protocol, "models": models, "changes": changes}


def _change_row(change: FactorComparison, f: int) -> dict[str, Any]:
    names = (*_NUMBERS, "accuracy_p", "accuracy_p_holm", "error_ratio_p", "error_ratio_p_holm")
    values = {name: float(getattr(change, name)[f]) for name in names}
    bounds = ("accuracy_p_bound", "error_ratio_p_bound")
    values |= {name: bool(getattr(change, name)[f]) for name in bounds}
    return {"factor": change.factors[f], "images": int(change.count[f]), **values}
