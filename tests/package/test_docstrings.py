"""Docstrings say what they promise: every argument of public functions, and what these raise.

Asked of each function at the top of a file and each method of a class there, unless its name or
that of the class starts with an underscore. Methods that override one of a class of another package
are left out (Lightning's hooks are documented there), all but ``forward``; those that override one
of ours inherit its docstring. So are properties. What a constructor takes and raises stands on its
class.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import logging
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("lit_ssl", "callbacks", "datamodules")

Definition = ast.FunctionDef | ast.AsyncFunctionDef
_UNASKED = {"property", "cached_property", "setter", "overload"}


class Function(NamedTuple):
    """A public function or method of ours."""

    path: Path
    definition: Definition
    owner: str | None  # its class
    docstring: str

    @property
    def place(self) -> str:
        name = self.definition.name
        name = f"{self.owner}.{name}" if self.owner else name
        return f"{self.path.relative_to(ROOT)}:{self.definition.lineno} {name}"

    @property
    def module(self) -> ModuleType:
        parts = self.path.relative_to(ROOT).with_suffix("").parts
        parts = parts if parts[0] == "lit_ssl" else ("lit_ssl", *parts)
        return import_module(".".join(part for part in parts if part != "__init__"))


def files() -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: Path) -> Iterator[Function]:
    for node in parsed(path).body:
        owner = node.name if isinstance(node, ast.ClassDef) else None
        if owner and owner.startswith("_"):
            continue
        for definition in node.body if isinstance(node, ast.ClassDef) else [node]:
            if not isinstance(definition, Definition):
                continue
            is_constructor = definition.name == "__init__"
            if definition.name.startswith("_") and not is_constructor:
                continue
            if not {name_of(item) for item in definition.decorator_list} & _UNASKED:
                place = node if is_constructor else definition
                docstring = ast.get_docstring(place) or ""  # type: ignore[arg-type]
                yield Function(path, definition, owner, docstring)


def name_of(node: ast.expr) -> str:
    """Return the last name of ``a.b`` or ``a.b(...)``."""
    node = node.func if isinstance(node, ast.Call) else node
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def arguments(function: Function) -> list[str]:
    given, definition = function.definition.args, function.definition
    names = [item.arg for item in given.posonlyargs + given.args]
    if function.owner and "staticmethod" not in map(name_of, definition.decorator_list):
        names = names[1:]
    names += [item.arg for item in given.kwonlyargs]
    return names + [star.arg for star in (given.vararg, given.kwarg) if star]


def raised(function: Function) -> set[str]:
    """Return what the function's own body raises and does not catch; "" where a call makes it.

    ``NotImplementedError`` is left out: it marks what a child has to define.
    """
    found: set[str] = set()

    def walk(node: ast.AST, caught: frozenset[str]) -> None:
        if isinstance(node, Definition | ast.Lambda | ast.ClassDef):
            return
        if isinstance(node, ast.Raise):
            name = name_of(node.exc) if node.exc else None  # None: what was caught goes on
            if name is not None and not caught & {name, "Exception", "BaseException"}:
                found.add(name if name[:1].isupper() else "")
            return
        if isinstance(node, ast.Try):
            types = [handler.type or ast.Name("BaseException") for handler in node.handlers]
            names = {name_of(name) for kind in types for name in getattr(kind, "elts", [kind])}
            for name in tuple(names):  # except DAMAGED, a tuple
                kinds = getattr(function.module, name, None)
                names |= {kind.__name__ for kind in kinds} if isinstance(kinds, tuple) else set()
            for child in node.body:
                walk(child, caught | names)
            for child in [*node.handlers, *node.orelse, *node.finalbody]:
                walk(child, caught)
            return
        for child in ast.iter_child_nodes(node):
            walk(child, caught)

    for child in function.definition.body:
        walk(child, frozenset())
    return found - {"NotImplementedError"}


def section(docstring: str, title: str) -> list[str]:
    """Return the names that a section lists."""
    block = re.search(rf"^{title}:\n((?:    .*\n|\n)+)", docstring + "\n", re.MULTILINE)
    return (
        re.findall(r"^    \*{0,2}([\w.]+)(?: \(.*?\))?:", block[1], re.MULTILINE) if block else []
    )


def inherits(function: Function) -> bool:
    """Tell whether the method's meaning is said where it is declared first."""
    if function.owner is None or function.definition.name == "__init__":
        return False
    name = function.definition.name
    for base in getattr(function.module, function.owner).__mro__[1:]:
        overridden = vars(base).get(name)
        if overridden is None:
            continue
        if base.__module__.split(".")[0] == "lit_ssl":
            if "Args:" in (inspect.getdoc(overridden) or ""):
                return True
        elif name != "forward":
            return True
    return False


def says(function: Function, name: str, names: list[str]) -> bool:
    """Tell whether an error is among those that a docstring names, or a child of one."""
    kind = getattr(function.module, name, None) or getattr(builtins, name, None)
    parents = [parent.__name__ for parent in getattr(kind, "__mro__", ())]
    return bool({name, *parents} & {said.split(".")[-1] for said in names})


def faults(function: Function) -> list[str]:
    """Return what is wrong with a docstring, each in a few words."""
    wanted, listed = arguments(function), section(function.docstring, "Args")
    errors, said = raised(function), section(function.docstring, "Raises")
    if (listed == wanted or not (wanted or listed)) and not errors:
        return []
    found = []
    inherited = inherits(function)
    if listed or not inherited:
        if missing := [name for name in wanted if name not in listed]:
            found.append(f"no Args for {', '.join(missing)}")
        if unknown := [name for name in listed if name not in wanted]:
            found.append(f"Args that it does not take: {', '.join(unknown)}")
        if len(set(listed)) < len(listed):
            found.append("an argument twice")
    if not inherited:
        silent = [name for name in errors if not (says(function, name, said) if name else said)]
        if silent:
            found.append(f"no Raises for {', '.join(sorted(silent)) or 'what it raises'}")
    return found


def test_arguments_and_errors_are_documented():
    found = [
        f"{function.place}: {'; '.join(wrong)}"
        for path in files()
        for function in functions(path)
        if (wrong := faults(function))
    ]
    assert not found, "\n".join(found)


def test_sections_parse(caplog):
    griffe = pytest.importorskip("griffe", reason="the site's parser of docstrings: extra docs")

    def docstrings(item) -> Iterator:
        if item.docstring:
            yield item.docstring
        for member in item.members.values():
            if not member.is_alias:
                yield from docstrings(member)

    with caplog.at_level(logging.WARNING):
        for path in files():
            module = griffe.visit(path.stem, path, path.read_text(encoding="utf-8"))
            for docstring in docstrings(module):  # the names are the other test's part
                docstring.parse("google", warn_unknown_params=False, warn_missing_types=False)
    assert not caplog.messages, "\n".join(caplog.messages)


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ('def f(a, *, b): """F.\n\n    Args:\n        a: A.\n        b: B.\n    """', []),
        ('def f(a, *b): """F.\n\n    Args:\n        a: A.\n        *b: B.\n    """', []),
        ('def f(): """F."""', []),
        ("def f(a): pass", ["no Args for a"]),
        ('def f(a): """F.\n\n    Args:\n        b: B.\n    """',
         ["no Args for a", "Args that it does not take: b"]),
        ('def f():\n    """F."""\n    raise KeyError', ["no Raises for KeyError"]),
        ('def f():\n    """F.\n\n    Raises:\n        LookupError: Always.\n    """\n'
         "    raise KeyError('x')", []),
        ('def f():\n    """F."""\n    raise error(1)', ["no Raises for what it raises"]),
        ('def f():\n    """F."""\n    try:\n        raise KeyError\n    except KeyError:\n'
         "        pass", []),
        ('def f():\n    """F."""\n    try:\n        raise KeyError\n    except Exception:\n'
         "        raise", []),
        ('def f():\n    """F."""\n    def g():\n        raise KeyError\n    return g', []),
    ],
)  # fmt: skip
def test_the_check_itself(source, wrong):
    definition = ast.parse(source).body[0]
    assert isinstance(definition, ast.FunctionDef)
    docstring = ast.get_docstring(definition) or ""
    assert faults(Function(ROOT / "lit_ssl/errors.py", definition, None, docstring)) == wrong
