"""The page beside reports: one file with table, curves and pictures, which opens offline."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import lightning.pytorch as pl

from lit_ssl.contracts.data import data_source
from lit_ssl.files import write_file
from lit_ssl.pages.charts import charts, count_charts
from lit_ssl.pages.markup import Markup, breakable, definitions, details, element, table
from lit_ssl.pages.page import Picture, Section, figures, page
from lit_ssl.pages.printed_tables import printed_table
from lit_ssl.trainer.lost_files import may_be_lost
from lit_ssl.trainer.pictures import kept_pictures
from lit_ssl.trainer.run import origin_of
from lit_ssl.trainer.run_records import (
    RunRecords,
    config_of,
    log_folders,
    read_records,
    training_folder,
)

__all__ = ["PAGE", "Report", "add_report", "finish_page", "write_run_page"]

PAGE = "index.html"  # its name belongs to the names that a report asks ``run_folder`` for
_BYTES = 20_000_000  # of the pictures of a page
_MOST_PICTURES = 24  # of a run
_MOST_CHARTS = 48


class Report(NamedTuple):
    """What a report shows, as it printed it.

    Attributes:
        title: what it is about.
        tables: tables of ``rich``.
        lines: what stands below them: the protocol, notes.
        files: that it wrote.
        pictures: that it drew, among its files.
    """

    title: str
    tables: Sequence[Any]
    lines: Sequence[str]
    files: Sequence[Path]
    pictures: Sequence[Path] = ()


@dataclass
class _Page:
    """A page of the making: reports by name, and what was evaluated."""

    reports: dict[str, Report] = field(default_factory=dict)
    title: str = ""
    origin: dict[str, Any] = field(default_factory=dict)
    facts: list[tuple[str, Markup]] = field(default_factory=list)
    is_new: bool = False


_pages: WeakKeyDictionary[pl.Trainer, dict[Path, _Page]] = WeakKeyDictionary()


def add_report(trainer: pl.Trainer, folder: Path, name: str, report: Report) -> None:
    """Add a report to the page of its folder, which ``finish_page`` writes.

    Several reports of a run in one folder share a page. Nothing is written yet.

    Args:
        trainer: the running trainer, on rank zero.
        folder: as ``run_folder`` gave it for the report's files and ``PAGE``.
        name: of the report; one of the same name takes its place.
        report: what to show.
    """
    made = _pages.setdefault(trainer, {}).setdefault(folder, _Page())
    made.reports[name] = report
    made.origin = origin_of(trainer)  # now: at the end of a run the trainer forgets
    made.title = _title(trainer)
    made.facts = _facts(trainer, folder, made.origin)
    made.is_new = True


def finish_page(trainer: pl.Trainer, folder: Path) -> Path | None:
    """Write the page of a folder, unless it is there with all that was added.

    A disk that is full costs the page and not the run.

    Args:
        trainer: the running trainer, on rank zero.
        folder: of the reports.

    Returns:
        The page; None where nothing was added, or it could not be written.
    """
    made = _pages.get(trainer, {}).get(folder)
    if made is None:
        return None
    path = folder / PAGE
    if not made.is_new:
        return path if path.is_file() else None
    with may_be_lost(trainer, "the page of reports"):
        sections = [_report_section(report) for report in made.reports.values()]
        files = [file for report in made.reports.values() for file in report.files]
        shown = [p for report in made.reports.values() for p in report.pictures]
        _write(trainer, path, made, sections, files, shown)
        made.is_new = False
        return path
    return None


def write_run_page(trainer: pl.Trainer, path: Path, results: Iterable[tuple[str, float]]) -> None:
    """Write the page of a training: its last results, curves and pictures.

    Args:
        trainer: the running trainer, on rank zero, at the end of a fit.
        path: the page.
        results: names and values.
    """
    origin = origin_of(trainer)
    made = _Page(title=_title(trainer), origin=origin, facts=_facts(trainer, path.parent, origin))
    rows = [(name, f"{value:.5g}") for name, value in results]
    chosen = [row for row in rows if row[0].startswith("val")] or rows
    content = [table(["metric", "value"], chosen, numbers=[False, True])] if rows else []
    if len(chosen) < len(rows):
        others = [row for row in rows if row not in chosen]
        listed = table(["metric", "value"], others, numbers=[False, True])
        content.append(details("Other values at the end", listed))
    _write(trainer, path, made, [Section("Results", content)], [], [])


# parts


def _title(trainer: pl.Trainer) -> str:
    data = data_source(trainer)
    module = type(trainer.lightning_module).__name__
    return module if data is trainer.lightning_module else f"{module} on {type(data).__name__}"


def _facts(trainer: pl.Trainer, folder: Path, origin: dict[str, Any]) -> list[tuple[str, Markup]]:
    data = data_source(trainer)
    classes = getattr(data, "num_classes", None)
    made = origin["made_with"]
    count = made["processes"]
    processes = f", {count} processes" if count > 1 else ""
    given = {
        "checkpoint": origin["checkpoint"] and _relative(origin["checkpoint"], folder),
        "weights it started from": origin["weights"] and _relative(origin["weights"], folder),
        "steps trained in this run": origin["steps"] and f"{origin['steps']:,}",
        "method": type(trainer.lightning_module).__name__,
        "data": f"{type(data).__name__}{f', {classes} classes' if classes else ''}",
        "computed on": f"{made['device']}{processes}, precision {trainer.precision}",
        "software": f"{_code(made)}; torch {made['torch']}, lightning {made['lightning']}, timm "
        f"{made['timm']}, Python {made['python']}",
    }
    return [(name, breakable(str(value))) for name, value in given.items() if value]


def _code(made: dict[str, Any]) -> str:
    commit = made["commit"]
    changed = " with changes" if commit and commit.endswith("+") else ""
    return f"lit_ssl {made['lit_ssl']}" + (f", commit {commit[:10]}{changed}" if commit else "")


def _report_section(report: Report) -> Section:
    lines = [line for text in report.lines for line in text.split("\n") if line]
    content = [printed_table(printed, report.title) for printed in report.tables]
    return Section(
        report.title,
        [*content, *(element("p", line, class_="soft") for line in lines)],
    )


def _write(
    trainer: pl.Trainer,
    path: Path,
    made: _Page,
    reports: list[Section],
    files: Sequence[Path],
    drawn: Sequence[Path],
) -> None:
    folder = path.parent
    command = made.origin["command"]
    runs = [read_records(place) for place in _run_folders(trainer, made.origin)]
    pictures, more = _pictures(trainer, folder, runs, drawn)
    curves = [part for run in runs for part in _curve_content(run, folder)]
    if not curves:
        curves = [_soft("No curves: only TensorBoard and the CSV logger keep them in files.")]
    shown, _ = figures(pictures, _BYTES)
    config = config_of(trainer)
    configs = [("of this run", config)] if config else []
    for run in runs:
        if run.config is not None and run.config != config:
            where = _relative(run.folder / "config.yaml", folder)
            configs.append((f"of the training, {where}", run.config))
    sections = [
        *reports,
        Section("What was evaluated" if files else "What was trained", [definitions(made.facts)]),
        Section(
            "Pictures",
            [*([element("div", *shown, class_="pictures")] if shown else []), *more],
        ),
        Section("Curves of the training", curves),
        Section(
            "Configuration",
            [
                details(f"Configuration {whose}", element("pre", element("code", text)))
                for whose, text in configs
            ],
        ),
        Section("Files", _file_list(folder, files, runs)),
    ]
    when = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    lead = f"{command} of {_what(made.origin)}, {when}"
    code = _code(made.origin["made_with"])
    footer = f"Written by {code}. Nothing in this page is loaded from elsewhere."
    text = page(made.title, lead, sections, footer)
    write_file(path, lambda file: file.write(text))


def _what(origin: dict[str, Any]) -> str:
    if origin["command"] == "fit":
        return _steps(origin["steps"] or 0)
    if origin["checkpoint"]:
        return Path(origin["checkpoint"]).name
    if origin["steps"]:
        return f"the weights after {_steps(origin['steps'])}"
    return "the module as it was given"


def _steps(count: int) -> str:
    return f"{count:,} step{'s' if count != 1 else ''}"


def _run_folders(trainer: pl.Trainer, origin: dict[str, Any]) -> list[Path]:
    """The folder of the training that the weights come from, and what this trainer trained."""
    places = [training_folder(origin["checkpoint"])]
    if origin["steps"] or trainer.state.fn == "fit":
        places += log_folders(trainer)
    return list(dict.fromkeys(place.resolve() for place in places if place is not None))


def _curve_content(run: RunRecords, folder: Path) -> list[Markup]:
    drawn = charts(run.curves, _MOST_CHARTS)
    content = [_soft(f"From the logs in {_where(run.folder, folder)}.")] if drawn else []
    content += [element("div", *drawn, class_="charts")] if drawn else []
    left = count_charts(run.curves) - len(drawn)
    if left > 0:
        content.append(_soft(f"{left:,} more curves are in the logs."))
    content += [_soft(f"{note}.") for note in run.notes]
    if drawn:
        rows = []
        for name, curve in run.curves.items():
            there = curve.values[abs(curve.values) < float("inf")]
            numbers = [there[-1], there.min(), there.max()] if len(there) else []
            cells = [f"{number:.5g}" for number in numbers] or ["–"] * 3
            rows.append([name, f"{curve.steps[-1]:,}", *cells])
        headers = ["metric", "last step", "last value", "lowest", "highest"]
        numbers_ = table(headers, rows, numbers=[False, True, True, True, True])
        content.append(details("The last, lowest and highest values", numbers_))
    return content


def _pictures(
    trainer: pl.Trainer, folder: Path, runs: Sequence[RunRecords], drawn: Sequence[Path]
) -> tuple[list[Picture], list[Markup]]:
    """Pictures of the reports, of this run and of the training, each once."""
    found: dict[Path, str] = {}
    for path in drawn:
        found.setdefault(path.resolve(), path.name)
    for name, path in dict(kept_pictures(trainer)).items():  # the last of each name
        if path.is_file():
            found.setdefault(path.resolve(), f"{name}: {_relative(path, folder)}")
    for run in runs:
        for path, count in run.pictures:
            note = f", the last of {count}" if count > 1 else ""
            found.setdefault(path.resolve(), f"{_relative(path, folder)}{note}")
    shown = [Picture(path, caption) for path, caption in found.items()]
    left = len(shown) - _MOST_PICTURES
    more = [_soft(f"{left:,} more pictures lie beside these.")] if left > 0 else []
    return shown[:_MOST_PICTURES], more


def _file_list(folder: Path, files: Sequence[Path], runs: Sequence[RunRecords]) -> list[Markup]:
    """Links to what the page was made from, relative to it."""
    places = [*files, *(run.folder for run in runs)]
    items = []
    for place in dict.fromkeys(places):
        link = _link(_relative(place, folder))
        items.append(element("li", element("a", _where(place, folder), href=link)))
    return [element("ul", *items)] if items else []


def _relative(path: str | Path, folder: Path) -> str:
    """A path as it is seen from a page; addresses stay as they are."""
    if "://" in str(path):
        return str(path)
    return os.path.relpath(Path(path).resolve(), folder.resolve())


def _where(path: Path, folder: Path) -> str:
    where = _relative(path, folder)
    return "the folder of this page" if where == "." else where


def _link(where: str) -> str:
    from urllib.parse import quote

    # a name could begin like an address: javascript:…
    return where if "://" in where else "./" + quote(where, errors="surrogateescape")


def _soft(text: str) -> Markup:
    return element("p", text, class_="soft")
