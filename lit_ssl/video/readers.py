"""Readers of frames, which all give the same frames."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from lit_ssl.errors import check_choice
from lit_ssl.video.pyav_reader import PyAVReader
from lit_ssl.video.torchcodec_reader import TorchcodecReader

__all__ = ["VideoReader", "open_reader"]


class VideoReader(Protocol):
    """Reads frames from video files. Readers can be pickled: workers get copies."""

    def read(self, path: str | Path, frames: np.ndarray, shorter: int | None = None) -> np.ndarray:
        """Return frames of a video, upright: the display matrix of the file is honoured.

        Args:
            path: The file.
            frames: Numbers in the order in which frames are shown, from 0; integers ``[T]``,
                T >= 1, in any order, also repeated.
            shorter: Resize so that the shorter side has so many pixels, the longer one rounded
                down; None: as in the file. Pixels that are not square stay so.

        Returns:
            uint8 ``[T, H, W, 3]``, RGB.

        Raises:
            UnreadableVideo: The file cannot be decoded as far as needed, is damaged there, or has
                fewer frames. Wrong frames are never returned in their place.
            InputError: ``frames`` or ``shorter`` is out of range.
        """
        ...


def open_reader(name: Literal["auto", "pyav", "torchcodec"] = "auto") -> VideoReader:
    """Return a reader.

    Args:
        name: "pyav", which has all it needs in its wheel; "torchcodec", which needs the shared
            libraries of FFmpeg (``benchmarks/video_readers.py`` times both); "auto" is "pyav".

    Raises:
        InputError: The name is none of these, or what the reader needs is not installed.
    """
    check_choice("reader", name, ("auto", "pyav", "torchcodec"))
    return TorchcodecReader() if name == "torchcodec" else PyAVReader()
