"""``--ckpt_path``: the newest checkpoint, the options that it knows, and why it does not fit."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import yaml

from lit_ssl.checkpoints.classes import ForeignClassError, Names
from lit_ssl.checkpoints.files import read_checkpoint
from lit_ssl.checkpoints.newest import PassedOver, newest_checkpoint
from lit_ssl.cli.objects import class_parser
from lit_ssl.cli.output import short, tell
from lit_ssl.errors import InputError
from lit_ssl.seeding import run_seed
from lit_ssl.trainer.private import option_types
from lit_ssl.yaml_text import YAMLError, load_yaml

__all__ = [
    "explain_misfit",
    "is_file_here",
    "last_checkpoint",
    "line_after_nonfinite",
    "line_that_resumes",
    "run_folders",
    "stored_model",
]

_SHOWN = 3


def is_file_here(path: str | None) -> bool:
    """Whether a ``--ckpt_path`` names one file of this machine, to be read before the run.

    Args:
        path: the option's value; None where it was not set.
    """
    if path is None or path in ("best", "hpc") or path.startswith("registry") or "://" in path:
        return False
    return not os.path.isdir(path)


def last_checkpoint(trainer: Mapping[str, Any], command: str) -> str | None:
    """What ``--ckpt_path last`` stands for, and tell it.

    Args:
        trainer: arguments of the Trainer, see ``run_folders``.
        command: ``fit`` starts from scratch where there is none, the others cannot.

    Raises:
        InputError: if there is no checkpoint, and the command needs one; or if all are damaged.
    """
    folders = run_folders(trainer)
    root = str(trainer.get("default_root_dir") or os.getcwd())
    if trainer.get("logger") is False and command != "fit" and "://" not in root:
        # an evaluation that logs nothing, as of a preset: the training may have had any logger
        folders += [Path(folder) for folder in _logger_folders("", root)[1:]]
    path, damaged = newest_checkpoint([*folders, *_saved_for_slurm(root)])
    where = " or ".join(map(short, folders))
    files = [one for one in damaged if one.path.name.endswith(".ckpt")]
    if path is None and files:
        raise InputError(_all_damaged(files, where, command))
    for file, why in damaged:
        tell(f"passing over {short(file)}: {why}")
    if path is not None:
        tell(f"--ckpt_path last: {short(path)}")
        return str(path)
    if command != "fit":
        raise InputError(f"--ckpt_path last: no checkpoint under {where}.")
    tell(f"--ckpt_path last: no checkpoint under {where}, starting from scratch")
    return None


def _all_damaged(files: Sequence[PassedOver], where: str, command: str) -> str:
    newest, why = files[0]
    more = f", and so are {len(files) - 1} more" if len(files) > 1 else ""
    instead = ", or leave it out to start from scratch" if command == "fit" else ""
    return (
        f"--ckpt_path last: no checkpoint under {where} can be used: {short(newest)}: {why}{more};"
        f" give another --ckpt_path{instead}"
    )


def line_that_resumes(
    words: Sequence[str], trainer: pl.Trainer, started: float, finds_itself: bool = False
) -> str:
    """What to tell a person who has stopped a training.

    Args:
        words: those of the command line, after ``lit-ssl``.
        trainer: its checkpoints count if they were written in this run.
        started: when it began, in seconds since the epoch.
        finds_itself: the same command goes on by itself, with ``auto_resume``.
    """
    folders = [Path(d) for c in trainer.checkpoint_callbacks if (d := getattr(c, "dirpath", None))]
    files = [file for folder in folders for file in folder.rglob("[!.]*.ckpt")]
    files += _saved_for_slurm(trainer.default_root_dir)
    # other runs may have written into the same folder
    newest = newest_checkpoint(file for file in files if _is_since(file, started)).path
    path = short(newest) if newest is not None else trainer.ckpt_path
    if path is None:
        return "stopped before a checkpoint was written"
    step = f"step {trainer.global_step}"
    if finds_itself:
        return f"stopped at {step}; to go on: {shlex.join(['lit-ssl', *words])}"
    kept, skip = [], False
    for word in words:
        if not skip and word != "--ckpt_path" and not word.startswith("--ckpt_path="):
            kept.append(word)
        skip = word == "--ckpt_path"
    return (
        f"stopped at {step}; to go on: {shlex.join(['lit-ssl', *kept, '--ckpt_path', str(path)])}"
    )


def line_after_nonfinite(
    words: Sequence[str], trainer: pl.Trainer, started: float, finds_itself: bool = False
) -> str:
    """What to tell a person whose training has stopped at a number that is none.

    The same data in the same order would most likely end alike, so another seed of theirs goes
    along, where they have one.

    Args:
        words: those of the command line, after ``lit-ssl``.
        trainer: see ``line_that_resumes``.
        started: likewise.
        finds_itself: likewise; the same command would repeat the same steps, so this is left out.
    """
    if finds_itself:
        words = [*words, "--auto_resume=false"]
    line = line_that_resumes(words, trainer, started)
    data = trainer.datamodule  # type: ignore[attr-defined]
    if "--ckpt_path" not in line or not hasattr(data, "seed"):
        return line
    seed = run_seed(data.seed) + 1
    return f"{line} --data.seed {seed} (the data then come in another order)"


def _is_since(path: Path, started: float) -> bool:
    try:
        return path.stat().st_mtime >= started
    except OSError:  # removed meanwhile, or a link that leads nowhere
        return False


def _saved_for_slurm(root: str) -> list[Path]:
    """Checkpoints that a job has left which SLURM ended; they lie in ``default_root_dir``."""
    return [] if "://" in root else list(Path(root).glob("hpc_ckpt_*.ckpt"))


def stored_model(
    path: str, asked: str | None, given: Collection[str], names: Names
) -> tuple[str, dict[str, Any]] | None:
    """Class path and options of the model in a checkpoint, as far as nobody has given others.

    Args:
        path: the checkpoint.
        asked: class path of the model that the user names, if any.
        given: options that the user gives.
        names: what the checkpoint may name.

    Returns:
        None if the checkpoint does not tell (its module was made in Python) or is of another class.

    Raises:
        InputError: if the checkpoint names a class that it must not name.
    """
    stored = dict(read_checkpoint(path).get("hyper_parameters", {}))
    class_path = stored.pop("_class_path", None)
    if class_path is None:
        return None
    try:
        model_class = names.find(class_path)
    except ForeignClassError:
        if asked is None:
            raise
        return None
    if asked is not None and names.find(asked) is not model_class:
        return None
    stored = {name: value for name, value in stored.items() if name not in given}
    names.check(stored)
    accepted = option_types(class_parser(model_class))
    return class_path, {name: value for name, value in stored.items() if name in accepted}


def run_folders(trainer: Mapping[str, Any]) -> list[Path]:
    """Folders where runs with these trainer arguments put their checkpoints.

    Args:
        trainer: arguments of the Trainer as in a config file: ``default_root_dir``, ``logger`` and
            ``callbacks`` are used, classes as ``{class_path, init_args}``.

    Returns:
        Folders on this machine, without those of remote file systems; they need not exist. For
        loggers other than TensorBoard's and the CSV logger also those of runs that are there.
    """
    given_root = trainer.get("default_root_dir")
    root = str(given_root or os.getcwd())
    folders = [root] if given_root else [f"{root}/lightning_logs", f"{root}/checkpoints"]
    for logger in _as_list(trainer.get("logger")):
        folders += _logger_folders(logger, root)
    for callback in _as_list(trainer.get("callbacks")):
        if dirpath := _init_args(callback).get("dirpath"):
            folders.append(str(dirpath))
    return [Path(f).expanduser() for f in dict.fromkeys(folders) if "://" not in f]


def _logger_folders(logger: Any, root: str) -> list[str]:
    """Where Lightning puts the checkpoints of a logger's runs: ``save_dir/name/version``."""
    options = _init_args(logger)
    kind = str(logger.get("class_path") if isinstance(logger, Mapping) else logger)
    save_dir = str(options.get("save_dir") or options.get("dir") or root)
    version = options.get("version") or options.get("id") or ""
    version = f"version_{version}" if isinstance(version, int) else str(version)
    if kind.rpartition(".")[2] in ("TensorBoardLogger", "CSVLogger"):
        name = options.get("name", "lightning_logs") or ""
        return ["/".join(part for part in (save_dir, name, version) if part)] if options else []
    # What others call name and version is theirs, often the number of an experiment (MLflow) or
    # the project (Weights & Biases): all that look like runs, of one project if it is given.
    project = options.get("project") or options.get("experiment_name")
    folders = [f"{save_dir}/{project or 'lightning_logs'}"]
    if "://" not in save_dir:
        place = Path(save_dir).expanduser()
        for depth in ("", "*/"):
            runs = place.glob(f"{depth}{project or '*'}/{version or '*'}/checkpoints")
            folders += sorted(str(run) for run in runs)
    return folders


def _as_list(value: Any) -> list[Any]:
    if value is None or isinstance(value, bool):
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _init_args(value: Any) -> Mapping[str, Any]:
    options = value.get("init_args") if isinstance(value, Mapping) else None
    return options or {}


def explain_misfit(path: str | Path, model: Mapping[str, Any]) -> str:
    """Say why the weights of a checkpoint do not fit a module, as far as its options tell.

    Args:
        path: the checkpoint.
        model: ``class_path`` and ``init_args`` of the module.

    Returns:
        One line: what differs, and how to repeat the options of the run that wrote the checkpoint.
    """
    path = Path(path)
    stored = dict(read_checkpoint(path).get("hyper_parameters", {}))
    there = _flat({"class_path": stored.pop("_class_path", model["class_path"]), **stored})
    here = _flat({"class_path": model["class_path"], **(model.get("init_args") or {})})
    different = [
        f"{name} is {here.get(name)!r}, there {value!r}"
        for name, value in there.items()
        if not name.startswith("_") and here.get(name) != value
    ]
    what = "; ".join(different[:_SHOWN]) or "its options are the same"
    saved = _config_of(path, there)
    how = "repeat them" if saved is None else f"give --config {short(saved)}"
    name = model["class_path"].rpartition(".")[2]
    return (
        f"the weights in {short(path)} do not fit this {name}: {what}. To take the options of that "
        f"run, {how}."
    )


def _config_of(path: Path, options: Mapping[str, Any]) -> Path | None:
    """The saved configuration with the options of a checkpoint; runs may share a folder of them."""
    place = path.absolute().parent.parent
    for saved in (place / "config.yaml", *sorted(place.glob("lit_ssl_runs/*/config.yaml"))):
        if not saved.is_file():
            continue
        try:
            model = load_yaml(saved.read_text(encoding="utf-8"))["model"]
            found = _flat({"class_path": model["class_path"], **model["init_args"]})
        except (yaml.YAMLError, YAMLError, OSError, UnicodeDecodeError, TypeError, KeyError):
            continue  # a person's own, not of a run
        if all(found[name] == value for name, value in options.items() if name in found):
            return saved
    return None


def _flat(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Options by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
