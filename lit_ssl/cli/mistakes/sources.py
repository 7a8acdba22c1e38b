"""Which config file holds a wrong entry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lit_ssl.cli.mistakes.messages import Problem

__all__ = ["broken_file", "source_file"]

_ABOUT_OPTIONS = ("option", "unaccepted", "group")
_ABOUT_CLASSES = ("class", "module", "attribute", "subclass")


def source_file(problem: Problem, argv: Sequence[str], files: Sequence[str]) -> str | None:
    """The config file that a wrong entry comes from.

    Args:
        problem: what is wrong.
        argv: the command line.
        files: the config files given, in order; the last one that holds the entry is meant.

    Returns:
        Its path; None if the entry was typed, or stands in no file.
    """
    matches = _matcher(problem)
    if matches is None or any(_is_typed(problem, word) for word in argv):
        return None
    for file in reversed(files):
        if any(matches(key, value) for key, value in _entries(_load(file))):
            return file
    return None


def broken_file(files: Sequence[str]) -> str | None:
    """The first of the files that YAML cannot read."""
    import yaml

    for file in files:
        try:
            yaml.safe_load(Path(file).read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError):
            return file
        except OSError:
            continue
    return None


def _matcher(problem: Problem) -> Callable[[str, Any], bool] | None:
    """A test for the (key, value) pair that is wrong."""
    name = problem.found.get("name", "")
    given = problem.found.get("value") or problem.block.given
    if problem.kind in _ABOUT_CLASSES:
        wanted = (name, given, problem.class_path)
        return lambda key, value: value in wanted
    if problem.kind in _ABOUT_OPTIONS:
        parts = name.split(".")
        return lambda key, value: key in parts
    if problem.kind == "type":
        last = problem.path.rpartition(".")[2]
        return lambda key, value: key == last and str(value) == given
    return None


def _is_typed(problem: Problem, word: str) -> bool:
    """Whether a word of the command line is the wrong entry itself."""
    if not word.startswith("--"):
        return False
    key = word.lstrip("-").partition("=")[0].removesuffix("+").replace(".init_args", "")
    if problem.kind in _ABOUT_OPTIONS:
        return f".{key}".endswith(f".{problem.found['name']}")
    return key == problem.path


def _load(file: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None


def _entries(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """All (key, value) pairs of a loaded file."""
    if isinstance(node, dict):
        for name, child in node.items():
            yield str(name), child
            yield from _entries(child, str(name))
    elif isinstance(node, list):
        for child in node:
            yield key, child
            yield from _entries(child, key)
