"""Frames of a video by torchcodec."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lit_ssl.errors import InputImportError
from lit_ssl.video.frames import UnreadableVideo, checked_numbers, fitted_size

__all__ = ["TorchcodecReader"]


class TorchcodecReader:
    """To be written."""

    def __init__(self) -> None:
        raise InputImportError("not yet")

    def read(self, path: str | Path, frames: np.ndarray, shorter: int | None = None) -> np.ndarray:
        raise NotImplementedError
