"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def golden() -> Callable[[str], dict[str, Tensor]]:
    """Load a file of reference values as tensors: ``golden("msn/loss_a")``."""

    def load(name: str) -> dict[str, Tensor]:
        with np.load(GOLDEN / f"{name}.npz") as arrays:
            numbers = {key: arrays[key] for key in arrays if arrays[key].dtype.kind != "U"}
            return {key: torch.from_numpy(value.copy()) for key, value in numbers.items()}

    return load
