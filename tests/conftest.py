"""Fixtures for all tests."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

# One thread here and in every process that a test starts: results of different thread counts differ
# in their last bits, and many small networks on few cores are faster so.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

GOLDEN = Path(__file__).parent / "golden"


# Trainers leave these behind; a process started later would take itself for one of several.
_LEFT_BY_TRAINERS = (
    "MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "GROUP_RANK", "RANK", "WORLD_SIZE",
    "PL_GLOBAL_SEED", "PL_SEED_WORKERS",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _clean_start() -> None:
    torch.manual_seed(0)
    logging.getLogger("lightning.pytorch").setLevel(logging.INFO)  # examples silence it
    if torch.distributed.is_initialized():  # so does a Trainer with a strategy and one process
        torch.distributed.destroy_process_group()
    for name in _LEFT_BY_TRAINERS:
        os.environ.pop(name, None)


@pytest.fixture
def golden() -> Callable[[str], dict[str, Tensor]]:
    """Load a file of reference values as tensors: ``golden("msn/loss_a")``."""

    def load(name: str) -> dict[str, Tensor]:
        with np.load(GOLDEN / f"{name}.npz") as arrays:
            numbers = {key: arrays[key] for key in arrays if arrays[key].dtype.kind != "U"}
            return {key: torch.from_numpy(value.copy()) for key, value in numbers.items()}

    return load
