"""What pyproject.toml cannot say: the README with links that lead on where only it is shown.

The address that they lead to is written in one place, ``Source`` of ``[project.urls]``. Until it is
there, links stay relative, and ``make release-check`` refuses the release.
"""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import setup

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

sys.path.insert(0, str(Path(__file__).resolve().parent / "docs" / "site"))

from links import for_index

ROOT = Path(__file__).resolve().parent


def readme() -> str:
    """The description of the package."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if (source := project.get("urls", {}).get("Source")) is None:
        return text
    scope: dict[str, str] = {}
    exec((ROOT / "lit_ssl" / "version.py").read_text(encoding="utf-8"), scope)
    return for_index(text, source, scope["__version__"])


setup(long_description=readme(), long_description_content_type="text/markdown")
