"""Checkpoints of earlier runs: find the newest, read what it says about its modules."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lit_ssl.errors import InputError, did_you_mean

__all__ = [
    "Newest",
    "explain_misfit",
    "find_class",
    "newest_checkpoint",
    "read_checkpoint",
    "run_folders",
]

_MAX_DEPTH = 4
_SHOWN = 3


class Newest(NamedTuple):
    """The newest readable checkpoint, and newer ones that are incomplete."""

    path: Path | None
    damaged: list[Path]


def run_folders(trainer: Mapping[str, Any]) -> list[Path]:
    """Folders where runs with these trainer arguments put their checkpoints.

    Args:
        trainer: arguments of the Trainer as in a config file: ``default_root_dir``, ``logger`` and
            ``callbacks`` are used, classes as ``{class_path, init_args}``.

    Returns:
        Folders on this machine, without those of remote file systems; they need not exist.
    """
    given_root = trainer.get("default_root_dir")
    root = str(given_root or os.getcwd())
    folders = [root] if given_root else [f"{root}/lightning_logs", f"{root}/checkpoints"]
    for logger in _as_list(trainer.get("logger")):
        options = _init_args(logger)
        name = options.get("name", options.get("project", "lightning_logs"))
        parts = [str(options.get("save_dir") or root), name or "", options.get("version") or ""]
        if isinstance(parts[-1], int):
            parts[-1] = f"version_{parts[-1]}"
        if options:
            folders.append("/".join(part for part in parts if part))
    for callback in _as_list(trainer.get("callbacks")):
        if dirpath := _init_args(callback).get("dirpath"):
            folders.append(str(dirpath))
    return [Path(f).expanduser() for f in dict.fromkeys(folders) if "://" not in f]


def newest_checkpoint(folders: Iterable[Path]) -> Newest:
    """The checkpoint that was written last.

    Files that a killed process left incomplete are passed over. Of files written at the same time,
    one called ``last`` wins.

    Args:
        folders: where to look, four levels deep.
    """
    found = {path.absolute() for folder in folders for path in _checkpoints(folder)}
    damaged: list[Path] = []
    for path in sorted(found, key=_age):
        if path.is_dir() or zipfile.is_zipfile(path):
            return Newest(path, damaged)
        damaged.append(path)
    return Newest(None, damaged)


def _age(path: Path) -> tuple[int, bool, str]:
    """Sort key: newest first."""
    return (-path.stat().st_mtime_ns, not path.name.startswith("last"), str(path))


def _checkpoints(folder: Path) -> Iterator[Path]:
    depth = len(folder.parts)
    for parent, children, names in os.walk(folder):
        here = Path(parent)
        # a sharded checkpoint is a folder; nothing inside it is a checkpoint of its own
        yield from (here / name for name in [*children, *names] if name.endswith(".ckpt"))
        deep = len(here.parts) - depth >= _MAX_DEPTH
        children[:] = [c for c in children if not deep and not c.endswith(".ckpt") and c[0] != "."]


def _as_list(value: Any) -> list[Any]:
    if value is None or isinstance(value, bool):
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _init_args(value: Any) -> Mapping[str, Any]:
    options = value.get("init_args") if isinstance(value, Mapping) else None
    return options or {}


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a Lightning checkpoint without executing anything in it; weights stay on the disk.

    Raises:
        InputError: if the file is missing, or no Lightning checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        here = [p.name for p in path.parent.glob("*.ckpt")]
        raise InputError(f"no checkpoint {path}.{did_you_mean(path.name, here)}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{path} cannot be read as a checkpoint: {reason}") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise InputError(f"{path} is no Lightning checkpoint: it has no state_dict.")
    return checkpoint


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
    saved = path.absolute().parent.parent / "config.yaml"
    how = f"give --config {_near(saved)}" if saved.exists() else "repeat them"
    name = model["class_path"].rpartition(".")[2]
    return (
        f"the weights in {_near(path)} do not fit this {name}: {what}. To take the options of that "
        f"run, {how}."
    )


def _near(path: Path) -> str:
    """The path from the working folder, if it lies below it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def _flat(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Options by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def find_class(class_path: str) -> type:
    """Import a class by its full path.

    Args:
        class_path: for example ``lit_ssl.methods.MSN``.

    Raises:
        InputError: if it cannot be imported.
    """
    module, _, name = class_path.rpartition(".")
    if not module:
        raise InputError(
            f"{class_path!r} is no class path; write it as package.module.{class_path}."
        )
    try:
        found = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise InputError(f"class {class_path} cannot be imported: {error}.") from error
    except AttributeError as error:
        valid = [n for n, v in vars(import_module(module)).items() if isinstance(v, type)]
        raise InputError(f"{module} has no class {name!r}.{did_you_mean(name, valid)}") from error
    if not isinstance(found, type):
        raise InputError(f"{class_path} is no class.")
    return found
