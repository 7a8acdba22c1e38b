"""A step of fused optimisers against torch's loop and foreach, on the shapes of two networks.

Each way updates its own copy of the same parameters by the same gradients, in turn, in one process;
times are medians of CPU time (``--device cuda``: of the clock, synchronised), the ratio is the
faster of loop and foreach / fused.

    OMP_NUM_THREADS=1 python benchmarks/optimizers.py
    python benchmarks/optimizers.py --device cuda
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import timm
import torch
from torch import nn

from lit_ssl.optim.adamw import adam, adamw, sgd

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "demo": ("vit_tiny_patch16_224", {"img_size": 28, "patch_size": 4, "in_chans": 1,
                                      "embed_dim": 96, "depth": 4, "num_heads": 4}),
    "ViT-S/16": ("vit_small_patch16_224", {}),
    "ResNet-50": ("resnet50", {}),
}  # fmt: skip
OPTIMIZERS: dict[str, tuple[Callable[..., Any], Callable[..., Any], dict[str, Any]]] = {
    "AdamW": (adamw, torch.optim.AdamW, {"lr": 1e-3, "weight_decay": 0.04}),
    "Adam": (adam, torch.optim.Adam, {"lr": 1e-4, "betas": (0.0, 0.999)}),
    "SGD": (sgd, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
}


def timed(step: Callable[[], Any], device: str) -> float:
    """Seconds of one step."""
    if device == "cpu":
        start = time.process_time()
        step()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def copies(shapes: list[torch.Size], device: str) -> list[nn.Parameter]:
    """Parameters with gradients, the same in each call."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for shape in shapes:
        parameter = nn.Parameter(torch.randn(shape, generator=generator).to(device))
        parameter.grad = torch.randn(shape, generator=generator).to(device)
        made.append(parameter)
    return made


def main() -> None:
    """Parse the options, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    name = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(f"torch {torch.__version__}, {name}, {torch.get_num_threads()} threads")
    print("network    optimizer  loop ms  foreach ms  fused ms  ratio  largest difference")
    for network in options.networks:
        kind, kwargs = NETWORKS[network]
        model = timm.create_model(kind, num_classes=0, **kwargs)
        shapes = [parameter.shape for parameter in model.parameters()]
        for label, (ours, theirs, settings) in OPTIMIZERS.items():
            sets = [copies(shapes, options.device) for _ in range(3)]
            ways = [
                theirs(sets[0], foreach=False, **settings),
                theirs(sets[1], foreach=True, **settings),
                ours(sets[2], **settings),
            ]
            times: list[list[float]] = [[], [], []]
            for repeat in range(options.repeats + 2):
                for way, seconds in zip(ways, times, strict=True):
                    took = timed(way.step, options.device)
                    if repeat > 1:
                        seconds.append(took)
            loop, foreach, fused = (1e3 * statistics.median(seconds) for seconds in times)
            far = max(
                float((a - b).detach().abs().max()) for a, b in zip(sets[0], sets[2], strict=True)
            )
            print(
                f"{network:<10} {label:<9} {loop:>8.2f} {foreach:>11.2f} {fused:>9.2f} "
                f"{min(loop, foreach) / fused:>6.1f} {far:>19.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
