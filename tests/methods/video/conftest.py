"""Checkpoints of small cascades."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from small_cascades import fit, level1, level2


@pytest.fixture(scope="session")
def trained_level1(tmp_path_factory):
    """Checkpoint of level 1 after two steps."""
    folder = tmp_path_factory.mktemp("level1")
    torch.manual_seed(0)
    runs = fit(level1(), folder)
    runs.save_checkpoint(folder / "level1.ckpt", weights_only=False)
    return folder / "level1.ckpt"


@pytest.fixture(scope="session")
def trained_level2(trained_level1, tmp_path_factory):
    """Checkpoint of level 2 after two steps."""
    folder = tmp_path_factory.mktemp("level2")
    torch.manual_seed(1)
    runs = fit(level2(str(trained_level1)), folder)
    runs.save_checkpoint(folder / "level2.ckpt", weights_only=False)
    return folder / "level2.ckpt"
