"""Runs found below some places: their configs, reports and logged metrics."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from lit_ssl.errors import InputError, InputFileNotFoundError
from lit_ssl.files import describe_folder
from lit_ssl.runs.configs import CONFIGS, Flat, read_config
from lit_ssl.runs.last_metrics import METRICS, last_metrics
from lit_ssl.runs.reports import REPORTS, Measurement, plain, read_measurement

__all__ = ["Found", "find_runs"]

_DEEPEST = 8
_MOST = 20_000  # folders
_NOT_ENTERED = ("checkpoints", "views", "pictures", "node_modules", "__pycache__")
_ABOVE = 3  # folders, up to which the config of a report is looked for

Say = Callable[[str], object]


class Found(NamedTuple):
    """A file with numbers, and of which run it is.

    Attributes:
        measurement: the numbers.
        config: of the run; None where none was found.
        config_file: its file.
        age: when the file with the numbers was written, seconds.
    """

    measurement: Measurement
    config: Flat | None
    config_file: Path | None
    age: float


def find_runs(places: Sequence[str | Path], say: Say) -> list[Found]:
    """Read all reports at and below some places, and what runs without any report have logged.

    Args:
        places: folders of runs, folders above several, or files with a report.
        say: called with one line for what is left out.

    Returns:
        In the order of the places, each file once.

    Raises:
        InputError: a place is missing or holds no numbers, or one of its files cannot be read.
    """
    found: dict[tuple[Path, str], Found] = {}
    configs: dict[Path, Flat] = {}
    for place in places:
        count = len(found)
        for one in _below(Path(place), configs, say):
            found.setdefault((one.measurement.file.resolve(), one.measurement.title), one)
        if len(found) == count and not any(_is_below(file, place) for file, _ in found):
            raise _nothing(Path(place))
    return list(found.values())


def _nothing(place: Path) -> InputError:
    if place.is_dir() and any(place.glob("**/events.out.tfevents.*")):
        return InputError(
            f"{place} holds no results but TensorBoard's curves, which are not compared: evaluate "
            "its checkpoint, such as lit-ssl test --config RECIPE --config eval/PRESET --ckpt_path "
            "last, or log to CSVLogger"
        )
    return InputError(
        f"{place} holds no results: expected {', '.join(REPORTS)} or {METRICS} in it or below. "
        f"Found: {describe_folder(place)}"
    )


def _is_below(file: Path, place: str | Path) -> bool:
    return file.is_relative_to(Path(place).resolve())


def _below(place: Path, configs: dict[Path, Flat], say: Say) -> Iterator[Found]:
    if place.is_dir():
        folders = dict(_folders(place, say))
        reports = [
            folder / name for folder in folders for name in REPORTS if name in folders[folder]
        ]
        logs = [folder / METRICS for folder in folders if METRICS in folders[folder]]
        homes = [folder for folder in folders if any(name in folders[folder] for name in CONFIGS)]
    elif place.is_file():
        is_log = place.name == METRICS
        reports, logs, homes = [] if is_log else [place], [place] if is_log else [], []
    else:
        raise InputFileNotFoundError(f"there is no {place}; {describe_folder(place)}")
    with_report: set[Path | None] = set()
    for file in reports:
        measurement = read_measurement(file)
        home = _home(measurement, homes, configs)
        with_report.add(home)
        yield _found(measurement, home, configs)
    for file in logs:
        if file.parent in with_report:
            continue
        home = file.parent if _config_in(file.parent) else None
        config = {} if home is None else _config_of(home, configs)
        data = plain(config.get("data.dataset") or config.get("data") or "data")
        measurements = [one._replace(title=f"{data}, {one.title}") for one in last_metrics(file)]
        if not measurements:
            say(f"{file} has no metrics val/… or test/…, and is left out")
        for measurement in measurements:
            yield _found(measurement, home, configs)


def _folders(place: Path, say: Say) -> Iterator[tuple[Path, set[str]]]:
    """Folders and the names of their files; those of weights and pictures are not entered."""
    for count, (folder, names, files) in enumerate(os.walk(place, onerror=_closed)):
        depth = len(Path(folder).relative_to(place).parts)
        names[:] = sorted(name for name in names if name[0] != "." and name not in _NOT_ENTERED)
        for name in names:
            link = Path(folder, name)
            if link.is_symlink() and not link.resolve().is_relative_to(place.resolve()):
                say(f"{link} is a link to a folder elsewhere, and is left out: name it")
        if depth >= _DEEPEST and names:
            say(f"{folder} has folders that lie too deep, and are left out: name those of the runs")
            names.clear()
        if count >= _MOST:
            raise InputError(f"{place} has more than {_MOST:,} folders: name those of the runs")
        yield Path(folder), set(files)


def _closed(error: OSError) -> None:
    raise InputError(f"cannot look into {error.filename} ({error.strerror}): make it readable")


def _found(measurement: Measurement, home: Path | None, configs: dict[Path, Flat]) -> Found:
    config = None if home is None else _config_of(home, configs)
    file = None if home is None else _config_in(home)
    return Found(measurement, config, file, measurement.file.stat().st_mtime)


def _config_in(folder: Path) -> Path | None:
    return next((folder / name for name in CONFIGS if (folder / name).is_file()), None)


def _config_of(folder: Path, configs: dict[Path, Flat]) -> Flat:
    if folder not in configs:
        file = _config_in(folder)
        assert file is not None
        configs[folder] = read_config(file)
    return configs[folder]


def _home(
    measurement: Measurement, homes: Sequence[Path], configs: dict[Path, Flat]
) -> Path | None:
    """The folder with the config of the run that a report is about, None where there is none.

    It is that of the training whose checkpoint was evaluated; else the one beside the report, the
    only one below it, the nearest above it.
    """
    file = measurement.file
    for trained in _trainings(measurement):
        if _config_in(trained):
            return trained
    if _config_in(file.parent):
        return file.parent
    below = [home for home in homes if home.is_relative_to(file.parent)]
    if below and all(_config_of(home, configs) == _config_of(below[0], configs) for home in below):
        return below[0]
    if below:
        raise InputError(
            f"{file} does not say of which of the {len(below)} runs below it it is: lay it beside "
            "the config.yaml of its run"
        )
    above = file.absolute().parents[1 : 1 + _ABOVE]
    return next((folder for folder in above if _config_in(folder)), None)


def _trainings(measurement: Measurement) -> Iterator[Path]:
    """Folders in which the run of a checkpoint may lie, also where all of it was moved."""
    if measurement.checkpoint is None or "://" in measurement.checkpoint:
        return
    checkpoint = Path(measurement.checkpoint)
    if checkpoint.is_absolute():  # else nobody knows from where
        yield from checkpoint.parents[:2]
    parts = checkpoint.parts[1:] if checkpoint.is_absolute() else checkpoint.parts
    for anchor in measurement.file.absolute().parents[: _ABOVE + 1]:
        for start in range(len(parts) - 2):  # the longest part of the path first
            yield from (anchor.joinpath(*parts[start:])).parents[:2]
