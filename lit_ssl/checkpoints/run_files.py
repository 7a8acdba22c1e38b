"""What lies beside a checkpoint: the config of its run, and the report of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lit_ssl.checkpoints.card_texts import last_word, without_places
from lit_ssl.checkpoints.extent import check_extent
from lit_ssl.errors import InputError, InputFileNotFoundError
from lit_ssl.files import read_bytes, read_text
from lit_ssl.json_text import JSONError, parse_json
from lit_ssl.yaml_text import YAMLError, load_yaml

__all__ = ["Report", "is_report_of", "read_report", "read_run_config", "run_folder_of"]

_CONFIG = "config.yaml"
_REPORT = "report.json"
_PAGE = "index.html"


class Report(NamedTuple):
    """What an evaluation wrote.

    Attributes:
        file: the file of it.
        rows: accuracies by field, one row for each kind of features, at least one.
        protocol: how they were measured, without places on a machine.
        places: the protocol as it was, for these places.
        split: which images were asked.
        data: class of the data module; empty where it is not known.
        page: the report as a page, if it lies beside it.
    """

    file: Path
    rows: list[Mapping[str, Any]]
    protocol: dict[str, Any]
    places: Mapping[str, Any]
    split: str
    data: str
    page: Path | None


def run_folder_of(checkpoint: Path) -> Path | None:
    """The folder of the run that wrote a checkpoint: the nearest one with a config.

    Args:
        checkpoint: its file.
    """
    beside = checkpoint.resolve().parent
    return next((place for place in (beside, beside.parent) if (place / _CONFIG).is_file()), None)


def read_run_config(folder: Path) -> dict[str, Any]:
    """The config of a run as plain values.

    Args:
        folder: of the run.

    Raises:
        InputError: if it cannot be read, or is no config.
    """
    path = folder / _CONFIG
    try:
        found = load_yaml(read_text(path))
    except (yaml.YAMLError, YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be read as YAML: {reason:.200}") from error
    check_extent(found, path)
    if not isinstance(found, dict):
        raise InputError(f"{path} is no config of a run")
    return found


def read_report(path: Path) -> Report:
    """Read ``report.json``.

    Args:
        path: the file, or its folder.

    Raises:
        InputError: if it is missing, or no report of this package.
    """
    file = path / _REPORT if path.is_dir() else path
    if not file.is_file():
        raise InputFileNotFoundError(
            f"no report at {file}: RepresentationReport writes {_REPORT}; give it or its folder"
        )
    try:
        found = parse_json(read_bytes(file))
    except JSONError as error:
        raise InputError(f"{file} is no JSON: {error}") from error
    rows = found.get("rows") if isinstance(found, dict) else None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{file} is no report of RepresentationReport: it has no rows")
    places = found.get("protocol")
    places = places if isinstance(places, dict) else {}
    check_extent(places, file)
    protocol = without_places(places)
    beside = file.resolve().parent
    data = last_word(str(protocol.get("data") or ""))
    if not data and (beside / _CONFIG).is_file():
        data = _data_class(read_run_config(beside))
    page = file.parent / _PAGE
    if page.is_symlink():  # to whatever on this machine, which would be shared
        raise InputError(
            f"{page} is a link, and only a page itself is shared with its report: copy the page "
            "there, or remove the link"
        )
    split = str(protocol.get("split") or "")
    return Report(file, rows, protocol, places, split, data, page if page.is_file() else None)


def is_report_of(report: Report, checkpoint: Path, step: object) -> bool:
    """Whether a report is of the weights in a checkpoint, as far as it says.

    Args:
        report: what was read.
        checkpoint: the file.
        step: how many steps its training had made.
    """
    steps = report.places.get("steps")
    if steps is not None:  # of a fit that went on from a checkpoint, too
        return steps == step
    named = report.places.get("checkpoint")
    if not isinstance(named, str) or Path(named).name != checkpoint.name:
        return False
    with suppress(OSError, ValueError):  # a file of another machine, or that was moved
        return Path(named).samefile(checkpoint)
    return True


def _data_class(config: Mapping[str, Any]) -> str:
    data = config.get("data")
    for _ in range(2):  # a composed one has the data set inside
        if not isinstance(data, Mapping):
            return ""
        args = data.get("init_args")
        inner = args.get("dataset") if isinstance(args, Mapping) else None
        if not isinstance(inner, Mapping) or "class_path" not in inner:
            break
        data = inner
    return last_word(str(data.get("class_path") or "")) if isinstance(data, Mapping) else ""
