"""``--auto_resume``: the run of the same command that a scheduler has ended, to go on with it."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lit_ssl.checkpoints.files import read_checkpoint
from lit_ssl.checkpoints.newest import newest_checkpoint
from lit_ssl.cli.output import short, tell
from lit_ssl.errors import InputError, listed
from lit_ssl.files import read_text
from lit_ssl.trainer.claims import holder, last_run_in
from lit_ssl.trainer.run_lock import RUN
from lit_ssl.yaml_text import YAMLError, load_yaml

__all__ = ["Earlier", "earlier_run", "home_without_logger", "with_true_flag"]

_CONFIG = "config.yaml"
# What a resumed run may have otherwise: how it is executed (old configurations say it elsewhere).
_NOT_COMPARED = ("ckpt_path", "global_batch", "model.init_args.channels_last")
_NOT_COMPARED_BELOW = "execution."
_SHOWN = 3


class Earlier(NamedTuple):
    """An earlier run of the same configuration: its folder, and where to go on from.

    Attributes:
        folder: of the run.
        checkpoint: its newest; None where it has left none.
        finished: step at which it came to its end; None: it did not.
        seed: of the run.
    """

    folder: Path
    checkpoint: Path | None
    finished: int | None  # step at which it came to its end
    seed: Any


def with_true_flag(words: Sequence[str]) -> list[str]:
    """The words, where ``--auto_resume`` without a value behind it is ``--auto_resume=true``.

    Args:
        words: the words after ``lit-ssl``.
    """
    return [
        f"{word}=true"
        if word == "--auto_resume" and (words[place + 1 : place + 2] or ["-"])[0].startswith("-")
        else word
        for place, word in enumerate(words)
    ]


def earlier_run(config: Mapping[str, Any]) -> Earlier | None:
    """The newest run with this configuration that is finished or has left a checkpoint, if any.

    All that ``config.yaml`` keeps is compared but ``ckpt_path``, ``global_batch``, how the run is
    executed, and the seed where a random one was asked for. Options that an earlier version did not
    have count as their defaults. Runs with another configuration are left alone; a line says in
    what the newest of them differs.

    Args:
        config: That of the command, with all defaults, as plain values.

    Raises:
        InputError: If no folder belongs to one run alone, if without a logger it is that of a
            run with another configuration, or if the run is still going.
    """
    trainer = config["trainer"]
    different = ""
    is_home = home_without_logger(trainer) is not None  # which the run is going to lock
    for folder in _folders(trainer):
        there = _read(folder / _CONFIG)
        if there is None:
            if any((folder / "checkpoints").glob("*.ckpt")):
                tell(
                    f"--auto_resume: passing over {short(folder)}: its {_CONFIG}, by which a run "
                    "is known, cannot be read"
                )
            continue
        differences = _differences(config, there)
        if differences:
            different = different or (
                f"{short(folder)} is of a run with another configuration ({differences})"
            )
            continue
        known = last_run_in(folder)
        checkpoint = _newest_of(folder, known.get("run"), trainer)
        if known.get("finished") is not None or checkpoint is not None:
            return Earlier(folder, checkpoint, known.get("finished"), there.get("seed_everything"))
        if _is_first() and not is_home and (who := holder(folder)) is not None:
            raise InputError(
                f"--auto_resume: {short(folder)} is of this command, which is still going ({who}): "
                "wait for its end"
            )
    if different and is_home:
        raise InputError(f"--auto_resume: {different}; give another --trainer.default_root_dir")
    if different:
        tell(f"--auto_resume: {different}; a new run starts")
    return None


def _is_first() -> bool:
    """Whether this is the process that locks folders; others would find its locks."""
    return getattr(rank_zero_only, "rank", None) in (None, 0)


def home_without_logger(trainer: Mapping[str, Any]) -> Path | None:
    """The folder of a run that logs nothing; None where a logger keeps one for each run.

    Args:
        trainer: the options of the trainer, as they were parsed.

    Raises:
        InputError: if nothing is logged and ``default_root_dir`` is no folder of this machine.
    """
    if trainer.get("logger") is not False:
        return None
    root = trainer.get("default_root_dir")
    if not root or "://" in str(root):
        raise InputError(
            "--auto_resume needs a folder that belongs to this run: give a "
            "--trainer.default_root_dir on this machine, or a logger that keeps one for each run "
            "(TensorBoardLogger, CSVLogger)"
        )
    return Path(root).expanduser()


def _folders(trainer: Mapping[str, Any]) -> list[Path]:
    """The folders of the runs that are there, newest first."""
    home = home_without_logger(trainer)
    if home is not None:
        return [home]
    folders = [path for path in _logger_root(trainer).glob("*/") if (path / _CONFIG).is_file()]
    return sorted(folders, key=_age, reverse=True)


def _age(folder: Path) -> tuple[int, str]:
    number = folder.name.removeprefix("version_")
    return (int(number) if number.isdigit() else -1, folder.name)


def _logger_root(trainer: Mapping[str, Any]) -> Path:
    """Where the first logger keeps the folders of its runs."""
    root = str(trainer.get("default_root_dir") or os.getcwd())
    logger = trainer.get("logger")
    first = logger[0] if isinstance(logger, list) else logger
    save_dir, name = root, "lightning_logs"
    if isinstance(first, Mapping):
        kind = str(first.get("class_path")).rpartition(".")[2]
        if kind not in (TensorBoardLogger.__name__, CSVLogger.__name__):
            raise InputError(
                f"--auto_resume needs a logger that keeps a folder for each run, and {kind} keeps "
                "none: put TensorBoardLogger or CSVLogger first among the loggers, or use "
                "--ckpt_path last"
            )
        options = first.get("init_args") or {}
        save_dir, name = str(options.get("save_dir") or root), options.get("name", name) or ""
    if "://" in save_dir:
        raise InputError(f"--auto_resume needs logs on this machine, not {save_dir}")
    return Path(os.path.expandvars(save_dir)).expanduser() / name


def _read(path: Path) -> dict[str, Any] | None:
    """A saved configuration; None if there is none to read."""
    try:
        content = load_yaml(read_text(path))
    except (InputError, yaml.YAMLError, YAMLError):
        return None
    return content if isinstance(content, dict) else None


def _differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> str:
    """What is not the same, in words; empty if all is."""
    flat_here, flat_there = dict(_flat(here)), dict(_flat(_with_new_options(there, here)))
    if here.get("seed_everything") is True:  # a random one, which the other has written down
        flat_here["seed_everything"] = flat_there.get("seed_everything")
    names = [
        name
        for name in {**flat_here, **flat_there}
        if name not in _NOT_COMPARED and not name.startswith(_NOT_COMPARED_BELOW)
    ]
    different = [
        f"{name} is {flat_here.get(name, 'not set')!r}, there {flat_there.get(name, 'not set')!r}"
        for name in names
        if name not in flat_here or name not in flat_there or flat_here[name] != flat_there[name]
    ]
    return listed(different, _SHOWN)


def _with_new_options(there: Any, here: Any) -> Any:
    """A saved configuration with the defaults of options that its version did not have."""
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        return [_with_new_options(*pair) for pair in zip(there, here, strict=True)]
    if not isinstance(there, Mapping) or not isinstance(here, Mapping):
        return there
    whole = {k: _with_new_options(v, here[k]) if k in here else v for k, v in there.items()}
    name, options = here.get("class_path"), here.get("init_args")
    if isinstance(options, Mapping) and isinstance(name, str) and there.get("class_path") == name:
        saved = whole.get("init_args") or {}
        new = {k: v for k, v in options.items() if k not in saved and _is_default(name, k, v)}
        whole["init_args"] = {**saved, **new}
    return whole


def _is_default(class_path: str, option: str, value: Any) -> bool:
    module, _, name = class_path.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return False
    for kind in getattr(found, "__mro__", ()):  # options of a parent are passed on to it
        known = inspect.signature(kind.__init__).parameters.get(option)
        if known is not None and known.kind is not known.VAR_KEYWORD:
            return bool(known.default == value)
    return False


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _newest_of(folder: Path, run: str | None, trainer: Mapping[str, Any]) -> Path | None:
    """The newest checkpoint of a run: in its folder, or elsewhere under its name."""
    root = Path(trainer.get("default_root_dir") or os.getcwd())
    callbacks = trainer.get("callbacks") or []
    callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
    options = [c.get("init_args") or {} for c in callbacks if isinstance(c, Mapping)]
    elsewhere = [Path(o["dirpath"]) for o in options if o.get("dirpath")]
    inside = folder / "checkpoints"
    found = [
        inside,
        *(f for e in elsewhere for f in e.rglob("[!.]*.ckpt")),
        *root.glob("hpc_ckpt_*"),
    ]
    own = [path for path in found if path == inside or _is_of(path, run)]
    newest = newest_checkpoint(own)
    if newest.path is None and newest.damaged:
        raise InputError(
            f"--auto_resume: {short(folder)} has only damaged checkpoints "
            f"({listed([short(file) for file, _ in newest.damaged])}); remove them to start anew"
        )
    for file, why in newest.damaged:
        tell(f"passing over {short(file)}: {why}")
    return newest.path


def _is_of(path: Path, run: str | None) -> bool:
    try:
        return run is not None and read_checkpoint(path).get(RUN) == run
    except InputError:  # damaged
        return False
