"""How much hyper-parameters stand for, before anything is built of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lit_ssl.errors import InputError

__all__ = ["ExtentError", "check_extent", "check_hparams"]

_PLACES = (
    "hyper_parameters", "datamodule_hyper_parameters", "hparams", "module_arguments"
)  # fmt: skip
_MOST = 100_000  # values, where some stand in several places
_DEEPEST = 50
_LONGEST = 100_000  # characters; each is looked at as a name, a file and YAML


class ExtentError(InputError):
    """Hyper-parameters stand for too much."""


def check_hparams(content: Mapping[str, Any], path: object) -> None:
    """Check all hyper-parameters in a checkpoint; see ``check_extent``.

    Args:
        content: what the file holds.
        path: the file, for the message.
    """
    for key in _PLACES:
        check_extent(content.get(key), path)


def check_extent(hparams: object, path: object) -> None:
    """Refuse hyper-parameters that stand for far more than a file has in it.

    One list that stands in a list ten times, and that one in another, is a billion values after
    nine rounds. What builds modules copies what it gets, so the sum counts, not the file.

    Args:
        hparams: as stored.
        path: the file, for the message.

    Raises:
        ExtentError: if lists or mappings that stand in several places make too much, or hold
            themselves; if they are nested too deeply, or a text is too long.
    """
    sizes: dict[int, int] = {}
    open_values: set[int] = set()
    repeated = 0

    def size(value: Any, depth: int) -> int:
        nonlocal repeated
        if isinstance(value, str | bytes) and len(value) > _LONGEST:
            raise ExtentError(
                f"{path} has hyper-parameters with a text of {len(value):,} characters, which no "
                "option takes"
            )
        if not isinstance(value, Mapping | list | tuple | set | frozenset):
            return 1
        key = id(value)
        if key in open_values:
            raise ExtentError(f"{path} has hyper-parameters that hold themselves")
        if depth > _DEEPEST:
            raise ExtentError(f"{path} has hyper-parameters that are nested too deeply")
        if key in sizes:
            repeated += sizes[key]
            return sizes[key]
        open_values.add(key)
        parts = [*value.keys(), *value.values()] if isinstance(value, Mapping) else value
        sizes[key] = 1 + sum(size(part, depth + 1) for part in parts)
        open_values.discard(key)
        if repeated > _MOST:
            raise ExtentError(
                f"{path} has hyper-parameters whose parts stand for more than {_MOST:,} values, "
                "by standing in many places"
            )
        return sizes[key]

    size(hparams, 0)
