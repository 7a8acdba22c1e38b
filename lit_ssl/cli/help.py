"""What ``--help`` and ``--model.help`` print."""

from __future__ import annotations

import re
from argparse import Action
from collections.abc import Sequence

from jsonargparse import DefaultHelpFormatter

from lit_ssl.cli.composing import plain_name, read_entries
from lit_ssl.errors import InputError

__all__ = ["ShortHelp", "with_class_to_help"]

_ALL_SHOWN = 12
_NONE_SHOWN = 100  # all the layers of torch and timm


class ShortHelp(DefaultHelpFormatter):
    """Help that names this package's classes, not all that other packages have."""

    def _expand_help(self, action: Action) -> str:
        return re.sub(r"(, known subclasses: )([^)]*)", _shorten, super()._expand_help(action))


def _shorten(match: re.Match[str]) -> str:
    names = match[2].split(", ")
    if len(names) <= _ALL_SHOWN:
        return match[0]
    ours = [name for name in names if name.startswith("lit_ssl.")]
    return f"{match[1]}{', '.join(ours)}, …" if ours and len(names) <= _NONE_SHOWN else ""


def with_class_to_help(words: Sequence[str]) -> list[str]:
    """The words, with the class that was named before behind an option such as ``--data.help``.

    Args:
        words: the words after ``lit-ssl``.

    Raises:
        InputError: where the help of model or data is asked for, and no class was named.
    """
    for place, word in enumerate(words):
        if not word.startswith("--") or not word.endswith(".help"):
            continue
        if place + 1 < len(words) and not words[place + 1].startswith("-"):
            continue
        path = plain_name(word.removeprefix("--").removesuffix(".help"))
        named = None
        for entry in read_entries(words[:place]):
            for name, value in entry.leaves():
                if name in (path, f"{path}.class_path") and isinstance(value, str):
                    named = value
        if named is not None:
            return [*words[: place + 1], named, *words[place + 1 :]]
        if path in ("model", "data"):
            example = {"model": "MSN", "data": "CIFAR10DataModule"}[path]
            raise InputError(f"{word} of which class? Write it behind, as {word} {example}")
    return list(words)
