"""Peak memory and time of a training step of an upper level: by window, and by length of the video.

An upper level of a cascade trains on windows of the level below, so that a step should cost in
proportion to the window and, but for the level below, which makes a window of its video without
gradients, nothing for the length of the whole video. Each row is a process of its own.

    python benchmarks/video_window.py                              # CPU, minutes on one core
    python benchmarks/video_window.py --device cuda --size large --precision bf16

CPU memory is the growth of the process's largest resident set over what it was before the networks
were built, CUDA memory the peak that was allocated; beside it stands what ``lit-ssl video-plan``
counts, without workspace and level 1. A step: one of the discriminators and one of the generator,
with Adam. Times are medians of ``--repeats`` steps after a first one.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import torch

from lit_ssl.methods import CascadedVideoGAN
from lit_ssl.methods.video.costs import level_cost
from lit_ssl.models.video.cascade import GeneratorCascade
from lit_ssl.models.video.level import LevelSpec

# options of the upper level, channels of level 1, batch, frames of the whole video
SIZES: dict[str, tuple[dict[str, Any], int, int, int]] = {
    "small": ({"resolution": 64, "channels": 8, "d_channels": 8}, 4, 8, 16),
    "large": ({"resolution": 128, "channels": 64, "d_channels": 96}, 96, 8, 48),
}
WINDOWS = (1, 2, 4, 8)
LENGTHS = (1, 2, 4, 8)  # times the usual one


def build(size: str, window: int, frames: int, device: str) -> CascadedVideoGAN:
    """A level 2 on a level 1 of random weights."""
    options, channels, _, _ = SIZES[size]
    module = CascadedVideoGAN(
        level=2, num_frames=frames, window=window, num_classes=10, d_steps=1, **options
    )
    side = options["resolution"] // 2
    below = LevelSpec(
        level=1, num_frames=frames // 2, resolution=(side, side), num_classes=10, channels=channels
    )
    module.lower = GeneratorCascade([below]).requires_grad_(False).eval()
    return module.train().to(device)


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Memory (GiB) and time (s) of a step."""
    window, frames = options.window, options.frames
    batch = options.batch or SIZES[options.size][2]
    if options.device == "cpu":
        torch.set_num_threads(1)
    torch.manual_seed(0)
    before = memory(options.device)
    module = build(options.size, window, frames, options.device)
    of_g = torch.optim.Adam(module.generator.parameters(), lr=1e-4)
    of_d = torch.optim.Adam(module.discriminators.parameters(), lr=5e-4)
    side = SIZES[options.size][0]["resolution"]
    real = torch.zeros(batch, module.frames, 3, side, side, device=options.device)
    labels = torch.zeros(batch, dtype=torch.int64, device=options.device)
    autocast = torch.autocast(
        options.device, dtype=torch.bfloat16, enabled=options.precision == "bf16"
    )

    def step() -> None:
        with autocast:
            loss = module.discriminator_loss(real, labels)[0]
        of_d.zero_grad()
        loss.backward()
        of_d.step()
        module.discriminators.requires_grad_(False)
        with autocast:
            loss = module.generator_loss(batch)
        of_g.zero_grad()
        loss.backward()
        of_g.step()
        module.discriminators.requires_grad_(True)

    seconds = []
    for _ in range(options.repeats + 1):
        start = clock(options.device)
        step()
        seconds.append(clock(options.device) - start)
    return {
        "gib": memory(options.device) - before,
        "seconds": statistics.median(seconds[1:] or seconds),
    }


def memory(device: str) -> float:
    """The most that was in use so far, GiB."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # on macOS: bytes
    return kibibytes / (2**30 if sys.platform == "darwin" else 2**20)


def clock(device: str) -> float:
    """Seconds: of the processor on a CPU, on the wall else."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def counted(size: str, window: int, frames: int, batch: int, precision: str) -> float:
    """What is counted without a step, GiB."""
    shape = SIZES[size][0]
    options = {"level": 2, "num_frames": frames, "window": window, "num_classes": 10, **shape}
    return level_cost(options).memory.total(batch, precision) / 2**30


def row(options: argparse.Namespace, window: int, frames: int) -> None:
    """Measure in a new process, and print."""
    words = [sys.executable, __file__, "--row", "--window", str(window), "--frames", str(frames)]
    for name in ("device", "size", "precision", "repeats", "batch"):
        value = getattr(options, name)
        words += [] if value is None else [f"--{name}", str(value)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    found = json.loads(done.stdout.splitlines()[-1])
    batch = options.batch or SIZES[options.size][2]
    planned = counted(options.size, window, frames, batch, options.precision)
    print(
        f"| {window} | {frames} | {batch} | {found['gib']:.2f} | {planned:.2f} | "
        f"{found['seconds']:.2f} |",
        flush=True,
    )


def main() -> None:
    """Measure all windows, then all lengths."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", choices=list(SIZES), default="small")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--batch", type=int, help="videos; default: 8")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--row", action="store_true", help="measure one row in this process")
    parser.add_argument("--window", type=int)
    parser.add_argument("--frames", type=int)
    options = parser.parse_args()
    if options.row:
        print(json.dumps(measure(options)))
        return
    usual = SIZES[options.size][3]
    windows = [options.window] if options.window else WINDOWS
    lengths = [options.frames] if options.frames else [usual * factor for factor in LENGTHS]
    print("| window | frames of the video | batch | peak, GiB | counted, GiB | s / step |")
    print("|--:|--:|--:|--:|--:|--:|")
    for window in windows:
        row(options, window, lengths[0])
    for frames in lengths[1:]:
        row(options, windows[min(2, len(windows) - 1)], frames)


if __name__ == "__main__":
    main()
