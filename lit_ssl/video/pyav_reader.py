"""Frames of a video by PyAV, each exactly the one that was asked for."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lit_ssl.video.demux import (
    FrameTable,
    decoded_frames,
    display_matrix,
    frame_table,
    need_pyav,
    open_video,
)
from lit_ssl.video.frames import UnreadableVideo, checked_numbers, fitted_size, upright

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

__all__ = ["PyAVReader"]


class PyAVReader:
    """Reads frames with PyAV, which has FFmpeg inside.

    It decodes from the last keyframe before the first frame that is wanted. Frames are known by
    their times; where these do not agree with the file's packets, or where seeking leads elsewhere,
    it decodes from the start and counts.

    Raises:
        InputImportError: PyAV is not installed.
    """

    def __init__(self) -> None:
        need_pyav()

    def read(self, path: str | Path, frames: np.ndarray, shorter: int | None = None) -> np.ndarray:
        """Return frames of a video, upright; see [`VideoReader`][lit_ssl.video.VideoReader].

        Resizing is libswscale's, bilinear over the area of a pixel.

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
        for decode_first in (False, True):
            with open_video(path) as (container, stream):
                table = frame_table(container, stream, decode_first)
                if table.leading and not decode_first:
                    continue
                if numbers.max() >= table.count:
                    why = f"it has {table.count} frames, and frame {numbers.max()} was asked for"
                    raise UnreadableVideo(path, why)
                for key in _keyframes_before(numbers.min(), table):
                    pictures = _Pictures(path, numbers, shorter)
                    if _from_keyframe(container, stream, key, table, pictures):
                        return pictures.stacked()
                break
        with open_video(path) as (container, stream):
            pictures = _Pictures(path, numbers, shorter)
            _from_start(container, stream, table, pictures)
        return pictures.stacked()


class _Pictures:
    """The wanted frames that were found so far, as arrays."""

    def __init__(self, path: str | Path, numbers: np.ndarray, shorter: int | None) -> None:
        from av.video.reformatter import VideoReformatter

        self.path = path
        self.numbers = numbers
        self.shorter = shorter
        self.missing = set(numbers.tolist())
        self._to_rgb, self._resize = VideoReformatter(), VideoReformatter()
        self._found: dict[int, np.ndarray] = {}
        self._stored: tuple[int, int] | None = None

    def offer(self, number: int, frame: VideoFrame) -> None:
        """Keep a frame if it is wanted."""
        if frame.is_corrupt:
            raise UnreadableVideo(self.path, f"the data of frame {number} are damaged")
        if number not in self.missing:
            return
        stored = frame.height, frame.width
        if self._stored not in (None, stored):
            raise UnreadableVideo(self.path, "its frames are of different sizes")
        self._stored = stored
        height, width = fitted_size(*stored, self.shorter)
        # In two steps, as torchcodec does: in one, libswscale scales colours by another rule.
        one = _one_thread()
        picture = self._to_rgb.reformat(frame, format="rgb24", **one)
        picture = self._resize.reformat(picture, width, height, **one)
        self._found[number] = upright(picture.to_ndarray(), display_matrix(frame))
        self.missing.remove(number)

    def stacked(self) -> np.ndarray:
        return np.stack([self._found[number] for number in self.numbers.tolist()])


def _keyframes_before(number: int, table: FrameTable) -> list[int]:
    """Times of the last two keyframes at or before a frame, the last one first.

    Where a file has no index, seeking may lead to just behind the last one.
    """
    if table.times is None:
        return []
    end = int(np.searchsorted(table.keys, table.times[number], side="right"))
    return [int(key) for key in table.keys[max(end - 2, 0) : end][::-1]]


def _from_keyframe(
    container: InputContainer,
    stream: VideoStream,
    key: int,
    table: FrameTable,
    pictures: _Pictures,
) -> bool:
    """Decode from a keyframe at or before the first wanted frame.

    Returns:
        False where seeking or decoding does not give the frames that the table lists from there on.
    """
    import av

    assert table.times is not None
    first_wanted = table.times[pictures.numbers.min()]
    try:
        container.seek(key, stream=stream)
    except av.FFmpegError:
        return False
    start: int | None = None
    number: int | None = None
    for packet in container.demux(stream):
        if start is None:
            if packet.size > 0 and not packet.is_keyframe:
                continue
            if packet.pts is None or packet.pts > first_wanted:
                return False
            start = packet.pts
            number = None if packet.is_discard else int(np.searchsorted(table.times, start))
        if packet.is_corrupt:
            return False
        for frame in packet.decode():
            if frame.pts is None:
                return False
            if frame.pts < start:
                continue  # refers to frames before the keyframe
            if number is None:
                number = int(np.searchsorted(table.times, frame.pts))
            if number >= table.count or table.times[number] != frame.pts:
                return False
            if frame.pts == start and not frame.key_frame:
                return False  # the file takes another frame for a keyframe
            pictures.offer(number, frame)
            if not pictures.missing:
                return True
            number += 1
    return False


def _from_start(
    container: InputContainer, stream: VideoStream, table: FrameTable, pictures: _Pictures
) -> None:
    """Decode from the start and count.

    Where frames come at other times than their packets say, their number must agree at least, or
    a frame in between could be lost unseen.
    """
    times, agree, count = table.times, True, 0
    for frame in decoded_frames(container, stream):
        if times is not None:
            agree = agree and count < table.count and frame.pts == times[count]
        pictures.offer(count, frame)
        count += 1
        if agree and not pictures.missing:
            return
    if count != table.count:
        raise UnreadableVideo(pictures.path, f"of its {table.count} frames {count} can be decoded")


@cache
def _one_thread() -> dict[str, Any]:
    """Keep PyAV 17 and later from scaling each frame with as many threads as there are cores."""
    from av.video.frame import VideoFrame

    try:
        VideoFrame(2, 2, "rgb24").reformat(width=2, height=2, threads=1)
    except TypeError:
        return {}
    return {"threads": 1}
