"""The oldest version of every package that pyproject.toml allows, as requirements for pip.

``python tests/environments/floors.py`` prints them, one a line; needs packaging, and tomli below
Python 3.11.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
TESTED = ("demo", "dev")  # the extras that the tests use; dev repeats what it needs of the others


def read_project(path=ROOT / "pyproject.toml"):
    return tomllib.loads(path.read_text(encoding="utf-8"))["project"]


def requirements(project, extras=TESTED):
    """Dependencies, and those of some extras."""
    texts = list(project["dependencies"])
    for extra in extras:
        texts += project["optional-dependencies"][extra]
    return [Requirement(text) for text in texts]


def floor(requirement):
    """The oldest version that a requirement allows."""
    versions = [Version(s.version) for s in requirement.specifier if s.operator in (">=", "==")]
    if not versions:
        raise SystemExit(f"{requirement} names no oldest version: write one, as in timm>=1.0.16")
    oldest = max(versions)
    if not requirement.specifier.contains(oldest, prereleases=True):
        raise SystemExit(f"{requirement} excludes its own oldest version, {oldest}")
    return oldest


def pins(required: Iterable[Requirement]):
    """A line ``name[extras]==version`` for each package."""
    oldest = {}
    for one in required:
        extras = f"[{','.join(sorted(one.extras))}]" if one.extras else ""
        oldest.setdefault(f"{one.name}{extras}", floor(one))
    return [f"{name}=={version}" for name, version in oldest.items()]


if __name__ == "__main__":
    print("\n".join(pins(requirements(read_project()))))
