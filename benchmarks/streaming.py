"""What reading from shards costs beside reading files: images per CPU-second, in one run.

    python benchmarks/streaming.py

Writes 240 photographs of 500 x 375 pixels, makes shards of them, and reads all in a random order:
from files, from shards in a folder, from shards of a web server on this machine that are kept here,
and from that server image by image. The server is another process, whose time does not count. Each
way is timed ``--repeats`` times, in turn; the table has the best of each.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lit_ssl.datamodules import ImageFolderDataModule, StreamingImageDataModule
from lit_ssl.datamodules.streaming.sharding import shard_images
from lit_ssl.transforms import CropSpec, SingleView


class _Ranges(SimpleHTTPRequestHandler):
    """Files of a folder, whole or in parts."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer one request."""
        part = self.headers.get("Range")
        if part is None:
            super().do_GET()
            return
        first, last = map(int, part.removeprefix("bytes=").split("-"))
        with open(self.translate_path(self.path), "rb") as file:
            file.seek(first)
            content = file.read(last + 1 - first)
        self.send_response(206)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def serve(folder: str, port: multiprocessing.Queue) -> None:
    """Serve a folder until the process is ended; its port goes into the queue."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Ranges, directory=folder))
    port.put(server.server_port)
    server.serve_forever()


def _photographs(folder: Path, count: int) -> None:
    """Smooth shapes with some noise, so that a file has about 100 kB."""
    draws = np.random.default_rng(0)
    for number in range(count):
        path = folder / "train" / f"class{number % 10}" / f"{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = draws.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        large = np.asarray(Image.fromarray(small).resize((500, 375), Image.Resampling.BICUBIC))
        noise = draws.normal(0, 14, large.shape)
        pixels = np.clip(large + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path, quality=90)


def _reader(data: ImageFolderDataModule | StreamingImageDataModule, part: str) -> Callable:
    data.setup("fit")
    rows = data.rows("train")
    assert rows is not None
    order = np.random.default_rng(1).permutation(len(rows)).tolist()
    images = rows.source.images  # type: ignore[attr-defined]
    served = data.training_set(data.train_transform)

    def bytes_only() -> None:
        for row in order:
            if hasattr(images, "encoded"):
                images.encoded(row)
            else:
                Path(images.folder, images.names[row]).read_bytes()

    def decoded() -> None:
        for row in order:
            images.read(row)

    def views() -> None:
        for begin in range(0, len(order), 32):
            served.__getitems__([(row, row) for row in order[begin : begin + 32]])

    return {"bytes": bytes_only, "decoded": decoded, "crop and flip": views}[part]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=240)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _photographs(folder / "files", args.images)
        options = {
            "num_workers": 0,
            "train_transform": SingleView(CropSpec(size=224, scale=(0.08, 1.0), hflip=0.5)),
        }
        files = ImageFolderDataModule(root=str(folder / "files"), **options)
        start = time.process_time()
        report = shard_images(files, folder / "shards", size=4_000_000)
        seconds = time.process_time() - start
        print(f"{args.images} images, {report.size / args.images / 1e3:.0f} kB each")
        print(f"lit-ssl shard: {report.size / 1e6 / seconds:,.0f} MB per CPU-second")
        port = multiprocessing.Queue()
        server = multiprocessing.Process(
            target=serve, args=(str(folder / "shards"), port), daemon=True
        )
        server.start()
        url = f"http://127.0.0.1:{port.get()}"
        stream = partial(StreamingImageDataModule, **options)
        ways = {
            "files": files,
            "shards in a folder": stream(url=str(folder / "shards")),
            "shards of a server, kept": stream(url=url, cache_dir=str(folder / "kept")),
            "shards of a server, image by image": stream(
                url=url, cache_dir=str(folder / "few"), cache_size="4.5MB"
            ),
        }
        parts = ("bytes", "decoded", "crop and flip")
        best = {(way, part): float("inf") for way in ways for part in parts}
        for part in parts:
            readers = {way: _reader(data, part) for way, data in ways.items()}
            for turn in range(args.repeats + 1):
                for way, read in readers.items():
                    start = time.process_time()
                    read()
                    if turn:  # the first one fetches
                        best[way, part] = min(best[way, part], time.process_time() - start)
        server.terminate()
        print(f"{'images per CPU-second':<36}" + "".join(f"{part:>15}" for part in parts))
        for way in ways:
            rates = "".join(f"{args.images / best[way, part]:>15,.0f}" for part in parts)
            print(f"{way:<36}{rates}")


if __name__ == "__main__":
    main()
