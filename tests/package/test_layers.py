"""Imports run one way, and nothing heavy is imported where the package is imported."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAPPED = ("callbacks", "cli_configs", "datamodules")
PLAIN = ("losses", "metrics", "models", "optim", "transforms", "utils")

# layer → the layers it may import besides itself and the plain libraries that are listed
MAY_IMPORT = {
    **dict.fromkeys(PLAIN, PLAIN),
    "strategies": ("utils",),
    "datamodules": ("transforms", "utils"),
    "callbacks": ("metrics", "models", "losses", "utils"),
    "methods": ("losses", "models", "metrics", "optim", "utils"),
    "cli_configs": (),
    "cli": ("methods", "strategies", "callbacks", "datamodules", *PLAIN),
    "__main__": ("cli", "utils"),
    "__init__": ("methods", "losses", "strategies"),
}
HEAVY = ("transformers", "sklearn", "matplotlib", "mlxtend", "kornia", "av", "torchcodec")


def sources():
    for folder in ("lit_ssl", *MAPPED):
        yield from sorted((ROOT / folder).rglob("*.py"))


def layer(name):
    """Layer of a module named like ``lit_ssl.methods.msn``."""
    part = [*name.split("."), "__init__"][1]
    return "cli" if part.startswith("cli_o") else part


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts if parts[0] == "lit_ssl" else ("lit_ssl", *parts))


def imports(tree, top_level=False):
    """Names of imported modules, with the line; with ``top_level`` only those of the import."""
    inside = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if top_level and id(node) in inside:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            yield node.module, node.lineno
            if node.module == "lit_ssl":
                yield from ((f"lit_ssl.{alias.name}", node.lineno) for alias in node.names)


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_layer_imports_only_lower_layers(path):
    mine = layer(module_name(path))
    assert mine in MAY_IMPORT, f"{mine} is a new layer: say here what it may import"
    wrong = [
        f"line {line}: {name}"
        for name, line in imports(ast.parse(path.read_text()))
        if name.startswith("lit_ssl.")
        and name != "lit_ssl.__version__"
        and layer(name) not in (mine, *MAY_IMPORT[mine])
    ]
    assert wrong == []


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_nothing_heavy_and_no_second_lightning(path):
    tree = ast.parse(path.read_text())
    tops = {name.partition(".")[0] for name, _ in imports(tree, top_level=True)}
    assert tops & set(HEAVY) == set()
    everywhere = {name.partition(".")[0] for name, _ in imports(tree)}
    assert "pytorch_lightning" not in everywhere
    if layer(module_name(path)) in PLAIN:
        assert "lightning" not in tops


def test_folders_are_imported_by_their_installed_names():
    wrong = []
    for folder in ("lit_ssl", *MAPPED, "tests", "examples", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for name, line in imports(ast.parse(path.read_text())):
                if name.partition(".")[0] in MAPPED:
                    wrong.append(f"{path.relative_to(ROOT)}:{line}: {name}")
    assert wrong == []


def test_the_check_sees_what_it_should():
    tree = ast.parse(
        "import lit_ssl.cli\n"
        "if TYPE_CHECKING:\n    import a\n"
        "def f():\n    from datamodules import b\n"
        "from lit_ssl import methods\n"
    )
    names = [name for name, _ in imports(tree)]
    at_import = ["lit_ssl.cli", "lit_ssl", "lit_ssl.methods"]
    assert sorted(names) == sorted([*at_import, "a", "datamodules"])
    assert [name for name, _ in imports(tree, top_level=True)] == at_import
