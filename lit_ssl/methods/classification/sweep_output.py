"""Table and files of a sweep of linear heads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lit_ssl.files import write_csv, write_json

__all__ = ["SWEEP_FILES", "SweepPoint", "sweep_markdown", "sweep_table", "write_sweep"]

SWEEP_FILES = ("linear_sweep.json", "linear_sweep.csv")


class SweepPoint(NamedTuple):
    """What tells one head of a sweep from the others.

    Attributes:
        features: kind of features, see [`ProbeFeatures`][lit_ssl.models.ProbeFeatures].
        lr: learning rate at the start.
        weight_decay: of the linear layer's weight.
    """

    features: str
    lr: float
    weight_decay: float


def sweep_table(rows: Sequence[dict[str, Any]], chosen: int | None, title: str) -> Any:
    """Table of the heads for the terminal, best first.

    Args:
        rows: One dict per head: ``head`` (its number), ``features``, ``lr``, ``weight_decay`` and
            ``val_acc1`` in [0, 1], or None where it diverged.
        chosen: Number of the head to mark.
        title: Title of the table.

    Returns:
        A ``rich`` table.
    """
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for name in ("features", "lr", "weight decay", "val acc1 %"):
        table.add_column(name, justify="left" if name == "features" else "right")
    for row in _ranked(rows):
        cells = _cells(row)
        style = "bold" if row["head"] == chosen else None
        table.add_row(*cells, style=style)
    return table


def sweep_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The same table in Markdown, for loggers.

    Args:
        rows: one dict for each head; see ``sweep_table``.
    """
    lines = ["| features | lr | weight decay | val acc1 % |", "|---|--:|--:|--:|"]
    return "\n".join(lines + [f"| {' | '.join(_cells(row))} |" for row in _ranked(rows)])


def write_sweep(folder: Path, rows: Sequence[dict[str, Any]], summary: dict[str, Any]) -> None:
    """Write ``linear_sweep.json`` (summary and rows) and ``linear_sweep.csv`` (rows).

    Args:
        folder: Where; made if it is not there.
        rows: As in ``sweep_table``.
        summary: What else the JSON file says.
    """
    write_json(folder / "linear_sweep.json", {**summary, "heads": rows})
    write_csv(folder / "linear_sweep.csv", rows)


def _ranked(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    # of equals the first, which is the one that is chosen
    return sorted(rows, key=lambda row: 1.0 if row["val_acc1"] is None else -row["val_acc1"])


def _cells(row: dict[str, Any]) -> list[str]:
    accuracy = row["val_acc1"]
    shown = "diverged" if accuracy is None else f"{100 * accuracy:.2f}"
    return [row["features"], f"{row['lr']:g}", f"{row['weight_decay']:g}", shown]
