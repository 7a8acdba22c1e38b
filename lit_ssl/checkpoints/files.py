"""Checkpoints of earlier runs: find the newest, read what it says about its modules."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lit_ssl.errors import InputError, did_you_mean

__all__ = [
    "Newest",
    "find_class",
    "newest_checkpoint",
    "read_checkpoint",
]

_MAX_DEPTH = 4


class Newest(NamedTuple):
    """The newest readable checkpoint, and newer ones that are incomplete."""

    path: Path | None
    damaged: list[Path]


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
