"""What the packets of a video file say about it: frames, rate, size."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lit_ssl.video.demux import FrameTable, display_matrix, frame_table, open_video
from lit_ssl.video.frames import UnreadableVideo, is_turned

if TYPE_CHECKING:
    from av.video.stream import VideoStream

__all__ = ["VideoFacts", "look_at_video", "probe_video"]


class VideoFacts(NamedTuple):
    """A video in numbers.

    Attributes:
        frames: How many can be read; 0: the file cannot be read at all.
        fps: Frames per second, the mean where they vary.
        width: Pixels, upright.
        height: Pixels, upright.
    """

    frames: int
    fps: float
    width: int
    height: int


_UNREADABLE = VideoFacts(frames=0, fps=0.0, width=0, height=0)


def probe_video(path: str | Path) -> VideoFacts:
    """Return what is known of a video; only its first frame is decoded.

    A file that cannot be read has 0 frames. Frames after damage inside a packet count, too: that
    shows when they are read.

    Args:
        path: of the file.

    Raises:
        InputImportError: PyAV is not installed.
    """
    return look_at_video(path)[0]


def look_at_video(path: str | Path) -> tuple[VideoFacts, str]:
    """Return what is known of a video, and why it cannot be read, which is empty where it can.

    Args:
        path: of the file.

    Raises:
        InputImportError: PyAV is not installed.
    """
    try:
        with open_video(path) as (container, stream):
            table = frame_table(container, stream, decode_first=True)
            if table.first is None or table.count == 0:
                raise UnreadableVideo(path, "it has no frame that can be decoded")
            width, height = table.first.width, table.first.height
            if is_turned(display_matrix(table.first)):
                width, height = height, width
            return VideoFacts(table.count, _rate(stream, table), width, height), ""
    except UnreadableVideo as error:
        return _UNREADABLE, error.why


def _rate(stream: VideoStream, table: FrameTable) -> float:
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate:
            return float(rate)
    if table.times is None or table.count < 2 or stream.time_base is None:
        return 0.0
    seconds = float((table.times[-1] - table.times[0]) * stream.time_base)
    return (table.count - 1) / seconds


def _main() -> None:
    """Probe the files of standard input, a JSON string a line; answer with a JSON list a line."""
    for line in sys.stdin:
        facts, why = look_at_video(json.loads(line))
        print(json.dumps([*facts, why]), flush=True)


if __name__ == "__main__":
    _main()
