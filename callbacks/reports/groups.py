"""The table that says how a classifier does in each group, and what labels it took."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lit_ssl.contracts.data import data_source
from lit_ssl.errors import InputAttributeError, by_name
from lit_ssl.files import write_csv, write_json
from lit_ssl.groups.cells import group_counts
from lit_ssl.metrics import GroupScores
from lit_ssl.trainer.lost_files import may_be_lost
from lit_ssl.trainer.report_page import PAGE, Report, add_report, finish_page
from lit_ssl.trainer.run import check_output, origin_of, run_folder

__all__ = ["GroupReport"]

_FILES = ("group_report.json", "group_report.csv")


class _Row(NamedTuple):
    group: str
    # None where the groups of the test are not those of the training, or training rows have none
    training_rows: int | None
    known_in_training: int | None
    test_rows: int
    accuracy: float | None


class GroupReport(pl.Callback):
    """Prints accuracy by group after ``trainer.test``; writes ``group_report.json`` and ``.csv``.

    For a module that keeps ``group_scores["test"]``, such as
    [`GroupRobustClassifier`][lit_ssl.methods.GroupRobustClassifier]. Under the table stands what it
    took: the training rows whose attribute the method used, and the validation rows whose group
    selected the checkpoint; both count, and a method that used few of the former may owe its result
    to the latter. A page beside the files, ``index.html``, shows both, and the curves and pictures
    of the training.

    Args:
        output: folder of the three files; None takes the run's.
    """

    def __init__(self, output: str | None = None) -> None:
        self.output = output
        self._folder: Path | None = None

    @by_name
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check that the files can be written, before the test."""
        if stage == "test":
            check_output(trainer, self.output)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print and write."""
        scores = getattr(pl_module, "group_scores", {}).get("test")
        if scores is None:
            raise InputAttributeError(
                f"GroupReport: {type(pl_module).__name__} has no group_scores['test']; use it with "
                "GroupRobustClassifier, BARACK or JTT, or remove the callback"
            )
        folder = run_folder(trainer, [*_FILES, PAGE], self.output)
        data = data_source(trainer)
        rows = group_rows(data, scores)
        used = getattr(pl_module, "uses_groups", True) or any(
            getattr(callback, "uses_training_groups", False)
            for callback in trainer.callbacks  # type: ignore[attr-defined]
        )
        summary = summarise(data, scores, used)
        if not trainer.is_global_zero:
            return
        title = f"{type(pl_module).__name__}: accuracy by group, %"
        table, lines = group_table(rows, summary["worst_group"], title), summary_lines(summary)
        console = Console(highlight=False)
        console.print(table)
        for line in lines:
            console.print(line, markup=False, soft_wrap=True)
        if folder is not None:
            with may_be_lost(trainer, "the group report"):
                self._write(folder, rows, {**origin_of(trainer), **summary})
            files = [folder / name for name in _FILES]
            add_report(trainer, folder, type(self).__name__, Report(title, [table], lines, files))
            self._folder = folder

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write the page, with what other callbacks have added to it."""
        folder, self._folder = self._folder, None
        page = None if folder is None else finish_page(trainer, folder)
        if page is not None:
            print(f"page: {page}", flush=True)

    def _write(self, folder: Path, rows: Sequence[_Row], summary: dict[str, Any]) -> None:
        groups = [row._asdict() for row in rows]
        write_json(folder / "group_report.json", {**summary, "groups": groups})
        write_csv(folder / "group_report.csv", groups)
        print(f"group report: {folder / 'group_report.json'}", flush=True)


def group_table(rows: Sequence[_Row], worst: str | None, title: str) -> Table:
    """Table of accuracies by group.

    Args:
        rows: one for each group.
        worst: name of the group whose accuracy is in bold.
        title: of the table.
    """
    table = Table(title=escape(title), title_justify="left")
    table.add_column("group")
    for header in ("training rows", "known", "test rows", "accuracy"):
        table.add_column(header, justify="right")
    for row in rows:
        numbers = (row.training_rows, row.known_in_training, row.test_rows)
        cells = ["" if n is None else f"{n:,}" for n in numbers]
        shown = "–" if row.accuracy is None else f"{100 * row.accuracy:.1f}"
        # names of groups come from files, and may look like marks of style
        table.add_row(
            escape(row.group), *cells, f"[bold]{shown}[/bold]" if row.group == worst else shown
        )
    return table


def group_rows(data: Any, scores: GroupScores) -> list[_Row]:
    """One row per group of the test.

    Args:
        data: data module with groups.
        scores: of the test split.

    Returns:
        For each group its name, its training rows and those of known group (None where the data do
        not say), its test rows and its accuracy (None where it has no rows).
    """
    names = data.eval_group_names or data.group_names
    training: list[int | None] = [None] * len(names)
    known = list(training)
    if not data.eval_group_names:
        true = data.true_group_array("train")
        if (true >= 0).all():
            training = group_counts(true, len(names)).tolist()
        seen = np.where(data.known("train"), data.group_array("train"), -1)
        known = group_counts(seen, len(names)).tolist()
    return [
        _Row(str(name), training[g], known[g], int(scores.sizes[g]), _plain(scores.per_group[g]))
        for g, name in enumerate(names)
    ]


def summarise(data: Any, scores: GroupScores, uses_groups: bool) -> dict[str, Any]:
    """Worst and average accuracy, and the label budget.

    Args:
        data: data module with groups.
        scores: of the test split.
        uses_groups: whether the training has used group labels; else none are counted.

    Returns:
        Values by name, as in ``group_report.json``; accuracies in [0, 1], None where unknown.
    """
    names = data.eval_group_names or data.group_names
    worst = int(scores.worst_group)
    is_adjusted = data.adjusted_average and not scores.adjusted.isnan()
    return {
        "worst": _plain(scores.worst),
        "worst_group": str(names[worst]) if worst >= 0 else None,
        "average": _plain(scores.average),
        "adjusted_average": _plain(scores.adjusted),
        "headline_average": "adjusted_average" if is_adjusted else "average",
        "training_rows": len(data.labels("train")),
        "training_rows_of_unknown_group": int((data.true_group_array("train") < 0).sum()),
        "training_group_labels": data.num_labelled if uses_groups else 0,
        "validation_group_labels": int(data.known("val").sum()),
    }


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """The lines under the table.

    Args:
        summary: what ``summarise`` returns.
    """
    percent = {
        name: "–" if summary[name] is None else f"{100 * summary[name]:.1f}"
        for name in ("worst", "average", "adjusted_average")
    }
    used, rows = summary["training_group_labels"], summary["training_rows"]
    unknown = summary["training_rows_of_unknown_group"]
    lines = [
        f"worst {percent['worst']} ({summary['worst_group']}), average {percent['average']}, "
        f"weighted as in training {percent['adjusted_average']}",
        f"group labels: {used:,} of {rows:,} training rows ({100 * used / max(1, rows):.1f} %) and "
        f"{summary['validation_group_labels']:,} validation rows",
    ]
    if unknown:
        lines.append(
            f"the groups of {unknown:,} training rows are unknown, and so are the sizes of groups "
            "in training"
        )
    return lines


def _plain(value: Any) -> float | None:
    return None if math.isnan(value) else float(value)
