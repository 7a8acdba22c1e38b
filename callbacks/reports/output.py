"""Table, files and signposts of a representation report."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lit_ssl.files import write_csv, write_json
from lit_ssl.runs.reports import protocol_label

FILES = ("report.json", "report.csv")


def report_table(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """Table of accuracies in percent, one column for each kind of features.

    Args:
        rows: One dict per kind of features: ``features`` (its name) and accuracies in [0, 1], such
            as ``knn_acc1``, or ``lowshot_1_acc1`` with ``lowshot_1_std``.
        title: Title of the table.

    Returns:
        The table, with the best value under each protocol in bold.
    """
    table = Table(title=title, title_justify="left")
    table.add_column("protocol")
    for row in rows:
        table.add_column(row["features"], justify="right")
    for name in (key for key in rows[0] if re.search(r"_acc\d$", key)):
        best = max(row[name] for row in rows)
        spread = f"{name.rpartition('_')[0]}_std"
        several = any(row.get(spread) for row in rows)
        cells = []
        for row in rows:
            text = f"{100 * row[name]:.1f}"
            text += f" ± {100 * row[spread]:.1f}" if several else ""
            cells.append(f"[bold]{text}[/bold]" if row[name] == best else text)
        table.add_row(protocol_label(name), *cells)
    return table


def protocol_text(protocol: dict[str, Any]) -> str:
    """The protocol of a report in sentences; keys as in ``report.json``.

    Args:
        protocol: what was measured, and with which options.
    """
    measured = protocol["protocols"]
    about = f"Top-1 accuracy in % on {protocol['queries']:,} {protocol['split']} images"
    if protocol["bank"] is not None:
        about += (
            f"; bank: {protocol['bank']:,} training images with the evaluation transform; "
            f"features: {protocol['feature_method']}(images), frozen"
        )
    lines = [f"{about}."]
    if protocol["recalibrate_bn"]:
        lines.append("BatchNorm with the statistics of training images as evaluation shows them.")
    if "knn" in measured:
        lines.append(f"k-NN: cosine, k {protocol['k']}, T {protocol['temperature']:g}.")
    if "linear" in measured:
        lines.append(
            "linear: logistic regression on the bank, L2 chosen on a held-out fifth of it."
        )
    draws = (
        f"mean ± standard deviation of {protocol['draws']} draws of n images per class from the "
    )
    if "low_shot" in measured and protocol["shots"]:
        lines.append(
            f"n-shot: logistic regression, l2 {protocol['l2']:g}, {draws}bank, the same in all "
            "columns."
        )
    if soft_nn := protocol["soft_nn"]:
        source = "the bank" if soft_nn["are_bank"] else f"{soft_nn['supports']:,} labelled images"
        line = (
            f"PAWS-NN: soft nearest neighbours, τ {soft_nn['temperature']:g}, over {source}; "
            f"features: {soft_nn['feature_method']}(images)"
        )
        lines.append(f"{line}; n-shot: {draws}same." if protocol["shots"] else f"{line}.")
    lines += [_set_text(name, chosen) for name, chosen in protocol["label_sets"].items()]
    return "\n".join(lines)


def _set_text(name: str, chosen: dict[str, Any]) -> str:
    counts = sorted(set(chosen["images"]))
    images = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    if chosen["files"] is not None:
        names = [Path(file).name for file in chosen["files"]]
        several = len(set(names)) < len(names)  # of one name, in different folders
        source = f"of {', '.join(chosen['files'] if several else names)}"
    else:
        source = f"drawn at random, {100 * chosen['fraction']:g} % of the bank"
    times = f", {len(chosen['images'])} times" if len(chosen["images"]) > 1 else ""
    return f"{name}: {images} images {source}{times}; logistic regression with l2 {chosen['l2']:g}."


def write_report(folder: Path, rows: Sequence[dict[str, Any]], protocol: dict[str, Any]) -> None:
    """Write ``report.json`` (rows and protocol) and ``report.csv`` (rows) into a folder.

    Args:
        folder: where to.
        rows: one for each kind of features.
        protocol: what was measured, and with which options.
    """
    write_json(folder / "report.json", {"protocol": protocol, "rows": rows})
    write_csv(folder / "report.csv", rows)


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
    """Print the table, the protocol and the places, without breaking paths.

    Args:
        table: of rich.
        lines: printed below it, as they are.
        files: places by name, printed at the end, one a line.
    """
    console = Console(highlight=False)
    console.print()
    console.print(table)
    for line in lines:
        console.print(line, markup=False, style="dim")
    width = max((len(name) for name in files), default=0)
    for name, place in files.items():
        console.print(f"{name:<{width}}  {place}", markup=False, soft_wrap=True)
