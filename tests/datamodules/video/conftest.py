"""Videos on disk whose frames tell their numbers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from video_files import UCF101, bar_number, write_ucf101  # noqa: F401


@pytest.fixture(scope="session")
def ucf101(tmp_path_factory):
    """UCF101 with 3 classes, 4 groups, 2 clips of 24 frames of 48 x 64 pixels; only read it."""
    return write_ucf101(tmp_path_factory.mktemp("ucf101"))
