"""MSN's training step against other ways to write it, at the same sizes, in one run.

- ``reference``: in the style of the paper's code, with its attention written out;
- ``lightly``: lightly's building blocks as in its example, which also masks the focal views, a
  tenth less to compute; ``lightly +``: without that; where it is installed (pip install lightly);
- ``plain``: as one writes it down today, with torch's fused attention;
- ``ours``: what ``MSN.training_step`` and ``MSN.optimizer_step`` are made of.

All do forward, backward, AdamW and the average of the target network on the same views.

    python benchmarks/msn_step.py                       # CPU, a ViT-Ti/16
    python benchmarks/msn_step.py --profile             # shares of the time in ours
    python benchmarks/msn_step.py --device cuda --backbone vit_small_patch16_224 \
        --batch 32 64 128 --precision bf16 fp32 --compile

Times are medians of interleaved repeats, on a CPU those of the processor (summed over threads) and,
in brackets, those on the clock. A ratio is the processor's time / ours, above 1: ours is faster.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec

import torch
from msn_peers import LightlyStep, PlainStep, ReferenceStep, WholeFocalStep
from torch import Tensor

from lit_ssl import MSN
from lit_ssl.models import ema_update_
from lit_ssl.optim.adamw import adamw
from lit_ssl.optim.clipping import clip_grad_norm_

Step = Callable[[list[Tensor]], None]


class OurStep:
    """The pieces that ``MSN.training_step`` and ``MSN.optimizer_step`` are made of."""

    def __init__(self, module: MSN, mask_ratio: float) -> None:
        self.module, self.mask_ratio = module, mask_ratio
        trained = [p for p in module.parameters() if p.requires_grad]
        self.optimizer = adamw(trained, lr=1e-3, weight_decay=0.04)
        self.clipped = [*module.backbone.parameters(), *module.projection_head.parameters()]

    def __call__(self, views: list[Tensor]) -> None:
        m = self.module
        large, small = views
        _, target = m.encode_target(large[:, 0])
        anchors = large[:, 1]
        keep = m.draw_mask(anchors, self.mask_ratio)
        z = [m.encode_anchor(anchors, keep), m.encode_anchor(small.transpose(0, 1).flatten(0, 1))]
        loss = m.loss(torch.cat(z), target, m.prototypes).loss
        self.optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(self.clipped, 3.0)
        self.optimizer.step()
        ema_update_(m.target_backbone, m.backbone, 0.996)
        ema_update_(m.target_head, m.projection_head, 0.996)


def timed(step: Step, views: list[Tensor], autocast: bool) -> tuple[float, float]:
    """Milliseconds of one step: of the processor, on the clock. On a GPU both are the clock's."""
    device = views[0].device
    if device.type == "cuda":
        torch.cuda.synchronize()
    clock, processor = time.perf_counter(), time.process_time()
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
        step(views)
    if device.type == "cuda":
        torch.cuda.synchronize()
    passed = 1e3 * (time.perf_counter() - clock)
    return (passed if device.type == "cuda" else 1e3 * (time.process_time() - processor)), passed


def peak_memory(step: Step, views: list[Tensor], autocast: bool) -> str:
    """Peak device memory of one step in GB ("-" on the CPU)."""
    if views[0].device.type != "cuda":
        return "-"
    torch.cuda.reset_peak_memory_stats()
    timed(step, views, autocast)
    return f"{torch.cuda.max_memory_allocated() / 1e9:.2f}"


def make_steps(options: argparse.Namespace, device: torch.device, compiled: bool) -> dict:
    """The steps by name, each with a network of its own."""
    steps: dict[str, Step] = {}
    if find_spec("lightly") and not compiled:
        steps["lightly"] = LightlyStep(options.backbone, options.mask_ratio, device)
        steps["lightly +"] = WholeFocalStep(options.backbone, options.mask_ratio, device)
    for name, kind in {"reference": ReferenceStep, "plain": PlainStep, "ours": OurStep}.items():
        torch.manual_seed(0)
        module = MSN(options.backbone, mask_ratio=options.mask_ratio).to(device).train()
        step = kind(module, options.mask_ratio)
        if compiled and name == "ours":
            for part in (module.backbone, module.target_backbone):
                for block in part.blocks_to_compile():
                    block.compile()
        elif compiled:
            step.block = torch.compile(step.block)
        steps[name] = step
    return steps


def make_views(options: argparse.Namespace, batch: int, device: torch.device) -> list[Tensor]:
    """Two large and some small views of each image."""
    return [
        torch.randn(batch, 2, 3, 224, 224, device=device),
        torch.randn(batch, options.focal, 3, 96, 96, device=device),
    ]


def run(options: argparse.Namespace, batch: int, precision: str, compiled: bool) -> None:
    """Time all steps for one setting and print a row for each."""
    device = torch.device(options.device)
    views, autocast = make_views(options, batch, device), precision == "bf16"
    steps = make_steps(options, device, compiled)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for repeat in range(options.repeats + options.warmup):
        for name, step in steps.items():
            passed = timed(step, views, autocast)
            if repeat >= options.warmup:
                times[name].append(passed)
    medians = {
        name: [statistics.median(column) for column in zip(*rows, strict=True)]
        for name, rows in times.items()
    }
    for name, (processor, clock) in medians.items():
        ratio = processor / medians["ours"][0]
        print(
            f"{batch:>5} {precision:>5} {compiled!s:>8} {name:>10} {processor:>9.1f} "
            f"[{clock:>7.1f}] {ratio:>6.2f} {1e3 * batch / clock:>9.1f} "
            f"{peak_memory(steps[name], views, autocast):>8}",
            flush=True,
        )


def matmul_speed(dtype: torch.dtype, device: torch.device) -> float:
    """GFLOP/s of a plain product of two matrices of 2048 × 2048, the fastest of five."""
    a = torch.randn(2048, 2048, device=device, dtype=dtype)
    times = [timed(lambda views: a @ a, [a], False)[0] for _ in range(6)]
    return 2 * 2048**3 / min(times) / 1e6


def profile(options: argparse.Namespace, batch: int, precision: str) -> None:
    """Where our step's time goes, and how fast its matrix products run."""
    device, autocast = torch.device(options.device), precision == "bf16"
    step, views = make_steps(options, device, False)["ours"], make_views(options, batch, device)
    timed(step, views, autocast)
    with torch.profiler.profile(with_flops=True) as record:
        processor = sum(timed(step, views, autocast)[0] for _ in range(options.repeats))
    events = [e for e in record.key_averages() if e.self_cpu_time_total > 0]
    total = sum(e.self_cpu_time_total for e in events)
    kinds = {
        "matrix products of layers": ("aten::mm", "aten::addmm"),
        "attention": ("scaled_dot_product", "aten::bmm", "aten::baddbmm", "softmax"),
        "GELU": ("aten::gelu",),
        "LayerNorm": ("layer_norm",),
        "AdamW": ("fused_adamw", "AdamW.step"),
        "average": ("lerp",),
        "copies, sums": ("aten::copy_", "aten::add", "aten::cat", "aten::sum"),
    }
    left = list(events)
    print(f"\nshares of our step, batch {batch}, {precision}")
    for kind, names in kinds.items():
        own = [e for e in left if any(e.key == n or n in e.key for n in names)]
        left = [e for e in left if e not in own]
        spent = sum(e.self_cpu_time_total for e in own)
        speed = ""
        if kind.startswith("matrix"):
            done = sum(e.flops for e in own)
            dtype = torch.bfloat16 if autocast else torch.float32
            reached = done * total / spent / processor / 1e6  # the record's clock also waits
            peak = matmul_speed(dtype, device)
            speed = f"{reached:.0f} GFLOP/s, a plain product {peak:.0f}"
        print(f"  {kind:<28}{spent / total:>7.1%}  {speed}")
    print(f"  {'all else':<28}{sum(e.self_cpu_time_total for e in left) / total:>7.1%}")


def main() -> None:
    """Parse the options, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--backbone", default="vit_tiny_patch16_224")
    parser.add_argument("--batch", type=int, nargs="+", default=[4])
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--compile", action="store_true", help="time compiled blocks as well")
    parser.add_argument("--profile", action="store_true", help="shares of the time in our step")
    parser.add_argument("--focal", type=int, default=10)
    parser.add_argument("--mask-ratio", type=float, default=0.15)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1)
    options = parser.parse_args()
    name = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(
        f"{options.backbone}, mask ratio {options.mask_ratio}, {options.focal} focal views, {name},"
    )
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.repeats} repeats"
    )
    if not find_spec("lightly"):
        print("lightly is not installed: left out")
    print("batch  prec compiled       step        ms [  clock]  ratio  images/s  peak GB")
    for batch in options.batch:
        for precision in options.precision:
            for compiled in [False, True] if options.compile else [False]:
                run(options, batch, precision, compiled)
            if options.profile:
                profile(options, batch, precision)


if __name__ == "__main__":
    main()
