"""Frames of a video by torchcodec, which uses the FFmpeg libraries of the system."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from lit_ssl.errors import InputImportError
from lit_ssl.video.demux import frame_table, open_video
from lit_ssl.video.frames import UnreadableVideo, checked_numbers, fitted_size
from lit_ssl.video.pyav_reader import PyAVReader

__all__ = ["TorchcodecReader"]

# The shortest video that FFmpeg reads: one grey frame of 16 × 16 pixels.
_PROBE = b"YUV4MPEG2 W16 H16 F1:1 C420jpeg\nFRAME\n" + bytes([128]) * 384


class TorchcodecReader:
    """Reads frames with torchcodec, in its exact mode, with one decoder thread.

    Files that torchcodec cannot read to the end, or numbers otherwise (recordings that start within
    a group of frames, ``.avi`` without times), are read by
    [`PyAVReader`][lit_ssl.video.PyAVReader], with a warning. Unlike PyAV, torchcodec does not tell
    that data are damaged as long as its decoder goes on.

    Raises:
        InputImportError: torchcodec or FFmpeg's libraries are missing or do not fit torch; PyAV is
            missing.
    """

    def __init__(self) -> None:
        # Importing it succeeds without FFmpeg.
        try:
            from torchcodec.decoders import VideoDecoder

            VideoDecoder(_PROBE).get_frame_at(0)
        except (ImportError, OSError, RuntimeError) as error:
            missing = "torchcodec" if isinstance(error, ModuleNotFoundError) else "FFmpeg"
            raise InputImportError(
                f"reader torchcodec cannot be used ({missing} is missing or does not fit): install"
                " the build for this torch, pip install 'lit-ssl[torchcodec]', and the shared"
                " libraries of FFmpeg 4 to 9, as apt-get install ffmpeg does; or take reader: pyav"
            ) from error
        self._pyav = PyAVReader()
        self._warned = False

    def read(self, path: str | Path, frames: np.ndarray, shorter: int | None = None) -> np.ndarray:
        """Return frames of a video, upright; see [`VideoReader`][lit_ssl.video.VideoReader].

        Resizing is done while decoding, bilinear.

        Args:
            path: the file.
            frames: numbers of frames from 0, integers ``[T]``, T ≥ 1, in any order.
            shorter: pixels of the shorter side; None: as in the file.

        Returns:
            uint8 ``[T, H, W, 3]``, RGB.

        Raises:
            UnreadableVideo: The file cannot be decoded as far as needed, or has fewer frames.
            InputError: ``frames`` or ``shorter`` is out of range.
        """
        numbers = checked_numbers(frames, shorter)
        with open_video(path) as (container, stream):
            table = frame_table(container, stream)
        if table.times is None or table.leading:
            return self._by_pyav(path, numbers, shorter, "its frames have no times, or no start")
        if numbers.max() >= table.count:
            raise UnreadableVideo(
                path, f"it has {table.count} frames, and frame {numbers.max()} was asked for"
            )
        try:
            return _decoded(str(Path(path).absolute()), numbers, shorter, table.count)
        except (RuntimeError, ValueError, IndexError) as error:
            return self._by_pyav(path, numbers, shorter, str(error).partition("\n")[0])

    def _by_pyav(
        self, path: str | Path, numbers: np.ndarray, shorter: int | None, why: str
    ) -> np.ndarray:
        frames = self._pyav.read(path, numbers, shorter)
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"torchcodec cannot read {path} ({why}). PyAV reads it, and others like it",
                stacklevel=3,
            )
        return frames


def _decoded(name: str, numbers: np.ndarray, shorter: int | None, count: int) -> np.ndarray:
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    transforms = []
    if shorter is not None:
        facts = VideoDecoder(name, seek_mode="approximate").metadata
        transforms = [Resize(fitted_size(facts.height, facts.width, shorter))]
    decoder = VideoDecoder(
        name, dimension_order="NHWC", num_ffmpeg_threads=1, transforms=transforms
    )
    if len(decoder) != count:
        raise ValueError(f"it finds {len(decoder)} frames of {count}")
    return decoder.get_frames_at(numbers.tolist()).data.numpy()
