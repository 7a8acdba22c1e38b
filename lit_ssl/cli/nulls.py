"""A null that is typed for an option deep inside a model or data module.

jsonargparse hands such values on as text, and ``null`` would arrive as the word ``None``, which it
refuses, or, where text is allowed, takes. A mapping arrives as it is, so they are written as one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from lit_ssl.cli.composing import plain_name, read_entries
from lit_ssl.yaml_text import YAMLError, load_yaml

__all__ = ["with_whole_nulls"]

_OBJECTS = ("model", "data")


def with_whole_nulls(words: Sequence[str]) -> list[str]:
    """The words, where ``--model.net.layer_scale=null`` is ``--model={"net": {...: null}}``.

    So is every value with a null in it, of an option at least two objects deep.

    Args:
        words: the words after ``lit-ssl``.
    """
    result: list[str | None] = list(words)
    for entry in read_entries(words):
        top, *path = plain_name(entry.name).split(".")
        if top not in _OBJECTS or len(path) < 2 or entry.name.endswith("+"):
            continue
        try:
            value = load_yaml(entry.value) if isinstance(entry.value, str) else entry.value
            if entry.file is not None or not _has_null(value, entry.value):
                continue
            for name in reversed(path):
                value = {name: value}
            text = f"--{top}={json.dumps(value)}"
        except (
            yaml.YAMLError,
            YAMLError,
            TypeError,
        ):  # no YAML, or no JSON: the parser reads it as it is
            continue
        if "=" not in words[entry.position]:
            result[entry.position + 1] = None
        result[entry.position] = text
    return [word for word in result if word is not None]


def _has_null(value: Any, typed: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_has_null(inner, None) for inner in value.values())
    if isinstance(value, list):
        return any(_has_null(inner, None) for inner in value)
    return value is None and typed != ""
