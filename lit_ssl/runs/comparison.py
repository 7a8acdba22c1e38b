"""Runs side by side: one row for each setting, mean and standard deviation over its seeds."""

from __future__ import annotations

import re
import statistics
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lit_ssl.errors import InputError, did_you_mean, listed
from lit_ssl.runs.configs import Flat, as_text, differing_keys, is_seed, short_names, shown, telling
from lit_ssl.runs.places import Found, find_runs
from lit_ssl.runs.reports import Column, Numbers, plain

__all__ = ["ComparedRow", "ComparedTable", "Comparison", "Score", "compare_runs"]

_RUN = "run"  # the key of what has no config
_MOST = 8  # logged metrics in a table that nobody has chosen
# columns that are shown where they are asked for
_IN_DETAIL = re.compile(r"(group|factor) .*|.*_acc5", re.DOTALL)
_MISSING = "–"
_PATH = 300  # characters of a path in a note


class Score(NamedTuple):
    """A number over the runs of one setting.

    Attributes:
        mean: of the values.
        sd: their standard deviation, with n − 1; None for a single value.
        values: one for each run that has it.
    """

    mean: float
    sd: float | None
    values: tuple[float, ...]


class ComparedRow(NamedTuple):
    """A row of a table.

    Attributes:
        setting: what tells it from the others, by short name of the key; as the config has it.
        baseline: name of the baseline that it is of, None for the runs' own features.
        seeds: one for each run, "?" where none is known.
        scores: by column; None where no run has the number.
    """

    setting: dict[str, Any]
    baseline: str | None
    seeds: tuple[str, ...]
    scores: dict[Column, Score | None]


class ComparedTable(NamedTuple):
    """Runs that were measured in the same way.

    Attributes:
        title: what was measured on what.
        keys: short names of what differs between the settings; at least one.
        columns: in order.
        rows: settings first, then baselines.
        notes: how to read it, a line each.
    """

    title: str
    keys: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[ComparedRow, ...]
    notes: tuple[str, ...]

    def label(self, column: Column) -> str:
        """What a column is called, with its options where another one has the same name.

        Args:
            column: of this table.
        """
        several = sum(other.label == column.label for other in self.columns) > 1
        return f"{column.label} ({column.how or 'other options'})" if several else column.label

    def best(self, column: Column) -> float | None:
        """The best mean of a column, baselines included; None for a single setting.

        Args:
            column: of this table.
        """
        means = [score.mean for row in self.rows if (score := row.scores[column])]
        own = sum(row.baseline is None for row in self.rows)
        if own < 2 or not means or column.better == 0:
            return None
        return max(means) if column.better > 0 else min(means)


class Comparison(NamedTuple):
    """All tables of some runs.

    Attributes:
        tables: one for each way of measuring.
        notes: what holds for all of them, a line each.
    """

    tables: tuple[ComparedTable, ...]
    notes: tuple[str, ...]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One plain row for each number: ``table``, the keys, ``mean``, ``sd``, ``n`` and so on."""
        keys = list(dict.fromkeys(key for table in self.tables for key in table.keys))
        found = []
        for table in self.tables:
            for row in table.rows:
                for column, score in row.scores.items():
                    values = () if score is None else score.values
                    found.append({
                        "table": table.title,
                        **{key: row.setting.get(key) for key in keys},
                        "baseline": row.baseline,
                        "metric": column.name,
                        "options": column.how,
                        "mean": None if score is None else score.mean,
                        "sd": None if score is None else score.sd,
                        "n": len(values),
                        "seeds": " ".join(row.seeds),
                    })  # fmt: skip
        return found


class _Run(NamedTuple):
    """The numbers of one setting and seed."""

    seed: str
    numbers: Numbers
    baselines: dict[str, Numbers]


def compare_runs(
    places: Sequence[str | Path],
    metrics: Sequence[str] = (),
    ignored: Sequence[str] = (),
    say: Callable[[str], object] = warnings.warn,
) -> Comparison:
    """Compare the results of runs, with what differs in their configs.

    Numbers of different protocols or data are never in one column. Runs that differ in seeds only
    are one row.

    Args:
        places: folders of runs, folders above several, or files with a report; at least one.
        metrics: names of columns to keep, such as ``knn_acc1`` or ``val/loss``; all if empty.
        ignored: keys of configs that should not tell settings apart, such as ``data.root``.
        say: called with one line for each thing that is left out.

    Returns:
        The tables; ``rows`` has all numbers as plain rows.

    Raises:
        InputError: a place or a file is missing or damaged, or no run has such a metric or key.
    """
    found = find_runs(places, say)
    chosen = _chosen_columns(found, metrics)
    _check_ignored(found, ignored)
    titles = list(dict.fromkeys(one.measurement.title for one in found))
    tables = []
    for title in titles:
        alike = [one for one in found if one.measurement.title == title]
        table = _table(title, alike, chosen, ignored)
        if table.columns:
            tables.append(table)
    notes = [*_code_notes(found)]
    if len(tables) > 1:
        notes.insert(0, "Each table has its own data or protocol, as its title says: numbers of "
                        "different tables are not comparable.")  # fmt: skip
    return Comparison(tuple(tables), tuple(notes))


def _columns(found: Iterable[Found]) -> list[Column]:
    return list(dict.fromkeys(column for one in found for column in one.measurement.numbers))


def _chosen_columns(found: Sequence[Found], metrics: Sequence[str]) -> set[str] | None:
    """Names of the columns that were asked for, None for all."""
    if not metrics:
        return None
    names: dict[str, list[str]] = {}
    for column in _columns(found):
        for name in {column.name, column.label}:
            names.setdefault(name.casefold(), []).append(column.name)
    chosen: set[str] = set()
    for metric in metrics:
        if metric.casefold() not in names:
            known = [column.name for column in _columns(found)]
            hint = did_you_mean(metric, known) or f" Known: {listed(sorted(set(known)), 20)}."
            raise InputError(f"no run has a metric {plain(metric)!r}.{hint}")
        chosen |= set(names[metric.casefold()])
    return chosen


def _check_ignored(found: Sequence[Found], ignored: Sequence[str]) -> None:
    """Refuse a key that no config has, by which nothing would be ignored."""
    keys = list(dict.fromkeys(key for one in found for key in one.config or {}))
    for name in ignored:
        if not any(key == name or key.startswith(f"{name}.") for key in keys):
            hint = did_you_mean(name, keys)
            raise InputError(f"no config has a key {plain(name)!r} to ignore.{hint}")


def _table(
    title: str, found: Sequence[Found], chosen: set[str] | None, ignored: Sequence[str]
) -> ComparedTable:
    notes: list[str] = []
    settings: dict[str, Flat] = {}
    runs: dict[str, dict[str, list[Found]]] = {}
    for one in found:
        setting = {_RUN: one.measurement.file.parent.absolute().name or "/"}
        place = str(one.measurement.file.parent.absolute())
        if one.config is None:
            key = place
            notes.append(f"{plain(setting[_RUN])}: no config.yaml of this run was found")
        else:
            setting = telling(one.config, ignored)
            key = as_text(setting)
        settings.setdefault(key, setting)
        runs.setdefault(key, {}).setdefault(_seed_of(one, place), []).append(one)
    keys, together = differing_keys(list(settings.values()))
    if not keys:
        keys = ["model" if all("model" in one for one in settings.values()) else _RUN]
        settings = {key: {_RUN: "all runs", **setting} for key, setting in settings.items()}
    names = short_names(keys, [key for one in settings.values() for key in one])
    columns = _shown_columns(_columns(found), chosen, notes)
    merged = {
        key: [_merged(seed, alike, notes) for seed, alike in by_seed.items()]
        for key, by_seed in runs.items()
    }
    order = sorted(settings, key=lambda key: _place(settings[key], keys))
    cells = {
        key: {names[one]: settings[key].get(one, _MISSING) for one in keys} for key in settings
    }
    rows = [
        ComparedRow(
            cells[key],
            None,
            tuple(run.seed for run in merged[key]),
            _scores(columns, [run.numbers for run in merged[key]]),
        )
        for key in order
    ]
    rows += _baseline_rows(columns, {key: merged[key] for key in order}, cells, notes)
    for key, others in together.items():
        notes.append(
            f"With {plain(names[key])} differ too: {listed([plain(o) for o in others], 8)}"
        )
    notes += _reading_notes(columns, rows)
    said = [plain(note, _PATH) for one in found for note in one.measurement.notes]
    notes += list(dict.fromkeys(said))
    return ComparedTable(
        title, tuple(names[key] for key in keys), tuple(columns), tuple(rows), tuple(notes)
    )


def _seed_of(one: Found, place: str) -> str:
    """The seeds of a run in one text; of unknown ones, what no other run has."""
    seeds = {key: value for key, value in (one.config or {}).items() if is_seed(key)}
    main = seeds.get("seed_everything")
    if main is None or isinstance(main, bool):
        return f"? {one.config_file or place}"
    others = [f"{key} {value}" for key, value in seeds.items()
              if key != "seed_everything" and value is not None]  # fmt: skip
    return ", ".join([plain(main), *map(plain, others)])


def _merged(seed: str, alike: Sequence[Found], notes: list[str]) -> _Run:
    """The numbers of one run; of what was measured several times, the newest."""
    numbers: Numbers = {}
    baselines: dict[str, Numbers] = {}
    by_age = sorted(alike, key=lambda one: one.age)
    again: list[Found] = []
    for one in by_age:
        if any(column in numbers for column in one.measurement.numbers):
            again.append(one)
        numbers |= one.measurement.numbers
        for name, values in one.measurement.baselines.items():
            baselines[name] = {**baselines.get(name, {}), **values}
    shown_seed = "?" if seed.startswith("? ") else seed
    if again:
        last = again[-1].measurement.file
        files = [one.measurement.file for one in by_age]
        others = [plain(file, _PATH) for file in files if file != last]
        notes.append(
            f"The same setting and seed ({shown_seed}) was measured {len(by_age)} times: "
            f"{plain(last, _PATH)} counts, the newest, and not {listed(others)}"
        )
    return _Run(shown_seed, numbers, baselines)


def _place(setting: Flat, keys: Sequence[str]) -> list[tuple[int, float, str]]:
    """Numbers by size, other values by name, what is missing last."""
    places = []
    for key in keys:
        value = setting.get(key, _MISSING)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        number = float(value) if is_number and abs(value) < 1e300 else 0.0
        places.append((0 if is_number else 2 if key not in setting else 1, number, shown(value)))
    return places


def _scores(columns: Sequence[Column], numbers: Sequence[Numbers]) -> dict[Column, Score | None]:
    return {column: _score([one.get(column) for one in numbers]) for column in columns}


def _score(values: Sequence[float | None]) -> Score | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    sd = statistics.stdev(known) if len(known) > 1 else None
    return Score(statistics.fmean(known), sd, tuple(known))


def _shown_columns(
    columns: Sequence[Column], chosen: set[str] | None, notes: list[str]
) -> list[Column]:
    if chosen is not None:
        return [column for column in columns if column.name in chosen]
    kept = [column for column in columns if not _IN_DETAIL.fullmatch(column.name)]
    logged = [column for column in kept if "/" in column.name]
    if len(logged) > _MOST:
        best = sorted(logged, key=lambda column: -column.better)[:_MOST]
        kept = [column for column in kept if column not in logged or column in best]
    left = [column.name for column in columns if column not in kept]
    if left:
        notes.append(f"Shown with --metric NAME: {listed([plain(one) for one in left], 20)}")
    return kept


def _baseline_rows(
    columns: Sequence[Column],
    runs: dict[str, list[_Run]],
    cells: dict[str, dict[str, Any]],
    notes: list[str],
) -> list[ComparedRow]:
    """One row for a baseline that is the same for all settings, else one for each of them."""
    rows = []
    empty = dict.fromkeys(next(iter(cells.values())))
    names = dict.fromkeys(name for each in runs.values() for run in each for name in run.baselines)
    for name in names:
        by_seed: dict[str, list[Numbers]] = {}
        for each in runs.values():
            for number, run in enumerate(each):
                if name in run.baselines:
                    seed = run.seed if run.seed != "?" else f"? {number}"
                    by_seed.setdefault(seed, []).append(run.baselines[name])
        if all(_equal(columns, alike) for alike in by_seed.values()):
            first = {seed: alike[0] for seed, alike in by_seed.items()}
            if len(first) > 1 and _equal(columns, list(first.values())):
                first = dict(list(first.items())[:1])
                notes.append(f"{name}: the same for all seeds")
            seeds = tuple(seed[:1] if seed[:2] == "? " else seed for seed in first)
            rows.append(ComparedRow(empty, name, seeds, _scores(columns, list(first.values()))))
            continue
        for key, each in runs.items():
            own = [run for run in each if name in run.baselines]
            numbers = [run.baselines[name] for run in own]
            seeds = tuple(run.seed for run in own)
            if own:
                rows.append(ComparedRow(cells[key], name, seeds, _scores(columns, numbers)))
    return rows


def _equal(columns: Sequence[Column], numbers: Sequence[Numbers]) -> bool:
    return all(one.get(column) == numbers[0].get(column) for one in numbers for column in columns)


def _reading_notes(columns: Sequence[Column], rows: Sequence[ComparedRow]) -> list[str]:
    notes = []
    counts = {len(row.seeds) for row in rows}
    seeds = {row.seeds for row in rows if row.baseline is None}
    if max(counts, default=0) > 1:
        which = f" ({', '.join(next(iter(seeds)))})" if len(seeds) == 1 else ""
        notes.append(f"Mean ± standard deviation over n runs of different seeds{which}, with n − 1")
    if any(column.is_share for column in columns):
        plain_ones = [column.label for column in columns if not column.is_share]
        but = f", but for {listed(plain_ones)}" if plain_ones else ""
        notes.append(f"Numbers in %{but}")
    own = sum(row.baseline is None for row in rows)
    if own > 1 and any(column.better for column in columns):
        notes.append("Bold: the best mean of a column, which no test of significance stands behind")
    how: dict[str, list[str]] = {}
    for column in columns:
        if column.how and sum(other.label == column.label for other in columns) == 1:
            how.setdefault(column.how, []).append(column.label)
    notes += [f"{', '.join(labels)}: {options}" for options, labels in how.items()]
    return notes


def _code_notes(found: Sequence[Found]) -> list[str]:
    """With which code, and on which machine, the reports were made."""
    made = [one.measurement.made_with for one in found if one.measurement.made_with]
    if not made:
        return []
    keys = list(dict.fromkeys(key for one in made for key in one))
    values = {
        key: list(dict.fromkeys(_brief(key, one[key]) for one in made if one.get(key) is not None))
        for key in keys
    }
    parts = [f"{key} {plain(' or '.join(each), _PATH)}" for key, each in values.items() if each]
    return [f"Reports made with {', '.join(parts)}"]


def _brief(key: str, value: Any) -> str:
    text = shown(value)
    is_hash = key == "commit" and len(text.rstrip("+")) == 40
    return text[:12] + "+" * text.endswith("+") if is_hash else text
