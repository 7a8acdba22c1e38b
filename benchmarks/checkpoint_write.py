"""What it costs to write a checkpoint whole, beside torch.save and Lightning, and to verify it.

Writes the same content in turns, each repeat in all ways, and prints medians, their ratio to
``torch.save``, and the largest memory that a process of its own took beyond the content. A plain
``torch.save`` leaves the bytes to the system; ``torch.save + fsync`` waits for the disk, too, as
whole files do.

    python benchmarks/checkpoint_write.py
    python benchmarks/checkpoint_write.py --megabytes 1000 --folder /data
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lit_ssl.checkpoints.whole import damage
from lit_ssl.trainer.checkpoint_io import WholeCheckpointIO

TENSORS = 50


def make_content(megabytes: int) -> dict[str, Any]:
    """Weights as of a run, in tensors of one size."""
    count = megabytes * 10**6 // 4 // TENSORS
    state = {f"layer.{number}": torch.randn(count) for number in range(TENSORS)}
    return {"epoch": 1, "global_step": 100, "state_dict": state}


def save_and_sync(content: dict[str, Any], path: Path) -> None:
    """Plain torch.save, and then wait for the disk."""
    with path.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())


WAYS: dict[str, Callable[[dict[str, Any], Path], Any]] = {
    "torch.save": torch.save,
    "torch.save + fsync": save_and_sync,
    "Lightning": TorchCheckpointIO().save_checkpoint,
    "whole": WholeCheckpointIO().save_checkpoint,
}


def seconds(action: Callable[[], Any]) -> float:
    """Time of one call, after the disk has come to rest."""
    os.sync()
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def memory_beyond(way: str, megabytes: int, folder: Path) -> float:
    """Megabytes that a process of its own needs at most beyond the content."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        content = make_content(megabytes)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        WAYS[way](content, folder / "memory.ckpt")
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        os.write(writer, str((after - before) / 1024).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as result:
        return float(result.read())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        folder = Path(made)
        memory = {way: memory_beyond(way, options.megabytes, folder) for way in WAYS}
        content = make_content(options.megabytes)
        times: dict[str, list[float]] = {way: [] for way in WAYS}
        for number in range(options.repeats):
            for way, write in WAYS.items():
                path = folder / f"{number % 2}.ckpt"
                path.unlink(missing_ok=True)
                times[way].append(seconds(lambda write=write, path=path: write(content, path)))
        base = statistics.median(times["torch.save"])
        print(f"{options.megabytes} MB, median of {options.repeats}, torch {torch.__version__}")
        for way, found in times.items():
            middle = statistics.median(found)
            ratios = [a / b for a, b in zip(found, times["torch.save"], strict=True)]
            print(
                f"{way:<20} {middle * 1e3:7.0f} ms  {middle / base:5.2f} x  (each pair: median"
                f" {statistics.median(ratios):.2f} x)  + {memory[way]:.0f} MB of memory"
            )
        path = folder / "0.ckpt"
        rate = options.megabytes / 1e3 / seconds(lambda: damage(path))
        print(f"verifying            {rate:7.1f} GB/s")


if __name__ == "__main__":
    sys.exit(main())
