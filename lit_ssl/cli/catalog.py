"""The methods of this package, read from its source so that listing them imports nothing heavy."""

from __future__ import annotations

import ast
import re
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from lit_ssl import methods
from lit_ssl.cli.recipes import list_configs, packaged_config

__all__ = ["MethodInfo", "list_methods"]


class MethodInfo(NamedTuple):
    """One method: class name, first line of its docstring, and the recipes that use it."""

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
