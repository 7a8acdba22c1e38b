"""Which code, and which machine, made a result."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from lit_ssl.opening import open_text
from lit_ssl.version import __version__

__all__ = ["made_with"]

_PACKAGES = ("torch", "lightning", "timm")
_SECONDS = 5.0  # that git may take


def made_with(trainer: pl.Trainer) -> dict[str, Any]:
    """The versions and the hardware of a run, for its reports.

    Args:
        trainer: of the run.

    Returns:
        ``lit_ssl``, ``torch``, ``lightning``, ``timm`` and ``python``, their versions; ``commit``,
        of the repository that the package is run from, with a ``+`` where its files have been
        changed since, and None for an installed package; ``device``, what computed; ``processes``,
        how many of them; ``threads``, of torch in each.
    """
    found: dict[str, Any] = {"lit_ssl": __version__, "commit": _commit()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # put there by hand
            found[package] = None
    return {
        **found,
        "python": platform.python_version(),
        "device": _device(trainer.strategy.root_device),
        "processes": trainer.world_size,
        "threads": torch.get_num_threads(),
    }


@cache
def _commit() -> str | None:
    folder = Path(__file__).parents[1]
    # of this file: the package may be installed below somebody's own repository
    if _git(folder, "ls-files", "--error-unmatch", "version.py") is None:
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", "..")
    return commit and commit + "+" * bool(changed)


def _git(folder: Path, *words: str) -> str | None:
    """What git says, None where there is none or it refuses."""
    command = ["git", "-C", str(folder), *words]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _device(device: torch.device) -> str:
    """The name of a card or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _processor() if device.type == "cpu" else str(device)


@cache
def _processor() -> str:
    try:
        with open_text("/proc/cpuinfo") as file:
            lines = [line.partition(":") for line in file]
    except (OSError, UnicodeDecodeError):  # no Linux
        lines = []
    named = (value.strip() for name, _, value in lines if name.strip() == "model name")
    return next(named, "") or platform.processor() or platform.machine()
