"""The package as it is when it is installed, as a tree of links."""

from __future__ import annotations

import shutil
from importlib import import_module
from pathlib import Path

__all__ = ["lay_out"]

# these lie at the top of the repository
_MAPPED = ("callbacks", "cli_configs", "datamodules")


def lay_out(folder: Path) -> None:
    """Link the files of the ``lit_ssl`` that can be imported here, from a clone or installed.

    Args:
        folder: where ``lit_ssl/`` is laid; what was there is replaced.
    """
    shutil.rmtree(folder, ignore_errors=True)
    package = folder / "lit_ssl"
    package.mkdir(parents=True)
    (home,) = import_module("lit_ssl").__path__
    for entry in Path(home).iterdir():
        if entry.name != "__pycache__" and entry.name not in _MAPPED:
            (package / entry.name).symlink_to(entry)
    for name in _MAPPED:
        (mapped,) = import_module(f"lit_ssl.{name}").__path__
        (package / name).symlink_to(mapped)
