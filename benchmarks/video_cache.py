"""What a clip out of a cache of decoded videos costs, from a folder and from a web server.

    python benchmarks/video_cache.py

Writes caches of 40 videos of 150 frames of 64 x 85 pixels, raw and as JPEG, and reads clips of 16
frames at random: from the folder, from a web server on this machine with shards kept here, and from
that server clip by clip. The server is another process, whose time does not count. Processor
milliseconds of a clip; all ways take turns, and the table has the median of the turns.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from streaming import serve

from lit_ssl.video import VideoCache, random_clip
from lit_ssl.video.cache_checksums import write_checksums
from lit_ssl.video.cache_files import CacheSettings, write_index, write_settings
from lit_ssl.video.cache_shards import Shard

FRAMES, HEIGHT, WIDTH, LENGTH = 150, 64, 85, 16


def _write(folder: Path, settings: CacheSettings, videos: int) -> float:
    """Write a cache of smooth shapes with some noise; return MB per CPU-second of checksums."""
    write_settings(folder, settings)
    draws = np.random.default_rng(0)
    shard, entries = Shard(folder, settings), []
    for number in range(videos):
        small = draws.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        still = np.asarray(Image.fromarray(small).resize((WIDTH, HEIGHT)), dtype=np.int16)
        noise = draws.integers(-6, 7, (FRAMES, HEIGHT, WIDTH, 3), dtype=np.int16)
        shard.add(np.clip(still + noise, 0, 255).astype(np.uint8))
        entries.append(shard.finish(f"{number:03}.avi", 1, FRAMES, 25.0, (HEIGHT, WIDTH)))
    shard.close()
    write_index(folder, entries)
    start = time.process_time()
    write_checksums(folder, settings, {})
    return shard.size / 1e6 / (time.process_time() - start)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=40)
    parser.add_argument("--turns", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for settings in (CacheSettings(64, "raw", 0, "none"), CacheSettings(64, "jpeg", 95, "none")):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            rate = _write(folder / "cache", settings, args.videos)
            port: multiprocessing.Queue[int] = multiprocessing.Queue()
            server = multiprocessing.Process(
                target=serve, args=(str(folder / "cache"), port), daemon=True
            )
            server.start()
            url = f"http://127.0.0.1:{port.get()}"
            caches = {
                "folder": VideoCache(folder / "cache"),
                "server, kept": VideoCache(url, folder / "kept"),
                "server, clip by clip": VideoCache(url, folder / "few", "1MB"),
            }
            times: dict[str, list[float]] = {way: [] for way in caches}
            for turn in range(args.turns + 1):
                for way, cache in caches.items():
                    start = time.process_time()
                    for row in range(args.videos):
                        cache.read(row, random_clip(FRAMES, LENGTH, 1, turn * args.videos + row))
                    if turn:  # the first one fetches
                        times[way].append(1e3 * (time.process_time() - start) / args.videos)
            server.terminate()
        print(f"{settings.format}: checksums {rate:,.0f} MB per CPU-second; CPU-ms of a clip:")
        for way, each in times.items():
            print(f"  {way:<22}{statistics.median(each):8.3f}")


if __name__ == "__main__":
    main()
