"""What reading a random clip costs with each reader, and finding out the facts of many videos.

    python benchmarks/video_readers.py               # two kinds of files
    python benchmarks/video_readers.py --large       # and 1280 × 720, which takes a while to write
    python benchmarks/video_readers.py --files 20000 # of the index

Processor milliseconds (user and system) of one process for opening, seeking, decoding 16 frames and
resizing them to a shorter side of 64 pixels: the median over clips with random starts. The videos
are written first; they show noise and waves that move. A file of the index is one of those under
another name.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lit_ssl.errors import InputImportError
from lit_ssl.video import (
    PyAVReader,
    TorchcodecReader,
    VideoReader,
    build_clip_index,
    random_clip,
)

LENGTH, SHORTER = 16, 64


class Kind(NamedTuple):
    """A kind of video files."""

    name: str
    file: str
    size: tuple[int, int]
    frames: int
    codec: str
    group: int
    bframes: int


KINDS = [
    Kind("320 × 240 MPEG-4, group 12", "ucf.avi", (240, 320), 180, "mpeg4", 12, 0),
    Kind("340 × 256 H.264, group 250", "kinetics.mp4", (256, 340), 300, "libx264", 250, 2),
    Kind("340 × 256 H.264, group 30", "short.mp4", (256, 340), 300, "libx264", 30, 2),
]
LARGE = Kind("1280 × 720 H.264, group 250", "drive.mov", (720, 1280), 400, "libx264", 250, 2)


def write(folder: Path, kind: Kind) -> Path:
    """Write a video of a kind."""
    import av

    height, width = kind.size
    noise = np.random.default_rng(0).integers(0, 10, (height, width, 3))
    y, x = np.mgrid[:height, :width]
    path = folder / kind.file
    with av.open(str(path), "w") as container:
        stream = container.add_stream(kind.codec, rate=25, options={"bf": str(kind.bframes)})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.gop_size = kind.group
        for number in range(kind.frames):
            waves = 110 + 60 * np.sin((x + 3 * number) / 17) + 40 * np.cos((y - 2 * number) / 23)
            pixels = (waves[..., None] + np.roll(noise, 2 * number, axis=1)).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def clip_ms(reader: VideoReader, path: Path, frames: int, clips: int) -> float:
    """Median processor milliseconds of a random clip."""
    times = []
    for seed in range(clips):
        numbers = random_clip(frames, LENGTH, 1, seed)
        start = time.process_time()
        reader.read(path, numbers, SHORTER)
        times.append(time.process_time() - start)
    return 1e3 * statistics.median(times)


def index_times(path: Path, folder: Path, files: int) -> None:
    """Print seconds of making an index of many files, and of opening it again."""
    names = [f"{number:06}{path.suffix}" for number in range(files)]
    for name in names:
        os.link(path, folder / name)
    for what in ("made", "read"):
        wall, cpu = time.perf_counter(), sum(os.times()[:4])
        index = build_clip_index(folder, names, folder / "cache")
        wall, cpu = time.perf_counter() - wall, sum(os.times()[:4]) - cpu
        assert len(index) == files
        print(
            f"index of {files:,} files {what}: {wall:.2f} s, {cpu:.2f} processor seconds"
            f" ({1e3 * cpu / files:.2f} ms a file)",
            flush=True,
        )


def main() -> None:
    """Print a row per kind of file, a column per reader, then the index."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--large", action="store_true")
    args = parser.parse_args()
    readers: dict[str, VideoReader] = {"pyav": PyAVReader()}
    try:
        readers["torchcodec"] = TorchcodecReader()
    except InputImportError as error:
        print(error)
    print(f"{'CPU-ms per clip':<30} " + " ".join(f"{name:>10}" for name in readers))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for kind in [*KINDS, LARGE] if args.large else KINDS:
            path = write(folder, kind)
            row = [clip_ms(reader, path, kind.frames, args.clips) for reader in readers.values()]
            print(f"{kind.name:<30} " + " ".join(f"{ms:10.1f}" for ms in row), flush=True)
        (folder / "many").mkdir()
        index_times(folder / KINDS[0].file, folder / "many", args.files)


if __name__ == "__main__":
    main()
