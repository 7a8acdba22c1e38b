"""A sweep of linear heads in one pass against one run per head, in one process.

One after another, each head costs a run of its own: every image goes through the frozen encoder and
then through the head. In one pass the encoder runs once for all heads. (Reading and augmenting the
images, which one pass saves as well, is not in the times.) The rows "heads alone" leave the encoder
out: on features that are already there, one batched step against a loop of single steps.

    python benchmarks/linear_sweep.py
    python benchmarks/linear_sweep.py --device cuda --backbone vit_small_patch16_224 --batch 1024 \
        --size 224 --classes 1000 --heads 20 --precision bf16

Times are medians of interleaved repeats; the ratio is one after another / one pass (above 1: one
pass is faster).
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_ssl.metrics import ProbeHead, ProbeHeads, probe_losses
from lit_ssl.models import ProbeFeatures, create_backbone
from lit_ssl.optim import StackedSGD

Step = Callable[[Tensor], None]


def rates(heads: int) -> list[float]:
    """Learning rates of the sweep, 0.1 to about 50."""
    return [0.1 * 500 ** (n / max(heads - 1, 1)) for n in range(heads)]


def one_pass(heads: int, width: int, options: argparse.Namespace) -> Step:
    """A step of all heads on features ``[B, D]``."""
    module = ProbeHeads(heads, width, options.classes).to(options.device)
    optimizer = StackedSGD(module.parameters(), rates(heads), [0.0] * heads)

    def step(features: Tensor) -> None:
        loss = probe_losses(module(features), options.labels).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def single(rate: float, width: int, options: argparse.Namespace) -> Step:
    """A step of one head on features ``[B, D]``."""
    module = ProbeHead(width, options.classes).to(options.device)
    optimizer = torch.optim.SGD(module.parameters(), lr=rate, momentum=0.9, nesterov=True)

    def step(features: Tensor) -> None:
        loss = F.cross_entropy(module(features), options.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def encoder(options: argparse.Namespace) -> tuple[Callable[[Tensor], Tensor], int]:
    """Frozen features of images, and their width."""
    sized = options.size and "vit" in options.backbone  # others take any size
    kwargs = {"img_size": options.size} if sized else {}
    backbone, width = create_backbone(options.backbone, kwargs)
    backbone = backbone.to(options.device).eval().requires_grad_(False)
    extract = ProbeFeatures(backbone, width)

    @torch.no_grad()
    def features(images: Tensor) -> Tensor:
        autocast = torch.autocast(
            images.device.type, torch.bfloat16, enabled=options.precision == "bf16"
        )
        with autocast:
            return extract(images)[0].float()

    return features, extract.widths[0]


def seconds(work: Callable[[], None], device: str) -> float:
    """Time of one call."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(name: str, works: dict[str, Callable[[], None]], options: argparse.Namespace) -> None:
    """Time two ways in turn and print a row."""
    times: dict[str, list[float]] = {key: [] for key in works}
    for repeat in range(options.repeats + 1):
        for key, work in works.items():
            took = seconds(work, options.device)
            if repeat:  # the first warms up
                times[key].append(took)
    loop, batched = (statistics.median(times[key]) for key in ("loop", "pass"))
    print(
        f"{name:<24} {loop * 1e3:>14.1f} {batched * 1e3:>12.1f} {loop / batched:>6.2f}", flush=True
    )


def run(heads: int, options: argparse.Namespace) -> None:
    """Both comparisons for a number of heads."""
    encode, width = encoder(options)
    size = options.size or 224
    images = torch.randn(options.batch, 3, size, size, device=options.device)
    cached = torch.randn(options.batch, width, device=options.device)
    together = one_pass(heads, width, options)
    alone = [single(rate, width, options) for rate in rates(heads)]

    def each(features: Callable[[], Tensor]) -> None:
        for step in alone:
            step(features())

    compare(
        f"{heads} heads, with encoder",
        {"loop": lambda: each(lambda: encode(images)), "pass": lambda: together(encode(images))},
        options,
    )
    compare(
        f"{heads} heads alone",
        {"loop": lambda: each(lambda: cached), "pass": lambda: together(cached)},
        options,
    )


def hardware(device: str) -> str:
    """Name of the processor that the times belong to."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "CPU"


def main() -> None:
    """Parse the options, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--backbone", default="vit_tiny_patch16_224")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--heads", type=int, nargs="+", default=[4, 20])
    parser.add_argument("--size", type=int, default=64, help="pixels; 0: the backbone's own")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    options.labels = torch.arange(options.batch, device=options.device) % options.classes
    print(
        f"{options.backbone}, {options.batch} images of {options.size or 224} pixels, "
        f"{options.classes} classes, {options.precision}; encoder and heads of one training step"
    )
    print(
        f"{hardware(options.device)}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads, {options.repeats} repeats"
    )
    print(f"{'':<24} {'one by one ms':>14} {'one pass ms':>12} {'ratio':>6}")
    for heads in options.heads:
        run(heads, options)


if __name__ == "__main__":
    main()
