"""Which frames a video file has, by its packets: nothing, or next to nothing, is decoded.

Frames are numbered in the order in which they are shown, from 0. Not counted are packets that an
edit list hides, those before the first keyframe, and what follows a packet that is cut short.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EINVAL
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lit_ssl.errors import InputImportError
from lit_ssl.video.frames import UnreadableVideo

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

__all__ = [
    "FrameTable",
    "decoded_frames",
    "display_matrix",
    "frame_table",
    "need_pyav",
    "open_video",
]


def need_pyav() -> None:
    """Raise ``InputImportError`` where PyAV is not installed.

    Raises:
        InputImportError: It is not.
    """
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise InputImportError(
            "Reading videos needs the package av (PyAV): pip install 'lit-ssl[video]'"
        ) from error


# Formats that hold their pictures themselves: others are lists of files and addresses, which a file
# from elsewhere must not choose.
_FORMATS = (
    "mov", "matroska", "avi", "mpegts", "mpeg", "flv", "asf", "ogg", "mxf", "nut", "ivf", "rm",
    "dv", "gif", "apng", "yuv4mpegpipe", "mpegvideo", "m4v", "h263", "h264", "hevc", "vvc", "obu",
    "mjpeg",
)  # fmt: skip
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": ",".join(_FORMATS)}


@dataclass(frozen=True)
class FrameTable:
    """The frames of a video.

    Attributes:
        count: How many there are.
        times: When each is shown, int64 ``[count]``, increasing, in the stream's time base; None
            where the packets do not tell.
        keys: Times of the packets that decoding may start at, int64, increasing.
        leading: The first keyframe is not the first frame that is shown. Frames before it may lack
            what they refer to; no decoder shows them then, but only decoding tells.
        first: The first frame where it was decoded.
    """

    count: int
    times: np.ndarray | None
    keys: np.ndarray
    leading: bool
    first: VideoFrame | None


@contextmanager
def open_video(path: str | Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and its video stream, with one decoder thread, and close it.

    Args:
        path: of a regular file.

    Raises:
        UnreadableVideo: FFmpeg cannot open it or, in the body, go on with it; it has no video.
        InputImportError: PyAV is not installed.
    """
    need_pyav()
    import av

    if os.path.exists(path) and not os.path.isfile(path):  # a pipe would be waited for
        raise UnreadableVideo(path, "it is no regular file")
    try:
        # The prefix keeps names with a colon from being addresses.
        with av.open(f"file:{path}", metadata_errors="ignore", options=_OPTIONS) as container:
            stream = container.streams.best("video")
            if not isinstance(stream, av.VideoStream) or stream.codec_context is None:
                raise UnreadableVideo(path, "it has no video that FFmpeg knows")
            stream.codec_context.thread_count = 1
            yield container, stream
    except (av.FFmpegError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        if isinstance(error, av.EOFError):
            why = "it ends too early"
        elif getattr(error, "errno", None) == EINVAL:
            why = "it is of no format that is known for videos"
        raise UnreadableVideo(path, why[:1].lower() + why[1:]) from error


def frame_table(
    container: InputContainer, stream: VideoStream, decode_first: bool = False
) -> FrameTable:
    """Go through all packets of a video that was just opened.

    Args:
        container: The file.
        stream: Its video.
        decode_first: Decode the first frame, too. Then frames that no decoder shows because they
            come before it are not counted.
    """
    times: list[int | None] = []
    keys: list[int] = []
    first: VideoFrame | None = None
    started = False
    for packet in container.demux(stream):
        if packet.is_corrupt:
            break
        started = started or (packet.is_keyframe and packet.size > 0)
        if not started or packet.size == 0:
            continue
        if packet.is_keyframe and packet.pts is not None:
            keys.append(packet.pts)
        if not packet.is_discard:
            times.append(packet.pts)
        if decode_first and first is None:
            first = next(iter(packet.decode()), None)
    if decode_first and first is None and started:
        first = next(iter(stream.decode(None)), None)
    # .avi stores no times: of streams whose frames are reordered FFmpeg may give those of decoding.
    guessed = container.format.name == "avi" and stream.codec_context.has_b_frames
    order = None if guessed and times == sorted(times, key=_or_zero) else _increasing(times)
    leading = order is not None and bool(keys) and len(order) > 0 and keys[0] > order[0]
    if leading and order is not None and first is not None and first.pts is not None:
        order = order[order >= first.pts]
    count = len(times) if order is None else len(order)
    return FrameTable(count, order, np.unique(np.array(keys, np.int64)), leading, first)


def decoded_frames(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Decode all frames of ``frame_table`` from a file that was just opened.

    Args:
        container: the file, of which nothing was read yet.
        stream: its video.
    """
    started = False
    for packet in container.demux(stream):
        if packet.is_corrupt:
            break
        started = started or (packet.is_keyframe and packet.size > 0)
        if started and packet.size > 0:
            yield from packet.decode()
    if started:
        yield from stream.decode(None)


def display_matrix(frame: VideoFrame) -> np.ndarray | None:
    """Return the display matrix of a decoded frame, int32 ``[9]``, if it has one.

    Args:
        frame: of PyAV.
    """
    side_data: Any = frame.side_data.get("DISPLAYMATRIX")
    return None if side_data is None else np.frombuffer(bytes(side_data), np.int32)


def _or_zero(time: int | None) -> int:
    return 0 if time is None else time


def _increasing(times: list[int | None]) -> np.ndarray | None:
    known = [time for time in times if time is not None]
    order = np.sort(np.array(known, np.int64))
    if len(known) < len(times) or (np.diff(order) <= 0).any():
        return None
    return order
