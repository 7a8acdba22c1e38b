"""The wheel holds the whole package: every module, every recipe, and the typing marker."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import lit_ssl

sys.path.insert(0, str(Path(__file__).parent))
from wheel_files import built_wheel, wheel_files

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return built_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


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
