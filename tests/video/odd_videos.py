"""Videos whose frames are easily miscounted, made of the packets of others."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from video_files import bar_frames, bar_video


def open_gop(path, frames=48):
    """B-frames before a keyframe in the order of showing refer to the group before it."""
    with av.open(str(path), "w") as container:
        options = {"x264-params": "open-gop=1:keyint=12:bframes=2:b-adapt=0:scenecut=0"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for number, pixels in enumerate(bar_frames(frames)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def copied(source, path, first=0, later=0):
    """Copy a video's packets from number `first` on, shown `later` ticks of 1 / 12800 s later."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(old.demux(video=0)):
            if packet.size and number >= first:
                packet.pts += later
                packet.dts += later
                packet.stream = stream
                new.mux(packet)
    return path


def hidden_start(path, frames=48, hidden=5):
    """The first frames are in the file, and its edit list leaves them out."""
    source = bar_video(path.with_name("whole.mp4"), frames, codec="libx264", bframes=2)
    return copied(source, path, later=-512 * hidden)


def damaged(path, number):
    """Overwrite the second half of a packet in place."""
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    start, size = packets[number]
    content = bytearray(path.read_bytes())
    noise = np.random.default_rng(0).integers(0, 256, size - size // 2, dtype=np.uint8)
    content[start + size // 2 : start + size] = noise.tobytes()
    path.write_bytes(content)
    return path
