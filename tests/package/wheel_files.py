"""Which files of the tree a wheel holds, and wheels for tests."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

MAPPED = ("callbacks", "cli_configs", "datamodules")


def wheel_files(root: Path) -> set[str]:
    """Every module, every recipe, every list, and the typing marker, by their installed names."""
    expected = {"lit_ssl/py.typed"}
    for folder in ("lit_ssl", *MAPPED):
        prefix = "" if folder == "lit_ssl" else "lit_ssl/"
        for pattern in ("*.py", "*.yaml"):
            for path in (root / folder).rglob(pattern):
                expected.add(prefix + path.relative_to(root).as_posix())
    lists = root / "datamodules" / "selection" / "lists"
    for path in lists.rglob("*"):
        if path.is_file():
            expected.add(f"lit_ssl/{path.relative_to(root).as_posix()}")
    return expected


def built_wheel(root: Path, work: Path, source: str | None = None) -> dict[str, bytes]:
    """What a wheel holds, by name.

    Built from a copy of the tree, so that an old `build/` adds nothing, with `source` as the
    repository's public address.
    """
    copy = work / "tree"
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for folder in ("lit_ssl", *MAPPED, "docs/site"):
        shutil.copytree(root / folder, copy / folder, ignore=skip)
    for name in ("pyproject.toml", "setup.py", "LICENSE", "README.md"):
        shutil.copy(root / name, copy)
    if source is not None:
        with (copy / "pyproject.toml").open("a", encoding="utf-8") as file:
            file.write(f"\n[project.urls]\nSource = {source!r}\n")
    out = work / "wheel"
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(out)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
