"""Table, files and signposts of a representation report."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def report_table(rows: Sequence[dict[str, Any]], shots: Sequence[int], title: str) -> Table:
    """Table of accuracies in percent.

    Args:
        rows: One dict per kind of features: ``features`` (its name), ``knn_acc1``,
            ``linear_acc1``, and ``lowshot_n_acc1``, ``lowshot_n_std`` per shot, in [0, 1].
        shots: Images per class of the low-shot columns.
        title: Title of the table.

    Returns:
        The table, with the best value of each column in bold.
    """
    table = Table(title=title, title_justify="left")
    table.add_column("features")
    names = ["knn_acc1", "linear_acc1", *(f"lowshot_{n}_acc1" for n in shots)]
    for header in ["k-NN", "linear", *(f"{n}-shot" for n in shots)]:
        table.add_column(header, justify="right")
    best = {name: max(row[name] for row in rows) for name in names}
    for row in rows:
        cells = []
        for name in names:
            text = f"{100 * row[name]:.1f}"
            if name.startswith("lowshot"):
                text += f" ± {100 * row[name.replace('acc1', 'std')]:.1f}"
            cells.append(f"[bold]{text}[/bold]" if row[name] == best[name] else text)
        table.add_row(row["features"], *cells)
    return table


def protocol_text(protocol: dict[str, Any]) -> str:
    """The protocol of a report in sentences; keys as in ``report.json``."""
    return (
        f"Top-1 accuracy in % on {protocol['queries']:,} {protocol['split']} images; bank: "
        f"{protocol['bank']:,} training images with the evaluation transform; features: "
        f"{protocol['feature_method']}(images), frozen.\n"
        f"k-NN: cosine, k {protocol['k']}, T {protocol['temperature']:g}. Linear: logistic "
        "regression on the bank, L2 chosen on a held-out fifth of it.\n"
        f"n-shot: logistic regression, l2 {protocol['l2']:g}, mean ± standard deviation of "
        f"{protocol['draws']} draws of n images per class from the bank, the same for all rows."
    )


def write_report(folder: Path, rows: Sequence[dict[str, Any]], protocol: dict[str, Any]) -> None:
    """Write ``report.json`` (rows and protocol) and ``report.csv`` (rows) into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"protocol": protocol, "rows": list(rows)}, indent=2, ensure_ascii=False)
    (folder / "report.json").write_text(content + "\n", encoding="utf-8")
    with (folder / "report.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def find_run_files(checkpoint: str | None, folders: Sequence[Path]) -> dict[str, str]:
    """Where a run left what a person may want to open.

    Args:
        checkpoint: The evaluated checkpoint, if any. Its run is searched first.
        folders: Further folders of runs, in order of preference.

    Returns:
        ``checkpoint``, ``TensorBoard`` (the command) and ``views`` (the latest picture), those that
        exist.
    """
    found: dict[str, str] = {}
    places = list(folders)
    if checkpoint and Path(checkpoint).exists():
        found["checkpoint"] = str(checkpoint)
        beside = Path(checkpoint).resolve().parent
        places = [beside, beside.parent, *places]
    for place in places:
        if "TensorBoard" not in found and any(place.glob("events.out.tfevents.*")):
            found["TensorBoard"] = f"tensorboard --logdir {place}"
        pictures = sorted(place.glob("views/epoch_*.png"))
        if "views" not in found and pictures:
            found["views"] = str(pictures[-1])
    return found


def print_report(table: Table, lines: Sequence[str], files: dict[str, str]) -> None:
    """Print the table, the protocol and the places, without breaking paths."""
    console = Console(highlight=False)
    console.print()
    console.print(table)
    for line in lines:
        console.print(line, markup=False, style="dim")
    width = max((len(name) for name in files), default=0)
    for name, place in files.items():
        console.print(f"{name:<{width}}  {place}", markup=False, soft_wrap=True)
