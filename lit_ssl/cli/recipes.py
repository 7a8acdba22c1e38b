"""Packaged recipes and the methods that they train, read without importing anything heavy."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from lit_ssl import methods
from lit_ssl.errors import InputError, did_you_mean
from lit_ssl.opening import writing

__all__ = [
    "MethodInfo",
    "config_name",
    "copy_config",
    "describe_config",
    "list_configs",
    "list_methods",
    "packaged_config",
    "resolve_config",
    "resolve_configs",
]

_SUFFIXES = (".yaml", ".yml", ".json")


def _root() -> Path:
    return Path(str(files("lit_ssl.cli_configs")))


def list_configs() -> list[str]:
    """Names of all packaged recipes, sorted, e.g. ``msn/mnist5k.yaml``."""
    root = _root()
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.yaml"))


def packaged_config(name: str) -> Path:
    """File of a packaged recipe.

    Args:
        name: its name with or without ``.yaml``.

    Raises:
        InputError: if there is none of that name.
    """
    known = list_configs()
    for candidate in (name, f"{name}.yaml"):
        if candidate in known:
            return _root() / candidate
    raise InputError(
        f"no packaged config {name!r}.{did_you_mean(name, known)} `lit-ssl configs` lists them."
    )


def resolve_config(value: str) -> str:
    """What ``--config VALUE`` stands for: a file here if there is one, else a packaged recipe.

    Args:
        value: a path; a name such as ``msn/mnist5k``; a URL, ``-`` or YAML text, which are returned
            as they are.

    Raises:
        InputError: if neither a file nor a recipe of that name exists.
    """
    if value == "-" or "://" in value or value.lstrip()[:1] in ("{", "["):
        return value
    path = Path(value).expanduser()
    if path.is_file():
        return str(path)
    known = list_configs()
    for candidate in (value, f"{value}.yaml"):
        if candidate in known:
            return str(_root() / candidate)
    folder = path.parent
    files_here = (p for p in folder.glob("*") if p.suffix in _SUFFIXES and p.is_file())
    here = [str(folder / p.name) for p in files_here]
    typed = value if value.endswith(_SUFFIXES) else f"{value}.yaml"
    problem = "is a folder, not a config file" if path.is_dir() else "no such config file"
    raise InputError(
        f"--config {value}: {problem}, here or among the packaged ones."
        f"{did_you_mean(typed, [*known, *here], list_up_to=0)} `lit-ssl configs` lists them."
    )


def resolve_configs(words: Sequence[str]) -> list[str]:
    """The words of a command line, with a file in place of each name after ``--config``.

    Args:
        words: the words after ``lit-ssl``.
    """
    resolved: list[str] = []
    for word in words:
        name, is_pair, value = word.partition("=")
        if resolved and resolved[-1] in ("--config", "-c"):
            word = resolve_config(word)
        elif is_pair and name in ("--config", "-c"):
            word = f"{name}={resolve_config(value)}"
        resolved.append(word)
    return resolved


def config_name(path: str) -> str:
    """A config as one types it: the short name of a packaged recipe, the path of any other.

    Args:
        path: of a file, packaged or not.
    """
    inside = Path(path)
    return inside.relative_to(_root()).as_posix() if inside.is_relative_to(_root()) else path


def describe_config(name: str) -> str:
    """Description of a packaged recipe: its first comment line, empty if it has none.

    Args:
        name: the short name, such as ``msn/mnist5k.yaml``.
    """
    for line in packaged_config(name).read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            return line.lstrip("# ").rstrip()
        if line.strip():
            break
    return ""


def copy_config(name: str, destination: str | Path = ".") -> Path:
    """Copy a packaged recipe to edit it; an existing file is never overwritten.

    Args:
        name: its name with or without ``.yaml``.
        destination: folder, or path of the new file.

    Returns:
        The path of the copy.

    Raises:
        InputError: if there is no such recipe, or the destination exists.
    """
    source = packaged_config(name)
    target = Path(destination).expanduser()
    if target.is_dir():
        target = target / source.name
    if target.exists():
        raise InputError(
            f"{target} exists: give another destination, `lit-ssl configs copy NAME DEST`"
        )
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return target


class MethodInfo(NamedTuple):
    """One method.

    Attributes:
        name: name of the class.
        summary: first line of its docstring.
        configs: the recipes that use it.
    """

    name: str
    summary: str
    configs: list[str]


def list_methods() -> list[MethodInfo]:
    """All public LightningModules of ``lit_ssl.methods``, sorted by name."""
    folder = Path(str(files("lit_ssl.methods")))
    public = set(methods.__all__)
    summaries: dict[str, str] = {}
    for path in sorted(folder.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name in public:
                summaries[node.name] = (ast.get_docstring(node) or "").split("\n")[0]
    return [MethodInfo(name, summaries[name], _recipes_of(name)) for name in sorted(summaries)]


def _recipes_of(name: str) -> list[str]:
    uses = re.compile(rf"^\s*(?:model|class_path):\s*(?:[\w.]+\.)?{name}\s*(?:#.*)?$", re.MULTILINE)
    return [
        config
        for config in list_configs()
        if uses.search(packaged_config(config).read_text(encoding="utf-8"))
    ]
