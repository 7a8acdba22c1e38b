"""The wheel holds the whole package: every module, every recipe, and the typing marker."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import lit_ssl

sys.path.insert(0, str(Path(__file__).parent))
from wheel_files import MAPPED, wheel_files

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from a copy of the tree, so that an old `build/` adds nothing."""
    copy = tmp_path_factory.mktemp("tree") / "tree"
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for folder in ("lit_ssl", *MAPPED):
        shutil.copytree(ROOT / folder, copy / folder, ignore=skip)
    for path in (ROOT / "pyproject.toml", ROOT / "LICENSE", *ROOT.glob("README.md")):
        shutil.copy(path, copy)
    out = tmp_path_factory.mktemp("wheel")
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(out)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_same_files_as_the_tree(wheel):
    expected = wheel_files(ROOT)
    assert sum("/selection/lists/" in name for name in expected) >= 9
    found = {name for name in wheel if ".dist-info/" not in name}
    assert found == expected


def test_metadata(wheel):
    (metadata,) = (text.decode() for name, text in wheel.items() if name.endswith("/METADATA"))
    assert f"\nVersion: {lit_ssl.__version__}\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    (scripts,) = (text for name, text in wheel.items() if name.endswith("entry_points.txt"))
    assert b"lit-ssl = lit_ssl.__main__:main" in scripts
