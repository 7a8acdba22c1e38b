"""What a run left in its folder, for pages: curves, pictures, configuration."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lit_ssl.errors import InputError
from lit_ssl.files import read_text
from lit_ssl.runs.curves import Curve, has_curves, read_curves
from lit_ssl.trainer.lost_files import may_be_lost

__all__ = ["RunRecords", "config_of", "log_folders", "read_records", "training_folder"]

_CONFIG = "config.yaml"
_LOOKED_AT = 2000  # files, before a folder is taken for something else than a run's
_LONGEST = 200_000  # characters of a configuration
_SECRET = re.compile(
    r"(?im)^([ -]*(?:[\w-]*[_-])?(?:tokens?|secrets?|pass(?:word|wd)?|credentials?"
    r"|(?:api|access|private|secret)_?key): *)(?!null\s*$|true\s*$|false\s*$|[-\d.e+]+\s*$)\S.*$"
)
_USER = re.compile(r"(?<=://)[^/\s@]+@")


class RunRecords(NamedTuple):
    """What is known of a run by its folder.

    Attributes:
        folder: of the run.
        curves: by metric.
        pictures: the last one of each kind, and how many there are of it.
        config: text of its ``config.yaml``; None where there is none.
        notes: what could not be read.
    """

    folder: Path
    curves: dict[str, Curve]
    pictures: list[tuple[Path, int]]
    config: str | None
    notes: list[str]


def training_folder(checkpoint: str | None) -> Path | None:
    """The folder of the run that wrote a checkpoint, where its files show it.

    Args:
        checkpoint: a file; Lightning keeps it in the folder ``checkpoints`` of the run's.
    """
    if not checkpoint or "://" in checkpoint or not Path(checkpoint).exists():
        return None
    beside = Path(checkpoint).resolve().parent
    for place in (beside, beside.parent):
        if has_curves(place) or (place / _CONFIG).is_file():
            return place
    return None


def log_folders(trainer: pl.Trainer) -> list[Path]:
    """The folders in which the loggers of a trainer keep curves in files, written up to now.

    Args:
        trainer: the running trainer, on rank zero.
    """
    folders = []
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger | CSVLogger) and "://" not in str(logger.log_dir):
            folders.append(Path(logger.log_dir))
            with may_be_lost(trainer, "the last points of the curves"):
                if isinstance(logger, CSVLogger):
                    logger.save()
                else:
                    logger.experiment.flush()
    return [folder for folder in dict.fromkeys(folders) if has_curves(folder)]


def read_records(folder: Path) -> RunRecords:
    """Read what a run left.

    Args:
        folder: of the run.
    """
    notes: list[str] = []
    curves = read_curves(folder, notes.append)
    text = None
    if not (folder / _CONFIG).is_symlink():  # of a foreign run, it could lead to any file
        with suppress(InputError):  # not there, or no text
            text = shown_config(read_text(folder / _CONFIG))
    return RunRecords(folder, curves, _pictures(folder), text, notes)


def _pictures(folder: Path) -> list[tuple[Path, int]]:
    """The last picture of each kind: of names that differ in their numbers alone."""
    kinds: dict[tuple[Path, str], list[Path]] = {}
    found = [*islice(folder.glob("*.png"), _LOOKED_AT), *islice(folder.glob("*/*.png"), _LOOKED_AT)]
    for path in (path for path in found if not path.is_symlink()):
        kinds.setdefault((path.parent, re.sub(r"\d+", "#", path.stem)), []).append(path)
    return [(max(paths, key=_order), len(paths)) for _, paths in sorted(kinds.items())]


def _order(path: Path) -> tuple[list[int], str]:
    return [int(number[:18]) for number in re.findall(r"\d+", path.stem)], path.name


def shown_config(text: str) -> str:
    """A configuration without secrets, cut where it is longer than anybody reads.

    What is called a token, password or key and is no number, and users in URLs, are left out.

    Args:
        text: YAML.
    """
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}\n… (cut)"
    return _USER.sub("", _SECRET.sub(r"\1removed", text))


def config_of(trainer: pl.Trainer) -> str | None:
    """The configuration that ``lit-ssl`` runs with, as YAML; None for runs from Python.

    Args:
        trainer: the running trainer.
    """
    from lightning.pytorch.cli import SaveConfigCallback

    callbacks: Sequence[Any] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        if isinstance(callback, SaveConfigCallback):
            with warnings.catch_warnings():  # skip_none has another name since jsonargparse 4.49
                warnings.simplefilter("ignore", DeprecationWarning)
                return shown_config(callback.parser.dump(callback.config, skip_none=False))
    return None
