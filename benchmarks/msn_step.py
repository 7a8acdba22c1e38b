"""MSN's training step against the plain way to write it, on the same network, in one run.

The plain way projects all patches and drops the hidden ones afterwards, runs the last block on all
tokens, writes the loss on probabilities as in the paper, and moves the target network parameter by
parameter. Both ways do forward, backward, AdamW and the EMA update on the same views.

    python benchmarks/msn_step.py                       # CPU, a ViT-Ti/16
    python benchmarks/msn_step.py --device cuda --backbone vit_small_patch16_224 \
        --batch 32 64 128 --precision bf16 fp32 --compile

Times are medians of interleaved repeats; the ratio is plain / ours (above 1: ours is faster).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_ssl import MSN


class PlainStep:
    """The step as one would write it down from the paper."""

    def __init__(self, module: MSN, mask_ratio: float) -> None:
        self.module, self.mask_ratio = module, mask_ratio
        trained = [p for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.04)

    def encode(self, network: nn.Module, head: nn.Module, images: Tensor, drop: float) -> Tensor:
        vit = network.vit
        x = vit.patch_embed.proj(images).flatten(2).transpose(1, 2)
        first, positions = network.positions(*network.grid(*images.shape[-2:]))
        x = x + positions
        if drop:
            keep = torch.randperm(x.shape[1], device=x.device)[: int(x.shape[1] * (1 - drop))]
            x = x[:, keep]
        x = torch.cat([(vit.cls_token + first).expand(len(x), -1, -1), x], dim=1)
        for block in vit.blocks:
            x = block(x)
        return head(vit.norm(x)[:, 0])

    def loss(self, anchors: Tensor, targets: Tensor, prototypes: Tensor) -> Tensor:
        anchors, targets, prototypes = (
            F.normalize(x.float(), dim=1) for x in (anchors, targets, prototypes)
        )
        probs = F.softmax(anchors @ prototypes.T / 0.1, dim=1)
        with torch.no_grad():
            target = F.softmax(targets @ prototypes.T / 0.1, dim=1) ** 4
            target = target / target.sum(1, keepdim=True)
            q = target.T
            q = q / q.sum()
            for _ in range(3):
                q = q / q.sum(1, keepdim=True) / q.shape[0]
                q = q / q.sum(0, keepdim=True) / q.shape[1]
            target = (q * q.shape[1]).T
        target = target.repeat(len(probs) // len(target), 1)
        cross_entropy = -(target * torch.log(probs)).sum(1).mean()
        mean = probs.mean(0)
        return cross_entropy + (mean * torch.log(mean)).sum()

    def __call__(self, views: list[Tensor]) -> None:
        m = self.module
        large, small = views
        with torch.no_grad():
            target = self.encode(m.target_backbone, m.target_head, large[:, 0], 0.0)
        z = [
            self.encode(m.backbone, m.projection_head, large[:, 1], self.mask_ratio),
            self.encode(m.backbone, m.projection_head, torch.cat(list(small.unbind(1))), 0.0),
        ]
        loss = self.loss(torch.cat(z), target, m.prototypes)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            pairs = zip(m.target_backbone.parameters(), m.backbone.parameters(), strict=True)
            for slow, fast in pairs:
                slow.mul_(0.996).add_(fast, alpha=0.004)
            pairs = zip(m.target_head.parameters(), m.projection_head.parameters(), strict=True)
            for slow, fast in pairs:
                slow.mul_(0.996).add_(fast, alpha=0.004)


class OurStep:
    """The pieces that ``MSN.training_step`` and ``MSN.optimizer_step`` are made of."""

    def __init__(self, module: MSN, mask_ratio: float) -> None:
        from lit_ssl.models import ema_update_

        self.module, self.mask_ratio, self.ema_update_ = module, mask_ratio, ema_update_
        trained = [p for p in module.parameters() if p.requires_grad]
        fused = trained[0].is_cuda
        self.optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.04, fused=fused)

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
        self.optimizer.step()
        self.ema_update_(m.target_backbone, m.backbone, 0.996)
        self.ema_update_(m.target_head, m.projection_head, 0.996)


def timed(step: Callable[[list[Tensor]], None], views: list[Tensor], autocast: bool) -> float:
    """Seconds of one step."""
    device = views[0].device
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
        step(views)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_memory(step: Callable, views: list[Tensor], autocast: bool) -> str:
    """Peak device memory of one step in GB ("-" on the CPU)."""
    if views[0].device.type != "cuda":
        return "-"
    torch.cuda.reset_peak_memory_stats()
    timed(step, views, autocast)
    return f"{torch.cuda.max_memory_allocated() / 1e9:.2f}"


def run(options: argparse.Namespace, batch: int, precision: str, compiled: bool) -> None:
    """Time both steps for one setting and print a row."""
    device = torch.device(options.device)
    views = [
        torch.randn(batch, 2, 3, 224, 224, device=device),
        torch.randn(batch, options.focal, 3, 96, 96, device=device),
    ]
    steps = {}
    for name, kind in {"plain": PlainStep, "ours": OurStep}.items():
        torch.manual_seed(0)
        module = MSN(options.backbone, mask_ratio=options.mask_ratio).to(device).train()
        if compiled:
            for part in (module.backbone, module.target_backbone):
                for block in part.vit.blocks:
                    block.compile()
        steps[name] = kind(module, options.mask_ratio)
    autocast = precision == "bf16"
    times: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(options.repeats + options.warmup):
        for name, step in steps.items():
            seconds = timed(step, views, autocast)
            if repeat >= options.warmup:
                times[name].append(seconds)
    plain, ours = (statistics.median(times[name]) for name in ("plain", "ours"))
    memory = [peak_memory(steps[name], views, autocast) for name in ("plain", "ours")]
    print(
        f"{batch:>5} {precision:>5} {compiled!s:>8} {plain * 1e3:>10.1f} {ours * 1e3:>9.1f} "
        f"{plain / ours:>6.2f} {batch / ours:>9.1f} {memory[0]:>9} {memory[1]:>8}",
        flush=True,
    )


def main() -> None:
    """Parse the options, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--backbone", default="vit_tiny_patch16_224")
    parser.add_argument("--batch", type=int, nargs="+", default=[4])
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--compile", action="store_true", help="time compiled blocks as well")
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
    print("batch  prec compiled   plain ms   ours ms  ratio  images/s  plain GB  ours GB")
    for batch in options.batch:
        for precision in options.precision:
            for compiled in [False, True] if options.compile else [False]:
                run(options, batch, precision, compiled)


if __name__ == "__main__":
    main()
