"""Packages that import a name when it is used.

A package says its public names once, as imports for type checkers:

    if TYPE_CHECKING:
        from lit_ssl.losses.msn import MSNLoss as MSNLoss

    __all__, __getattr__, __dir__ = lazy_names(__name__)

and ``lazy_names`` reads that block, so that ``from lit_ssl.losses import MSNLoss`` loads one
file and what it needs, not every file of the package.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

__all__ = ["lazy_names"]


def lazy_names(package: str) -> tuple[list[str], Callable[[str], object], Callable[[], list[str]]]:
    """The ``__all__``, ``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: its ``__name__``; its source has one block ``if TYPE_CHECKING:`` of imports
            ``from module import Name as Name``.
    """
    source = Path(str(sys.modules[package].__file__)).read_text(encoding="utf-8")
    homes = {
        alias.name: node.module
        for block in ast.parse(source).body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }

    def get(name: str) -> object:
        if name not in homes:
            # ``import lit_ssl.losses`` is enough for ``lit_ssl.losses.msn``
            if not name.startswith("_") and find_spec(f"{package}.{name}"):
                return import_module(f"{package}.{name}")
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)  # found without this function from now on
        return value

    def names() -> list[str]:
        return sorted(homes)

    return names(), get, names
