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


def packed(path, frames=40):
    """As XviD writes .avi: a frame and the B-frame before it in one packet, then one of nothing."""
    folder = path.parent
    source = bar_video(folder / "packed.m4v", frames, bframes=1)
    layout = bar_video(folder / "layout.avi", 9, bframes=1)
    with av.open(str(source)) as container:
        vops = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    kinds = [vop[vop.index(b"\0\0\1\xb6") + 4] >> 6 for vop in vops]  # 0 I, 1 P, 2 B
    start = vops[0].index(b"\0\0\1\xb6")
    vops[0] = vops[0][:start] + b"\0\0\1\xb2DivX503b1393p" + vops[0][start:]
    packets = []
    for vop, kind in zip(vops, kinds, strict=True):
        if kind == 2:
            packets[-1] = packets[-1][0] + vop, packets[-1][1]
            packets.append((b"\0\0\1\xb6\x51\x7f", False))
        else:
            packets.append((vop, kind == 0))
    with av.open(str(layout)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, (content, is_key) in enumerate(packets):
            packet = av.Packet(content)
            packet.pts = packet.dts = number
            packet.time_base, packet.stream = Fraction(1, 25), stream
            packet.is_keyframe = is_key
            new.mux(packet)
    return path
