"""Reads who imports whom in a source tree; asserts nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

MAPPED = ("callbacks", "cli_configs", "datamodules")
FOREIGN = ("lightning", "torch", "jsonargparse", "torchmetrics", "timm", "torchvision")
# With an underscore by convention, not to say private: documented methods of NamedTuple, torch's
# operators on lists of tensors, and the one common parent of its batch norms.
PUBLIC = ("_asdict", "_fields", "_make", "_replace", "_BatchNorm")


@dataclass
class Source:
    """A file: what it imports, defines and reaches for."""

    name: str
    path: Path
    tree: ast.Module
    is_package: bool
    defined: set[str] = field(default_factory=set)


def read_tree(root: Path) -> dict[str, Source]:
    """All files of the package below a root, by their dotted name."""
    found = {}
    for folder in ("lit_ssl", *MAPPED):
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            parts = parts if parts[0] == "lit_ssl" else ("lit_ssl", *parts)
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found[name] = Source(name, path, tree, is_package, set(_defined(tree)))
    return found


def _defined(tree: ast.Module) -> Iterator[str]:
    """Names that a file defines at its top, not those that it imports."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                yield from (n.id for n in ast.walk(target) if isinstance(n, ast.Name))


def public_homes(source: Source) -> dict[str, str]:
    """The file behind each name of a lazy package."""
    return {
        alias.name: node.module
        for block in source.tree.body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


def imported(source: Source) -> Iterator[tuple[str, str | None, int]]:
    """(module, name or None, line) of every import, wherever in the file it stands."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source.path}:{node.lineno}: relative import"
            for alias in node.names:
                yield str(node.module), alias.name, node.lineno


def edges(sources: dict[str, Source]) -> Iterator[tuple[str, str, int]]:
    """(importer, file it imports from, line); names of lazy packages lead to the file behind.

    The packages' own lists of public names are an index that runs nothing: they are left out.
    """
    for source in sources.values():
        if source.is_package and "lazy_names" in ast.unparse(source.tree):
            continue
        for module, name, line in imported(source):
            if module.partition(".")[0] != "lit_ssl":
                continue
            target = f"{module}.{name}" if f"{module}.{name}" in sources else module
            if target == module and module in sources and sources[module].is_package:
                target = public_homes(sources[module]).get(str(name), module)
            yield source.name, target, line


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of nodes that reach each other, each sorted (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def rooms(graph: dict[str, set[str]], package: str) -> dict[str, set[str]]:
    """The same between what lies directly in a package: its files, and its folders as a whole."""
    prefix = f"{package}."
    inside: dict[str, set[str]] = {}
    for importer, targets in graph.items():
        for target in targets:
            if importer.startswith(prefix) and target.startswith(prefix):
                a, b = (n.removeprefix(prefix).partition(".")[0] for n in (importer, target))
                if a != b:
                    inside.setdefault(a, set()).add(b)
    return inside


def private_names(source: Source, ours: set[str]) -> Iterator[tuple[str, int]]:
    """(name, line) of private names of other libraries that a file imports or reaches for."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] in FOREIGN:
            parts = str(node.module).split(".") + [alias.name for alias in node.names]
            yield from ((part, node.lineno) for part in parts if _is_private(part))
        elif isinstance(node, ast.Attribute) and _is_private(node.attr) and node.attr not in ours:
            yield node.attr, node.lineno


def _is_private(name: str) -> bool:
    is_public = name in PUBLIC or name.startswith(("__", "_foreach_"))
    return name.startswith("_") and not is_public


def own_names(sources: dict[str, Source]) -> set[str]:
    """Every private name that our own classes and files define or assign."""
    found: set[str] = set()
    for source in sources.values():
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                found |= {node.attr} if ast.unparse(node.value) in ("self", "cls") else set()
    return found
