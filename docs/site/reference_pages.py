"""The reference: a page for each public package, made of its list of public names."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

__all__ = ["pages"]

# Packages with public names, in the order in which they are shown. A name that several of them
# list stands on the page of the first, and has the paths of the others as further anchors.
PACKAGES = (
    "methods", "datamodules", "callbacks", "strategies", "losses", "models", "metrics",
    "transforms", "optim", "text", "video", "runs",
)  # fmt: skip
# Further pages: files whose public names a user's own method, data set or script needs.
FILES = {
    "errors": ("errors",),
    "contracts": (
        "contracts.batches", "contracts.modules", "contracts.networks", "contracts.data",
        "contracts.evaluation_sets", "contracts.retrieval", "contracts.vision_language",
        "contracts.video_generation", "contracts.finite", "trainer.step_logs", "distributed",
    ),
}  # fmt: skip
_ABOUT = {
    "errors": "What lit_ssl raises.",
    "contracts": "What data modules, methods and callbacks agree upon ([design](../design.md)).",
}
# Their classes are put together of parts without names of their own, so what they inherit is shown.
_OF_PARTS = ("models",)


class Name(NamedTuple):
    """A public name: where it is defined, and what it is."""

    name: str
    home: str
    kind: str  # class, function or value
    about: str  # first line of its docstring

    @property
    def definition(self) -> str:
        """The path of its definition."""
        return f"{self.home}.{self.name}"


def pages() -> dict[str, str]:
    """Pages of the reference: their names and texts."""
    modules = {f"lit_ssl.{package}": _public(f"lit_ssl.{package}") for package in PACKAGES}
    modules |= {f"lit_ssl.{file}": _public(f"lit_ssl.{file}") for f in FILES.values() for file in f}
    top = [name for name in _public("lit_ssl") if name.name != "__version__"]
    paths: dict[str, list[str]] = {}  # all public paths to a definition, that of its entry first
    for module, names in [*modules.items(), ("lit_ssl", top)]:
        for name in names:
            paths.setdefault(name.definition, []).append(f"{module}.{name.name}")

    made = {}
    for package in PACKAGES:
        module = f"lit_ssl.{package}"
        made[package] = _package_page(module, modules[module], paths)
    for page, files in FILES.items():
        parts = [f"# lit_ssl.{page}\n\n{_ABOUT[page]}\n"]
        for module in (f"lit_ssl.{file}" for file in files):
            if len(files) > 1:
                parts.append(f"## {module}\n\n{_docstring(module)}\n")
            parts += [_table(module, modules[module]), *_entries(module, modules[module], paths)]
        made[page] = "\n".join(parts)
    made["index"] = _overview(top)
    return {f"reference/{page}.md": text for page, text in made.items()}


def _overview(top: list[Name]) -> str:
    about = {package: _docstring(f"lit_ssl.{package}") for package in PACKAGES} | _ABOUT
    lines = ["# Reference", "", "| package | what is in it |", "|---|---|"]
    lines += [f"| [`lit_ssl.{page}`]({page}.md) | {text} |" for page, text in about.items()]
    lines += [
        "| [recipes](recipes.md) | What `--config` finds by its short name. |",
        "| [words of `lit-ssl`](commands.md) | The command line. |",
        "",
        "These names can be imported from `lit_ssl` itself:",
        "",
    ]
    return "\n".join(lines) + "\n" + _table("lit_ssl", top)


def _package_page(module: str, names: list[Name], paths: dict[str, list[str]]) -> str:
    """A package's page: a table, then all names, by the folders in which they are defined."""
    parts = [f"# {module}\n\n{_docstring(module)}\n", _table(module, names)]
    folders: dict[str, list[Name]] = {}
    for name in names:
        folders.setdefault(_folder(module, name.home), []).append(name)
    for folder in sorted(folders):
        if len(folders) > 1 and folder:
            parts.append(f"## {folder.removeprefix('lit_ssl.')}\n\n{_docstring(folder)}\n")
        elif len(folders) > 1:
            parts.append("## In general\n")
        parts += _entries(module, folders[folder], paths)
    return "\n".join(parts)


def _folder(module: str, home: str) -> str:
    """The folder of a definition: "" in the package itself, its first folder, or another one."""
    if not home.startswith(f"{module}."):
        return home.rpartition(".")[0]
    inside = home.removeprefix(f"{module}.").split(".")
    return f"{module}.{inside[0]}" if len(inside) > 1 else ""


def _entries(module: str, names: list[Name], paths: dict[str, list[str]]) -> list[str]:
    entries = []
    for name in sorted(names, key=lambda name: (name.kind != "class", name.name)):
        first, *others = paths[name.definition]
        if first == f"{module}.{name.name}":
            entries += [f"[](){{#{path}}}\n" for path in others]
            inherited = module.removeprefix("lit_ssl.") in _OF_PARTS and name.kind == "class"
            options = "    options: {inherited_members: true}\n" if inherited else ""
            entries.append(f"::: {first}\n{options}")
    return entries


def _table(module: str, names: list[Name]) -> str:
    rows = [f"| [`{name.name}`][{module}.{name.name}] | {name.about} |" for name in names]
    return "\n".join(["| name | what it is |", "|---|---|", *rows, ""])


def _docstring(module: str) -> str:
    return _first_line(_source(module))


def _source(module: str) -> ast.Module:
    spec = find_spec(module)
    assert spec is not None, module
    return ast.parse(Path(str(spec.origin)).read_text(encoding="utf-8"))


def _first_line(node: ast.Module | ast.ClassDef | ast.FunctionDef) -> str:
    return (ast.get_docstring(node) or "").split("\n")[0]


def _public(module: str) -> list[Name]:
    """Public names, sorted, read without importing anything heavy."""
    source = _source(module)
    homes = {
        alias.asname or alias.name: node.module
        for node in ast.walk(source)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    listed = [
        ast.literal_eval(node.value)
        for node in source.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    # a lazy package lists all that it imports for type checkers
    lazy = {name for name, home in homes.items() if home.startswith("lit_ssl.")} - {"lazy_names"}
    names = sorted(listed[0] if listed else lazy, key=str.casefold)
    return [_described(name, homes.get(name, module)) for name in names]


def _described(name: str, home: str) -> Name:
    for node in _source(home).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
            return Name(name, home, kind, _first_line(node))
    return Name(name, home, "value", "")
