"""The floor plan of the house: who may import whom, and nothing heavy at the door.

The table is explained in ``docs/design.md``.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import floor_plan as plan

ROOT = Path(__file__).parents[2]

GROUND = ("answers", "arrays", "cells", "distributed", "errors", "files", "json_text", "lazy",
          "numerals", "opening", "parts", "precision", "seeding", "tables", "version",
          "yaml_text")  # fmt: skip
# Ground files stand alone but for these.
ON_GROUND = {
    "arrays": ("errors", "opening"),
    "cells": ("numerals",),
    "files": ("cells", "errors", "opening", "parts"),
    "json_text": ("errors",),
    "opening": ("errors",),
    "tables": ("errors", "files", "numerals", "opening"),
}
# room → the rooms that it may import besides itself and the ground
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    # plain: no Lightning
    "drawing": (),
    "groups": (),
    "imagenet_x": (),
    "losses": (),
    "optim": (),
    "pages": (),
    "runs": (),
    "stores": (),
    "text": (),
    "transforms": (),
    "video": ("stores",),
    "models": ("transforms", "video"),
    "metrics": ("models", "text"),
    # what the others agree upon
    "contracts": (),
    "trainer": ("checkpoints", "contracts", "pages", "runs"),
    "checkpoints": ("models",),
    # siblings, never each other
    "callbacks": ("contracts", "drawing", "groups", "imagenet_x", "metrics", "models", "pages",
                  "runs", "trainer", "video"),
    "datamodules": ("checkpoints", "contracts", "groups", "imagenet_x", "stores", "text", "trainer",
                    "transforms", "video"),
    "methods": ("checkpoints", "contracts", "groups", "losses", "metrics", "models", "optim",
                "text", "trainer", "transforms", "video"),
    "strategies": ("trainer",),
    "cli_configs": (),
}  # fmt: skip
PLAIN = ("drawing", "groups", "imagenet_x", "losses", "metrics", "models", "optim", "pages",
         "runs", "stores", "text", "transforms", "video")  # fmt: skip
HEAVY = ("transformers", "sklearn", "matplotlib", "mlxtend", "kornia", "av", "torchcodec",
         "fsspec", "h5py", "huggingface_hub", "networkx", "onnx", "onnxruntime", "shtab", "skimage",
         "umap", "webdataset")  # fmt: skip
# The only file that knows private names of Lightning and torch, so that a new release of theirs is
# checked in one place.
PRIVATE = "lit_ssl.trainer.private"

SOURCES = plan.read_tree(ROOT)
OWN_NAMES = plan.own_names(SOURCES)
EDGES = list(plan.edges(SOURCES))
GRAPH: dict[str, set[str]] = defaultdict(set)
for _importer, _target, _ in EDGES:
    if _importer != _target:
        GRAPH[_importer].add(_target)


def room(name):
    """Room of a module named like ``lit_ssl.methods.msn``."""
    return [*name.split("."), "__init__"][1]


def may_import(mine, other):
    if mine in ("cli", "__main__"):
        return other not in ("__main__",) and (mine == "__main__" or other != "__init__")
    if mine in GROUND:
        return other in ON_GROUND.get(mine, ())
    return other == mine or other in GROUND or other in MAY_IMPORT[mine]


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_a_room_imports_only_what_its_line_of_the_table_allows(name):
    mine = room(name)
    known = {*GROUND, *MAY_IMPORT, "cli", "__main__", "__init__"}
    assert mine in known, f"{mine} is a new room: say here what it may import"
    wrong = [
        f"line {line}: {target}"
        for importer, target, line in EDGES
        if importer == name and room(target) != "__init__" and not may_import(mine, room(target))
    ]
    assert wrong == []


def test_no_circle_of_files():
    assert plan.circles(GRAPH) == []


@pytest.mark.parametrize("package", sorted(n for n, s in SOURCES.items() if s.is_package))
def test_no_circle_of_rooms(package):
    """Between the files and folders that lie directly in a package, at every depth."""
    assert plan.circles(plan.rooms(GRAPH, package)) == []


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_names_are_imported_from_where_they_are_defined(name):
    """From the file that defines them, or from a public package that lists them."""
    wrong = []
    for module, item, line in plan.imported(SOURCES[name]):
        if module.partition(".")[0] != "lit_ssl" or item is None:
            continue
        if f"{module}.{item}" in SOURCES:
            continue
        source = SOURCES[module]
        if item not in source.defined and item not in plan.public_homes(source):
            wrong.append(f"line {line}: {item} from {module}")
    assert wrong == []


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_public_names_are_no_names_of_files(name):
    """A file imported later would take the place of the name in its package."""
    source = SOURCES[name]
    assert [n for n in plan.public_homes(source) if f"{name}.{n}" in SOURCES] == []


@pytest.mark.parametrize("name", sorted(set(SOURCES) - {PRIVATE}))
def test_private_names_of_other_libraries_stay_in_one_file(name):
    wrong = [f"line {line}: {n}" for n, line in plan.private_names(SOURCES[name], OWN_NAMES)]
    assert wrong == []


def imported_tops(tree, at_start):
    """First parts of imported names; with ``at_start`` only those of the import of the file."""
    inside = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        for child in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if at_start and id(node) in inside:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).partition(".")[0])
    return found


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_nothing_heavy_and_no_second_lightning(name):
    tree = SOURCES[name].tree
    assert imported_tops(tree, at_start=True) & set(HEAVY) == set()
    assert "pytorch_lightning" not in imported_tops(tree, at_start=False)
    if room(name) in PLAIN:
        assert "lightning" not in imported_tops(tree, at_start=False)


def test_folders_are_imported_by_their_installed_names():
    wrong = []
    for folder in ("lit_ssl", *plan.MAPPED, "tests", "examples", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            tops = imported_tops(ast.parse(path.read_text(encoding="utf-8")), at_start=False)
            wrong += [f"{path.relative_to(ROOT)}: {top}" for top in tops & set(plan.MAPPED)]
    assert wrong == []


@pytest.fixture
def small_house(tmp_path):
    """A tree with one of every fault."""
    files = {
        "lit_ssl/losses/__init__.py": "from lit_ssl.lazy import lazy_names\n"
        "if TYPE_CHECKING:\n    from lit_ssl.losses.a import A as A\n"
        "__all__, __getattr__, __dir__ = lazy_names(__name__)\n",
        "lit_ssl/losses/a.py": "class A: ...\ndef f():\n    from lit_ssl.losses.b.c import C\n",
        "lit_ssl/losses/b/__init__.py": "",
        "lit_ssl/losses/b/c.py": "class C: ...\nfrom lit_ssl.losses.d import D\n",
        "lit_ssl/losses/d.py": "if TYPE_CHECKING:\n    from lit_ssl.losses import A\n"
        "from lit_ssl.losses.b.c import D\nfrom lightning.pytorch.cli import _Fn\n"
        "class D:\n    def __init__(self, x): self._mine = x._theirs\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return plan.read_tree(tmp_path)


def test_the_plan_sees_what_it_should(small_house):
    graph = defaultdict(set)
    for importer, target, _ in plan.edges(small_house):
        graph[importer].add(target)
    assert graph["lit_ssl.losses.d"] == {"lit_ssl.losses.a", "lit_ssl.losses.b.c"}
    assert "lit_ssl.losses" not in graph
    names = ["lit_ssl.losses.a", "lit_ssl.losses.b.c", "lit_ssl.losses.d"]
    assert plan.circles(graph) == [names]
    assert plan.circles(plan.rooms(graph, "lit_ssl.losses")) == [["a", "b", "d"]]
    assert "D" not in small_house["lit_ssl.losses.b.c"].defined
    private = plan.private_names(small_house["lit_ssl.losses.d"], plan.own_names(small_house))
    assert sorted(name for name, _ in private) == ["_Fn", "_theirs"]


def test_imagenet_x_starts_without_torch():
    """All but the metric, as ``lit-ssl imagenetx score`` needs them."""
    names = [n for n in SOURCES if n.startswith("lit_ssl.imagenet_x")]
    names.remove("lit_ssl.imagenet_x.metric")
    code = f"import sys\nfor n in {names}: __import__(n)\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
