"""Reports of runs, of every kind, as numbers and what they were measured on."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lit_ssl.errors import InputError, quoted
from lit_ssl.files import read_bytes
from lit_ssl.json_text import JSONError, parse_json

__all__ = [
    "REPORTS", "Column", "Measurement", "Numbers", "column_of_metric", "plain", "protocol_label",
    "read_measurement",
]  # fmt: skip

REPORTS = (
    "report.json", "group_report.json", "factors.json", "linear_sweep.json", "module_drop.json"
)  # fmt: skip
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200b-\u200f\u202a-\u202e\u2066-\u2069]+")
_HALF = re.compile("[\ud800-\udfff]")  # of a character, as names that are no UTF-8 have
_LARGEST = 1e300
_ROUNDING = 1e-6
_LONGEST = 60  # characters of a name out of a file
_PROTOCOL = re.compile(r"(knn|linear|lowshot|soft_nn)(?:_(\w+))?_acc(\d)", re.ASCII)
_LESS_IS_MORE = re.compile(r"loss|error|perplexity|fvd|distance|seconds", re.IGNORECASE)
_MORE_IS_MORE = re.compile(r"acc|recall|auc|score|mrr|map$|grounding|worst|average", re.IGNORECASE)
_SHARE = re.compile(r"acc\d*(_|$)|accuracy|recall|worst|average", re.IGNORECASE)


class Column(NamedTuple):
    """What a number is.

    Attributes:
        name: its field in the report, or the name of the metric.
        label: what tables call it.
        how: options that were used for it; numbers with others stand in another column.
        is_share: in [0, 1], shown in percent.
        better: 1 where more is better, -1 where less is, 0 where neither is known.
    """

    name: str
    label: str
    how: str = ""
    is_share: bool = False
    better: int = 0


Numbers = dict[Column, float | None]


class Measurement(NamedTuple):
    """What one file says.

    Attributes:
        file: the file.
        title: what was measured on what; numbers are only compared where this is equal.
        numbers: by column; None where the file has none.
        baselines: the same of further rows, by name: the untrained network, pixels.
        checkpoint: the file of the weights as the report has it, else None.
        made_with: code and machine, as the report has them; empty where it does not say.
        notes: what the report itself says in addition.
    """

    file: Path
    title: str
    numbers: Numbers
    baselines: dict[str, Numbers]
    checkpoint: str | None
    made_with: dict[str, Any]
    notes: list[str]


class _Content(NamedTuple):
    title: str
    numbers: Numbers
    baselines: dict[str, Numbers]
    origin: Mapping[str, Any]
    notes: list[str]


def read_measurement(path: Path) -> Measurement:
    """Read a report of any callback of this package.

    Args:
        path: a file of JSON, whatever it is called.

    Raises:
        InputError: it cannot be read, or is no such report.
    """
    try:
        found = parse_json(read_bytes(path))
    except JSONError as error:
        raise InputError(f"{path} is no JSON: {error}") from error
    reader = _reader(found)
    if reader is None:
        raise InputError(
            f"{path} is no report of a run: expected a file of RepresentationReport, GroupReport, "
            f"FactorReport, LinearEvaluation or ModuleDropSweep ({', '.join(REPORTS)})"
        )
    try:
        content = reader(found)
    except _WrongError as error:
        raise InputError(f"{path} is no whole report: {error}") from error
    for name, numbers in {"": content.numbers, **content.baselines}.items():
        for column, value in numbers.items():
            if column.is_share and value is not None and not -_ROUNDING <= value <= 1 + _ROUNDING:
                of = f" of {name}" if name else ""
                raise InputError(
                    f"{path} is no whole report: {plain(column.name)}{of} should be a share in "
                    f"[0, 1], not {value:g}"
                )
    if not any(value is not None for value in content.numbers.values()):
        raise InputError(f"{path} has no numbers to compare")
    checkpoint = content.origin.get("checkpoint")
    made = content.origin.get("made_with")
    return Measurement(
        path,
        content.title,
        content.numbers,
        content.baselines,
        checkpoint if isinstance(checkpoint, str) else None,
        {plain(key): value for key, value in made.items()} if isinstance(made, dict) else {},
        content.notes,
    )


def column_of_metric(name: str) -> Column:
    """The column of a metric that a run has logged.

    Args:
        name: as ``val/knn_acc1``.
    """
    better = -1 if _LESS_IS_MORE.search(name) else 1 if _MORE_IS_MORE.search(name) else 0
    is_share = bool(_SHARE.search(name)) and better == 1
    return Column(name, plain(name), is_share=is_share, better=better)


def plain(text: object, longest: int = _LONGEST) -> str:
    """A text out of a file in one short line, without what terminals obey.

    Args:
        text: whatever stands there.
        longest: characters to keep.
    """
    line = _HALF.sub("\N{REPLACEMENT CHARACTER}", str(text)[: 10 * longest])
    line = " ".join(_CONTROL.sub(" ", line).split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


class _WrongError(Exception):
    """What a report lacks, in a few words."""


def _reader(found: Any) -> Callable[[Mapping[str, Any]], _Content] | None:
    """By what a file holds, since files are renamed."""
    kinds: dict[tuple[str, ...], Callable[[Mapping[str, Any]], _Content]] = {
        ("protocol", "rows"): _representation,
        ("groups", "worst"): _groups,
        ("protocol", "models"): _factors,
        ("chosen", "heads"): _linear_sweep,
        ("gate", "levels"): _module_drop,
    }
    if not isinstance(found, Mapping):
        return None
    return next((read for keys, read in kinds.items() if all(key in found for key in keys)), None)


def _mapping(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = parent.get(key)
    if not isinstance(found, Mapping):
        raise _WrongError(f"{key} should be keys and values, not {quoted(found)}")
    return found


def _mappings(parent: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    found = parent.get(key)
    if not isinstance(found, list) or not all(isinstance(row, Mapping) for row in found):
        raise _WrongError(f"{key} should be a list of keys and values, not {quoted(found)}")
    return found


def _number(row: Mapping[str, Any], key: str) -> float | None:
    found = row.get(key)
    if found is None or found in ("inf", "-inf"):  # as files.write_json writes what JSON lacks
        return None
    is_number = isinstance(found, int | float) and not isinstance(found, bool)
    if not is_number or not abs(found) < _LARGEST:
        raise _WrongError(f"{key} should be a number, not {quoted(found)}")
    return float(found)


def _options(mapping: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Some options in words: ``k 20, T 0.07``."""
    parts = []
    for key, word in names.items():
        value = mapping.get(key)
        if value is not None:
            shown = f"{value:g}" if isinstance(value, float) else plain(value)
            parts.append(f"{word} {shown}")
    return ", ".join(parts)


def _representation(found: Mapping[str, Any]) -> _Content:
    protocol, rows = _mapping(found, "protocol"), _mappings(found, "rows")
    if not rows:
        raise _WrongError("it has no rows")
    fields = [key for key in rows[0] if _PROTOCOL.fullmatch(key)]
    columns = {field: _protocol_column(field, protocol) for field in fields}
    numbers = [{column: _number(row, field) for field, column in columns.items()} for row in rows]
    names = [plain(row.get("features", "")) for row in rows]
    if len(set(names)) < len(names):
        raise _WrongError(f"two rows are called {quoted(names[-1])}")
    title = f"{plain(protocol.get('data') or 'data')}, {_count(protocol.get('queries'))} "
    title += f"{plain(protocol.get('split') or 'evaluated')} images"
    if protocol.get("bank") is not None:
        title += f", bank of {_count(protocol['bank'])}"
        title += f", {plain(protocol.get('feature_method', 'forward'))}(images)"
    if protocol.get("recalibrate_bn"):
        title += ", BatchNorm recalibrated"
    notes = protocol.get("notes")
    said = [plain(note) for note in notes] if isinstance(notes, list) else []
    baselines = dict(zip(names[1:], numbers[1:], strict=True))
    return _Content(title, numbers[0], baselines, protocol, said)


def _count(value: Any) -> str:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return f"{value:,}" if is_whole else "an unknown number of"


def _protocol_column(field: str, protocol: Mapping[str, Any]) -> Column:
    label = protocol_label(field)
    kind, chosen, _ = _PROTOCOL.fullmatch(field).groups()  # type: ignore[union-attr]
    draws = {"draws": "draws"}
    soft = protocol.get("soft_nn")
    sets = protocol.get("label_sets")
    own = sets.get(chosen) if isinstance(sets, Mapping) and chosen else None
    how = ""
    if kind == "knn":
        how = _options(protocol, {"k": "k", "temperature": "T"})
    elif isinstance(own, Mapping):
        images = own.get("images")
        counts = sorted({plain(count) for count in images}) if isinstance(images, list) else []
        drawn = f"{len(images or ())} times {' or '.join(counts[:2])} images" if counts else ""
        how = ", ".join(filter(None, [_options(own, {"l2": "l2"}), drawn]))
    elif kind == "lowshot":
        how = _options(protocol, {"l2": "l2", **draws})
    elif kind == "soft_nn" and isinstance(soft, Mapping):
        how = _options(soft, {"temperature": "τ"})
        supports = "bank" if soft.get("are_bank") else f"{_count(soft.get('supports'))} supports"
        how = f"{how}, {supports}" + (f", {_options(protocol, draws)}" if chosen else "")
        if soft.get("feature_method") != protocol.get("feature_method"):
            how += f", {plain(soft.get('feature_method'))}(images)"
    return Column(field, label, how, is_share=True, better=1)


def protocol_label(field: str) -> str:
    """What a field of a representation report is called in tables.

    Args:
        field: as ``knn_acc1``, ``lowshot_5_acc1``, ``soft_nn_acc5``.
    """
    parts = _PROTOCOL.fullmatch(field)
    if parts is None:
        return field
    method, chosen, top = parts.groups()
    name = {"knn": "k-NN", "linear": "linear", "lowshot": "", "soft_nn": "PAWS-NN"}[method]
    if chosen:
        name = f"{chosen}-shot {name}" if chosen.isdigit() else f"{chosen} {name}"
    return name.strip() + ("" if top == "1" else f", top-{top}")


def _groups(found: Mapping[str, Any]) -> _Content:
    groups = _mappings(found, "groups")
    rows = sum(int(_number(group, "test_rows") or 0) for group in groups)
    title = f"accuracy by group, {len(groups)} groups, {rows:,} test rows"
    names = {
        "worst": "worst group",
        "average": "average",
        "adjusted_average": "average weighted as in training",
    }
    numbers: Numbers = {
        Column(key, label, is_share=True, better=1): _number(found, key)
        for key, label in names.items()
    }
    labels = Column("training_group_labels", "group labels in training")
    numbers[labels] = _number(found, labels.name)
    numbers |= {
        Column(f"group {plain(group.get('group'))}", plain(group.get("group")), "", True, 1):
            _number(group, "accuracy")
        for group in groups
    }  # fmt: skip
    return _Content(title, numbers, {}, found, [])


def _factors(found: Mapping[str, Any]) -> _Content:
    protocol, models = _mapping(found, "protocol"), _mappings(found, "models")
    own = [model for model in models if model.get("model") == protocol.get("model")] or models
    if len(own) != 1:
        raise _WrongError("it does not say which of its models is that of the run")
    title = f"{plain(protocol.get('annotations'))}, {_count(protocol.get('images'))} images, "
    title += f"{plain(protocol.get('error_type'))} errors"
    for key in ("prototypes", "images_without_real_label"):
        if protocol.get(key) is not None:
            title += f", {plain(key.replace('_', ' '))} {plain(protocol[key])}"
    numbers: Numbers = {
        Column("accuracy", "accuracy", "", True, 1): _number(own[0], "accuracy"),
        Column("worst_factor_accuracy", "worst factor", "", True, 1):
            _number(own[0], "worst_factor_accuracy"),
        Column("calibration_error", "calibration error", "", True, -1):
            _number(own[0], "calibration_error"),
    }  # fmt: skip
    for row in _mappings(own[0], "factors"):
        name = plain(row.get("factor"))
        numbers[Column(f"factor {name}", name, "", True, 1)] = _number(row, "accuracy")
    return _Content(title, numbers, {}, protocol, [])


def _linear_sweep(found: Mapping[str, Any]) -> _Content:
    heads = _mappings(found, "heads")
    numbers = {
        Column(f"{split}_acc1", f"{split} accuracy", "", True, 1): _number(found, f"{split}_acc1")
        for split in ("val", "test")
        if f"{split}_acc1" in found
    }
    return _Content(f"linear evaluation, the best of {len(heads)} heads", numbers, {}, found, [])


def _module_drop(found: Mapping[str, Any]) -> _Content:
    numbers: Numbers = {}
    for level in _mappings(found, "levels"):
        count = _number(level, "modules")
        for key in level:
            if key.endswith("acc1") and count is not None:
                label = f"{count:g} modules" + ("" if key == "acc1" else f", {plain(key)}")
                numbers[Column(f"modules_{count:g}_{key}", label, "", True, 1)] = _number(
                    level, key
                )
    gate = _mapping(found, "gate")
    notes = ["VOID: its modules are by-passed"] if gate.get("is_void") else []
    title = f"circuit with fewer modules, {plain(found.get('split'))} images, "
    return _Content(title + f"ranked by {plain(found.get('method'))}", numbers, {}, found, notes)
