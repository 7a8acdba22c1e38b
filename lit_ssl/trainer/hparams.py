"""Hyper-parameters that stay loadable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lit_ssl.trainer.private import built_by_cli

__all__ = ["not_plain"]


def not_plain(**arguments: Any) -> list[str]:
    """Names of the arguments that must stay out of ``save_hyperparameters``.

    Modules and callables inside a checkpoint make it unreadable under ``weights_only=True``. When
    LightningCLI builds the module, Lightning stores the parsed configuration (class path and
    arguments) instead of the objects; then nothing needs to be left out.

    Args:
        **arguments: of the module, by their names.
    """
    if built_by_cli():
        return []
    return [name for name, value in arguments.items() if not _is_plain(value)]


def _is_plain(value: Any) -> bool:
    if value is None or isinstance(value, bool | int | float | str):
        return True
    if isinstance(value, Mapping):
        return all(_is_plain(item) for item in value.values())
    return isinstance(value, Sequence) and all(_is_plain(item) for item in value)
