"""PAWS' training step against the plain way to write it, on the same network, in one run.

The plain way builds the matrix of smoothed labels, writes the loss on probabilities as in the paper
(targets from a similarity matrix of their own), steps LARS parameter by parameter, and leaves
images in PyTorch's default layout. Both ways do forward, backward and LARS on the
same views, with one forward for each image size.

    python benchmarks/paws_step.py                      # CPU, a WRN-28-2 at 32 pixels
    python benchmarks/paws_step.py --device cuda --batch 256 --images 64 --precision bf16 fp32
    python benchmarks/paws_step.py --device cuda --backbone resnet50 --head --size 224 96 \
        --batch 64 --classes 105 --images 7 --views 1 --precision bf16

Times are medians of interleaved repeats; the ratio is plain / ours (above 1: ours is faster).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_ssl import PAWS
from lit_ssl.contracts.batches import view_major
from lit_ssl.optim import decay_groups, make_lars

Batch = tuple[list[Tensor], Tensor, Tensor]


class PlainLars(torch.optim.Optimizer):
    """LARS as it is usually written: a loop over parameters."""

    def __init__(self, groups: list[dict], lr: float) -> None:
        super().__init__(groups, {"lr": lr, "momentum": 0.9, "weight_decay": 1e-6})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                grad = p.grad
                if group["decay"]:
                    weight, size = p.norm(), grad.norm()
                    if weight > 0 and size > 0:
                        decay = group["weight_decay"]
                        ratio = 1e-3 * weight / (size + decay * weight + 1e-8)
                        grad = (grad + decay * p) * ratio
                state = self.state[p]
                if "buffer" not in state:
                    state["buffer"] = torch.zeros_like(p)
                state["buffer"].mul_(group["momentum"]).add_(grad, alpha=group["lr"])
                p.sub_(state["buffer"])


class PlainStep:
    """The step as one would write it down from the paper."""

    def __init__(self, module: PAWS, num_classes: int) -> None:
        self.module, self.num_classes = module, num_classes
        self.optimizer = PlainLars(decay_groups(module.named_parameters(), 1e-6), 0.1)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        h = self.module.projection_head(self.module.backbone(images))
        head = self.module.prediction_head
        return h, h if head is None else head(h)

    def snn(self, query: Tensor, supports: Tensor, labels: Tensor) -> Tensor:
        query, supports = F.normalize(query), F.normalize(supports)
        return F.softmax(query @ supports.T / 0.1, dim=1) @ labels

    def __call__(self, batch: Batch) -> None:
        views, supports, labels = batch
        rows, size = supports.shape[0] * supports.shape[1], len(views[0])
        h, z = self.encode(torch.cat([view_major(supports), view_major(views[0])]))
        small = [self.encode(view_major(view))[1] for view in views[1:]]
        with torch.autocast(h.device.type, enabled=False):
            one_hot = F.one_hot(labels.repeat(supports.shape[1]), self.num_classes).float()
            matrix = 0.9 * one_hot + 0.1 / self.num_classes
            anchors = torch.cat([z[rows:], *small]).float()
            probs = self.snn(anchors, z[:rows].float(), matrix)
            with torch.no_grad():
                targets = self.snn(h[rows:].float(), h[:rows].float(), matrix) ** 4
                targets = targets / targets.sum(dim=1, keepdim=True)
                first, second = targets.split(size)
                mean = (first + second) / 2
                targets = torch.cat([second, first, *[mean] * (len(probs) // size - 2)])
                targets[targets < 1e-4] = 0
            loss = -(targets * torch.log(probs)).sum(dim=1).mean()
            sharp = probs**4
            average = (sharp / sharp.sum(dim=1, keepdim=True)).mean(dim=0)
            loss = loss + (average * torch.log(average)).sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


class OurStep:
    """The pieces that ``PAWS.training_step`` and ``configure_optimizers`` are made of."""

    def __init__(self, module: PAWS) -> None:
        self.module = module
        self.optimizer = make_lars(decay_groups(module.named_parameters(), 1e-6), 0.1)

    def __call__(self, batch: Batch) -> None:
        views, supports, labels = batch
        support, large, *small = self.module.encode([view_major(v) for v in (supports, *views)])
        repeated = labels.repeat(supports.shape[1])
        loss = self.module.compute_loss(support, large, small, repeated, len(views[0])).loss
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def timed(step: Callable[[Batch], None], batch: Batch, autocast: bool) -> float:
    """Seconds of one step."""
    device = batch[1].device
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
        step(batch)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def make_batch(options: argparse.Namespace, size: int) -> Batch:
    """Random views of ``size`` unlabelled images and of the supports."""
    device, (large, small) = options.device, options.size
    labels = torch.arange(options.classes, device=device).repeat(options.images)
    supports = torch.randn(len(labels), options.views, 3, large, large, device=device)
    views = [torch.randn(size, 2, 3, large, large, device=device)]
    views.append(torch.randn(size, options.small_views, 3, small, small, device=device))
    return views, supports, labels


def run(options: argparse.Namespace, size: int, precision: str) -> None:
    """Time both steps for one setting and print a row."""
    batch = make_batch(options, size)
    steps: dict[str, Callable[[Batch], None]] = {}
    for name in ("plain", "ours"):
        torch.manual_seed(0)
        module = PAWS(
            options.backbone,
            num_classes=options.classes,
            proj_output_dim=2048 if options.head else 128,
            use_prediction_head=options.head,
        )
        module = module.to(options.device).train()
        if name == "ours":  # as Execution(channels_last=True)
            module.backbone.to(memory_format=torch.channels_last)
        steps[name] = OurStep(module) if name == "ours" else PlainStep(module, options.classes)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(options.repeats + options.warmup):
        for name, step in steps.items():
            seconds = timed(step, batch, precision == "bf16")
            if repeat >= options.warmup:
                times[name].append(seconds)
    plain, ours = (statistics.median(times[name]) for name in ("plain", "ours"))
    print(
        f"{size:>5} {batch[1].shape[0] * options.views:>9} {precision:>5} {plain * 1e3:>10.1f} "
        f"{ours * 1e3:>9.1f} {plain / ours:>6.2f} {size / ours:>9.1f}",
        flush=True,
    )


def main() -> None:
    """Parse the options, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--backbone", default="wide_resnet28_2")
    parser.add_argument("--head", action="store_true", help="prediction head and width 2048")
    parser.add_argument("--batch", type=int, nargs="+", default=[16])
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--images", type=int, default=4, help="supports per class")
    parser.add_argument("--views", type=int, default=2, help="views of each support")
    parser.add_argument("--small-views", type=int, default=6)
    parser.add_argument("--size", type=int, nargs=2, default=[32, 18])
    parser.add_argument("--precision", nargs="+", default=["fp32"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1)
    options = parser.parse_args()
    name = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(f"{options.backbone}, {options.small_views} small views, {name},")
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.repeats} repeats"
    )
    print("batch  supports  prec   plain ms   ours ms  ratio  images/s")
    for size in options.batch:
        for precision in options.precision:
            run(options, size, precision)


if __name__ == "__main__":
    main()
