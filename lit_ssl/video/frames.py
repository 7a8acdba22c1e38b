"""What every reader has in common: which frames may be asked for, and how they come out."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lit_ssl.errors import InputError

__all__ = ["UnreadableVideo", "checked_numbers", "fitted_size", "is_turned", "upright"]


class UnreadableVideo(InputError):
    """A video, or the frames asked for, cannot be read.

    Args:
        path: The file.
        why: What is wrong with it.
    """

    def __init__(self, path: str | Path, why: str) -> None:
        super().__init__(f"{path} cannot be read: {why}")
        self.path = str(path)
        self.why = why

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.path, self.why)  # workers send it to the main process


def checked_numbers(frames: np.ndarray, shorter: int | None) -> np.ndarray:
    """Return frame numbers as int64 ``[T]``, or raise for numbers that no video has.

    Args:
        frames: Frame numbers, integers ``[T]``, T >= 1.
        shorter: Pixels of the shorter side, >= 1; None: as in the file.

    Raises:
        InputError: They are no such numbers.
    """
    numbers = np.asarray(frames)
    if numbers.ndim != 1 or not len(numbers) or not np.issubdtype(numbers.dtype, np.integer):
        raise InputError(
            f"frames must be one or more integers [T], not {numbers.dtype} {list(numbers.shape)}"
        )
    if numbers.min() < 0:
        raise InputError(f"frames are numbered from 0, and {numbers.min()} was asked for")
    if shorter is not None and shorter < 1:
        raise InputError(f"shorter must be at least 1 pixel, not {shorter}")
    return numbers.astype(np.int64)


def fitted_size(height: int, width: int, shorter: int | None) -> tuple[int, int]:
    """Return the (height, width) of frames whose shorter side has ``shorter`` pixels.

    The longer side is rounded down, as in torchvision's ``Resize``.

    Args:
        height: of the video, in pixels.
        width: of the video, in pixels.
        shorter: pixels; None: as they are.
    """
    if shorter is None:
        return height, width
    if height <= width:
        return shorter, shorter * width // height
    return shorter * height // width, shorter


def upright(frames: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """Turn and mirror stored frames as the display matrix of their file says.

    Args:
        frames: ``[..., H, W, 3]``.
        matrix: Nine numbers a b u, c d v, x y w in a row, which take a stored place (p, q) to
            (a·p + c·q + x, b·p + d·q + y), p to the right and q downwards; None: as stored. Angles
            in between become the nearest multiple of 90°.

    Returns:
        A view, ``[..., H, W, 3]`` or ``[..., W, H, 3]``.

    Source: ISO 14496-12, section 8.3.2.
    """
    if matrix is None:
        return frames
    a, b, c, d = _turn(matrix)
    if is_turned(matrix):
        frames, a, d = np.swapaxes(frames, -3, -2), c, b
    if d < 0:
        frames = frames[..., ::-1, :, :]
    if a < 0:
        frames = frames[..., ::-1, :]
    return frames


def is_turned(matrix: np.ndarray | None) -> bool:
    """Return whether width and height change places when frames are put upright.

    Args:
        matrix: display matrix, int32 ``[9]``; None: upright already.
    """
    if matrix is None:
        return False
    a, b, c, d = _turn(matrix)
    return abs(a) + abs(d) < abs(b) + abs(c)


def _turn(matrix: np.ndarray) -> tuple[int, int, int, int]:
    a, b, c, d = (int(matrix[i]) for i in (0, 1, 3, 4))
    return a, b, c, d
