"""Writes small videos in which every frame tells its number, also after lossy coding.

The upper half of a frame is a grid of 2 × 5 black or white cells, the bits of its number; the lower
half is red, green and blue from left to right, so that mirrored, turned or swapped pixels show.
"""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

_ROWS, _COLUMNS = 2, 5
MOST_FRAMES = 2 ** (_ROWS * _COLUMNS)


def bar_frames(frames, size=(48, 64)):
    """Frames 0 to `frames - 1`, uint8 [T, H, W, 3], for `size` = (H, W)."""
    if not 0 <= frames <= MOST_FRAMES:
        raise ValueError(f"at most {MOST_FRAMES} frames have numbers")
    height, width = size
    rows = np.arange(height) * 2 * _ROWS // height
    columns = np.arange(width) * _COLUMNS // width
    bits = rows[:, None] * _COLUMNS + columns
    cells = (np.arange(frames)[:, None, None] >> np.minimum(bits, _ROWS * _COLUMNS)) & 1
    video = np.repeat((cells * 255).astype(np.uint8)[..., None], 3, axis=3)
    channels = np.arange(width) * 3 // width
    colours = np.array([[200, 30, 30], [30, 160, 30], [30, 30, 220]], dtype=np.uint8)
    video[:, rows >= _ROWS] = colours[channels]
    return video


def bar_number(frame):
    """Number of a frame, uint8 [H, W, 3], upright and of any size."""
    height, width = frame.shape[:2]
    number = 0
    for bit in range(_ROWS * _COLUMNS):
        row, column = divmod(bit, _COLUMNS)
        y = int((row + 0.5) * height / (2 * _ROWS))
        x = int((column + 0.5) * width / _COLUMNS)
        number |= int(frame[y, x].mean() > 127) << bit
    return number


def bar_video(
    path,
    frames,
    fps=25,
    size=(48, 64),
    codec="mpeg4",
    gop=12,
    bframes=0,
    variable=False,
    rotation=0,
):
    """Write frames 0 to `frames - 1`; the folder is made.

    `size` = (H, W) is what a viewer sees. `variable`: every second frame stays three times as long,
    at the same mean rate (not .avi). `rotation`: the stored picture has to be turned by so many
    degrees clockwise, and the display matrix says so (.mp4, .mov).
    """
    video = np.rot90(bar_frames(frames, size), rotation // 90, axes=(1, 2))
    path = encode(path, video, fps, codec, gop, bframes, variable)
    if rotation:
        _set_display_matrix(path, rotation, *video.shape[1:3])
    return path


def encode(path, video, fps=25, codec="mpeg4", gop=12, bframes=0, variable=False):
    """Write uint8 [T, H, W, 3] as it is, in yuv420p."""
    import av

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    rate = Fraction(fps).limit_denominator(1001)
    options = {"bf": str(bframes)}
    if codec == "libx264":
        options |= {"crf": "18", "b-adapt": "0", "sc_threshold": "0"}
    elif codec in ("mpeg4", "mpeg2video"):
        options |= {"qmin": "2", "qmax": "6"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = video.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.gop_size = gop
        ticks = 2 if variable else 1
        stream.codec_context.time_base = 1 / (rate * ticks)
        for number, pixels in enumerate(video):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.time_base = 1 / (rate * ticks)
            frame.pts = number * ticks + (number % 2 if variable else 0)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def truncated(path, share=0.5):
    """Cut a file in place; an .mp4 loses its index and cannot be opened, an .avi its later frames.

    The header of an .avi takes 5 kB: write 150 frames, or a share of 0.8, where some should stay.
    """
    path = Path(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


class UCF101(NamedTuple):
    """Folders of the fixture."""

    videos: Path
    annotations: Path


UCF101_CLASSES = {"ApplyEyeMakeup": 1, "HandstandPushups": 2, "YoYo": 3}


def write_ucf101(root, frames=24):
    """Write UCF101's layout: 3 classes × 4 groups × 2 clips of 64 × 48 pixels, and fold 1.

    Groups 1 and 2 are for testing, 8 and 9 for training. As in the original, the files of
    HandstandPushups are spelt otherwise on disk than in the lists.
    """
    root = Path(root)
    lists = {"train": [], "test": []}
    for name, label in UCF101_CLASSES.items():
        for group in (1, 2, 8, 9):
            for clip in (1, 2):
                file = f"v_{name}_g{group:02}_c{clip:02}.avi"
                on_disk = file.replace("HandstandPushups", "HandStandPushups")
                video = _moving_shape(frames, label, start=group * 2 + clip)
                encode(root / "UCF-101" / name / on_disk, video)
                if group < 8:
                    lists["test"].append(f"{name}/{file}")
                else:
                    lists["train"].append(f"{name}/{file} {label}")
    folder = root / "ucfTrainTestlist"
    folder.mkdir()
    classes = [f"{label} {name}" for name, label in UCF101_CLASSES.items()]
    for file, lines in (("classInd", classes), *((f"{k}list01", v) for k, v in lists.items())):
        (folder / f"{file}.txt").write_text("\r\n".join(lines) + "\r\n")
    return UCF101(root / "UCF-101", folder)


def _moving_shape(frames, label, start, size=(48, 64)):
    """The upper half as in `bar_frames`; below it a block of the colour of its class that moves."""
    height, width = size
    video = bar_frames(frames, size)
    video[:, height // 2 :] = 90
    side = height // 5
    room = width - side
    for number, frame in enumerate(video):
        left = abs((start * 5 + (1 + label) * number) % (2 * room) - room)
        frame[height * 5 // 8 : height * 5 // 8 + side, left : left + side] = 30
        frame[height * 5 // 8 : height * 5 // 8 + side, left : left + side, label - 1] = 230
    return video


def _set_display_matrix(path, rotation, height, width):
    """Write the matrix of the track's header (ISO 14496-12, 8.3.2) over that of no rotation."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4
    assert content[at] == 0, "a header of version 0"
    one = 1 << 16
    turned = {
        90: (0, one, 0, -one, 0, 0, height * one, 0, 1 << 30),
        180: (-one, 0, 0, 0, -one, 0, width * one, height * one, 1 << 30),
        270: (0, -one, 0, one, 0, 0, 0, width * one, 1 << 30),
    }
    content[at + 40 : at + 76] = struct.pack(">9i", *turned[rotation])
    path.write_bytes(content)
