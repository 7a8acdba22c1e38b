"""Training steps of all methods on one GPU, and what runs beside them: one table for one machine.

    python benchmarks/gpu.py                              # every row, on the first GPU
    python benchmarks/gpu.py --only MSN views --json gpu.jsonl
    python benchmarks/gpu.py --tiny                       # every row in small, on any device

A step is one of a fit of the Trainer, with the callbacks that ``lit-ssl`` adds; its batch lies on
the device already, so that nothing waits for data. *ms* is the mean over the measured steps, after
those that warm up; *outside* the share of a step before its forward pass and behind its backward
pass (optimizer, target network, callbacks, logging; "-" where a method runs its optimizers itself),
*syncs* how often the host waits for the device in one step, as CUDA tells it ("-" elsewhere). A row
that does not fit into memory says so. With ``--json`` each row is also appended to a file as one
line, with hardware and versions.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import math
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torchvision
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from lit_ssl import MSN, PAWS, CascadedVideoGAN, ImageClassifier
from lit_ssl.callbacks import (
    CollapseMonitor,
    Execution,
    FiniteGuard,
    LastValidation,
    LinearProbeEvaluator,
    StepSeeder,
)
from lit_ssl.methods import NAC, VLPretraining
from lit_ssl.models import ConvNeXtTokenizer, NeuralAttentiveCircuit, PatchTokenizer, ViltBackbone
from lit_ssl.optim.adamw import adamw
from lit_ssl.text import UniformMasker
from lit_ssl.transforms import MultiCrop, msn_crops

TINY_VIT = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}


@dataclass
class Row:
    """What one row measures.

    Attributes:
        name: of the row.
        images: in a batch (videos, pairs): of what is counted per second.
        precision: of the Trainer; "-" where there is none.
        ms: of a step or call.
        peak_gb: most memory of the device that was in use at once; NaN where it is not known.
        syncs: of the host in a step; None where nobody tells.
        outside: share of the step outside of forward and backward; NaN where it is not known.
        fault: why there are no figures.
    """

    name: str
    images: int
    precision: str
    ms: float = math.nan
    peak_gb: float = math.nan
    syncs: int | None = None
    outside: float = math.nan
    fault: str = ""

    def line(self) -> str:
        """As a row of the table."""
        if self.fault:
            return f"| {self.name} | {self.images} | {self.precision} | {self.fault} | | | | |"
        cells = [
            f"{self.ms:.1f}",
            f"{1000 * self.images / self.ms:.0f}",
            "-" if math.isnan(self.peak_gb) else f"{self.peak_gb:.2f}",
            "-" if self.syncs is None else str(self.syncs),
            "-" if math.isnan(self.outside) else f"{self.outside:.0%}",
        ]
        return f"| {self.name} | {self.images} | {self.precision} | {' | '.join(cells)} |"


HEADER = (
    "| step | images | precision | ms | images/s | peak GB | syncs | outside |\n"
    "|---|--:|---|--:|--:|--:|--:|--:|"
)


class Clock:
    """Moments on the device's time line, or on the host's where it has none."""

    def __init__(self, device: torch.device) -> None:
        self.on_cuda = device.type == "cuda"

    def now(self) -> Any:
        """A moment, without waiting for the device."""
        if not self.on_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, first: Any, last: Any) -> float:
        """Milliseconds between two moments; waits for the last one."""
        if not self.on_cuda:
            return 1000 * (last - first)
        last.synchronize()
        return first.elapsed_time(last)


def syncs_in(action: Callable[[], object], device: torch.device) -> int | None:
    """How often the host waits for the device while it does something; None off CUDA."""
    if device.type != "cuda":
        action()
        return None
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            action()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in found)


class Meter(pl.Callback):
    """Measures steps of a fit: some that warm up, some that are timed, and one for syncs."""

    def __init__(self, warmup: int, steps: int, device: torch.device) -> None:
        self.warmup, self.steps = warmup, steps
        self.clock, self.device = Clock(device), device
        self.marks: list[list[Any]] = []  # of each timed step: begin, backward, after it, end
        self.first: Any = None
        self.last: Any = None
        self.total = math.nan
        self.syncs: int | None = None
        self.recording = warnings.catch_warnings(record=True)
        self.found: list[Any] | None = None

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Begin a step."""
        if batch_idx == self.warmup:
            if self.clock.on_cuda:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            self.first = self.clock.now()
        if self.warmup <= batch_idx < self.warmup + self.steps:
            self.marks.append([self.clock.now()])
        elif batch_idx == self.warmup + self.steps and self.clock.on_cuda:
            self.found = self.recording.__enter__()
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        """The forward pass has ended."""
        self._mark()

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        """The backward pass has ended."""
        self._mark()

    def _mark(self) -> None:
        if self.first is not None and self.last is None:
            self.marks[-1].append(self.clock.now())

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        """End a step."""
        batch_idx = args[2]
        if batch_idx == self.warmup + self.steps - 1:
            self.last = self.clock.now()
            self.total = self.clock.between(self.first, self.last)
        elif self.found is not None:
            torch.cuda.set_sync_debug_mode("default")
            self.syncs = sum("synchronizing" in str(w.message) for w in self.found)
            self.recording.__exit__(None, None, None)
            self.found = None

    @property
    def inside(self) -> float:
        """Share of forward and backward; NaN where a step has several of them."""
        if any(len(marks) != 3 for marks in self.marks):
            return math.nan
        spent = sum(self.clock.between(begin, after) for begin, _, after in self.marks)
        return spent / self.total


@dataclass
class Fit:
    """A row of steps of a fit.

    Attributes:
        name: of the row.
        module: makes the method.
        batch: makes a batch on a device.
        images: in it.
        precision: of the Trainer.
        execution: options of ``Execution``.
        callbacks: makes those that act beside it.
    """

    name: str
    module: Callable[[], pl.LightningModule]
    batch: Callable[[torch.device], Any]
    images: int
    precision: Any = "bf16-mixed"
    execution: dict[str, Any] = field(default_factory=dict)
    callbacks: Callable[[], list[pl.Callback]] = list

    def measure(self, options: argparse.Namespace) -> Row:
        """Fit for some steps."""
        row = Row(self.name, self.images, str(self.precision))
        device = torch.device(options.device)
        meter = Meter(options.warmup, options.steps, device)
        torch.manual_seed(0)
        batches = [self.batch(device)] * (options.warmup + options.steps + 1)
        trainer = pl.Trainer(
            accelerator="cuda" if device.type == "cuda" else "cpu", devices=1,
            precision=self.precision, max_epochs=1, limit_val_batches=0, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            callbacks=[
                FiniteGuard(), LastValidation(), StepSeeder(), Execution(**self.execution),
                *self.callbacks(), meter,
            ],
        )  # fmt: skip
        trainer.fit(self.module(), DataLoader(batches, batch_size=None))
        row.ms, row.syncs = meter.total / options.steps, meter.syncs
        row.outside = 1 - meter.inside
        if device.type == "cuda":
            row.peak_gb = torch.cuda.max_memory_allocated() / 1e9
        return row


@dataclass
class Call:
    """A row of calls of a function beside the steps.

    Attributes:
        name: of the row.
        prepare: gives the function for a device.
        images: that a call is about.
    """

    name: str
    prepare: Callable[[torch.device], Callable[[], object]]
    images: int

    def measure(self, options: argparse.Namespace) -> Row:
        """Call it some times."""
        row = Row(self.name, self.images, "-")
        device = torch.device(options.device)
        clock = Clock(device)
        torch.manual_seed(0)
        function = self.prepare(device)
        for _ in range(options.warmup):
            function()
        if device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        first = clock.now()
        for _ in range(options.steps):
            function()
        row.ms = clock.between(first, clock.now()) / options.steps
        row.syncs = syncs_in(function, device)
        if device.type == "cuda":
            row.peak_gb = torch.cuda.max_memory_allocated() / 1e9
        return row


def _vit(size: str, tiny: bool) -> dict[str, Any]:
    """Arguments of MSN for a ViT of this size with patches of 16 pixels."""
    if not tiny:
        return {"backbone": f"vit_{size}_patch16_224"}
    small: dict[str, Any] = {"num_prototypes": 8, "proj_hidden_dim": 16, "proj_output_dim": 8}
    return {"backbone": "vit_tiny_patch16_224", "backbone_kwargs": TINY_VIT, **small}


def _views(images: int, sizes: tuple[int, int], small: int) -> Callable[[torch.device], Any]:
    """Two large views and some small ones of each image, with labels."""

    def batch(device: torch.device) -> Any:
        shapes = [(images, 2, 3, sizes[0], sizes[0]), (images, small, 3, sizes[1], sizes[1])]
        views = [torch.randn(*shape, device=device) for shape in shapes]
        return views, torch.arange(images, device=device) % 3

    return batch


def msn_rows(tiny: bool) -> Iterator[Fit]:
    """MSN: sizes, batches, precisions and ways to execute it."""
    plain: dict[str, Any] = {"optimizer": lambda groups: adamw(groups, fused=False, lr=1e-3)}
    ways = {
        "eager": (plain, {}),
        "fused": ({}, {}),
        "fused, compiled blocks": ({}, {"compile": "blocks"}),
    }
    batches = {"small": (64, 128, 256), "base": (64, 128), "large": (32, 64)}
    sizes, few = ((16, 8), 2) if tiny else ((224, 96), 10)
    for size, choices in {"small": (3,)}.items() if tiny else batches.items():
        for images in choices:
            for precision in ("32-true", "bf16-mixed"):
                for way, (options, execution) in ways.items():
                    if execution and tiny:  # needs a compiler; tests of Execution compile
                        continue
                    if precision == "32-true":
                        execution = {**execution, "float32_matmul": "high"}
                    yield Fit(
                        f"MSN, ViT-{size[0].upper()}/16, {way}",
                        lambda size=size, options=options: MSN(
                            **_vit(size, tiny), **options, warmup_epochs=0
                        ),
                        _views(images, sizes, few),
                        images,
                        precision,
                        execution,
                    )


def monitor_rows(tiny: bool) -> Iterator[Fit | Call]:
    """What callbacks cost in a step of MSN, and a window of the monitor by itself."""
    images, sizes, few = (3, (16, 8), 2) if tiny else (128, (224, 96), 10)
    beside: dict[str, Callable[[], list[pl.Callback]]] = {
        "CollapseMonitor": lambda: [CollapseMonitor(every_n_steps=10)],
        "LinearProbeEvaluator": lambda: [LinearProbeEvaluator(num_classes=3)],
    }
    for name, callbacks in beside.items():
        yield Fit(
            f"MSN, ViT-S/16, with {name}",
            lambda: MSN(**_vit("small", tiny), warmup_epochs=0),
            _views(images, sizes, few),
            images,
            callbacks=callbacks,
        )


def convolution_rows(tiny: bool) -> Iterator[Fit]:
    """PAWS and supervised ResNet-50, in both layouts of memory."""
    small = {"stem_width": 4, "channels": [4, 8, 8, 16]}
    backbone: dict[str, Any] = {"backbone": "resnet50"}
    if tiny:
        backbone = {"backbone": "resnet10t", "backbone_kwargs": small}
    # torch's bfloat16 gradients of strided convolutions over one pixel are NaN at times on CPUs
    images, size = (3, 64) if tiny else (256, 224)
    rates = {"warmup_epochs": 0, "lr": 1e-3}  # noise has nothing to teach

    def labelled(device: torch.device) -> Any:
        labels = torch.arange(images, device=device) % 3
        return torch.randn(images, 3, size, size, device=device), labels

    for layout, is_last in {"NCHW": False, "NHWC": True}.items():
        for precision in ("32-true", "bf16-mixed"):
            execution: dict[str, Any] = {"channels_last": is_last, "cudnn_benchmark": True}
            if precision == "32-true":
                execution["float32_matmul"] = "high"
            yield Fit(
                f"ImageClassifier, ResNet-50, {layout}",
                lambda: ImageClassifier(**backbone, num_classes=3, **rates),
                labelled,
                images,
                precision,
                execution,
            )
    unlabelled, supports = (3, 3) if tiny else (64, 6720 // 64)
    views = _views(unlabelled, (64, 32) if tiny else (224, 96), 2 if tiny else 6)

    def two_streams(device: torch.device) -> Any:
        labels = torch.arange(supports, device=device) % 3
        return {
            "unlabelled": views(device),
            "support": (torch.randn(supports, 3, size, size, device=device), labels),
        }

    for layout, is_last in {"NCHW": False, "NHWC": True}.items():
        yield Fit(
            f"PAWS, ResNet-50, {supports} supports, {layout}",
            lambda: PAWS(
                **backbone, num_classes=3, proj_output_dim=8 if tiny else 2048, warmup_epochs=0,
                use_prediction_head=True,
                lr=1e-3, start_lr=1e-3,
            ),
            two_streams,
            unlabelled,
            execution={"channels_last": is_last, "cudnn_benchmark": True},
        )  # fmt: skip


def input_rows(tiny: bool) -> Iterator[Call]:
    """Views made on the device, and JPEG files decoded there."""
    images, canvas, crops = 64, 384, msn_crops(224, 96, num_large=2, num_small=10)
    if tiny:
        images, canvas, crops = 3, 20, msn_crops(16, 8, num_large=2, num_small=2)
    recipe = MultiCrop(crops)

    def views(device: torch.device) -> Callable[[], object]:
        batch = torch.randint(0, 256, (images, 3, canvas, canvas), device=device)
        batch = batch.to(torch.uint8)
        generator = torch.Generator().manual_seed(0)
        return lambda: recipe.batched(batch, generator=generator)

    def decoding(device: torch.device) -> Callable[[], object]:
        height, width = (20, 28) if tiny else (375, 500)
        coarse = torch.randint(0, 256, (height // 8, width // 8, 3), dtype=torch.uint8).numpy()
        file = io.BytesIO()
        Image.fromarray(coarse).resize((width, height)).save(file, "JPEG", quality=90)
        data = torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)
        read = torchvision.io.decode_jpeg
        return lambda: read([data] * images, mode="RGB", device=device)

    kinds = f"{sum(crop.count for crop in crops)} views of an image of {canvas}² pixels"
    yield Call(f"views on the device: {kinds}", views, images)
    yield Call("JPEG files decoded on the device", decoding, images)


def other_rows(tiny: bool) -> Iterator[Fit]:
    """Circuits, vision-language pretraining, level 1 of a cascade, as their recipes have them."""
    images, size = (3, 16) if tiny else (32, 224)

    def circuit() -> NAC:
        if tiny:
            net = NeuralAttentiveCircuit(
                PatchTokenizer(16, 8, 3, 8, 4), state_dim=16, num_modules=6, num_output_modules=3,
                signature_dim=8, depth=2, num_heads=2, head_dim=8,
            )  # fmt: skip
        else:
            tokenizer = ConvNeXtTokenizer(
                state_dim=512, preset="tiny", num_stages=2, image_size=224, position_dim=64
            )
            net = NeuralAttentiveCircuit(
                tokenizer, num_modules=768, num_input_modules=192, num_output_modules=64,
                state_dim=512, signature_dim=64, depth=8, num_heads=8, head_dim=64,
                wiring="persistent", ffn_mult=1.0, initial_state="seeder", output_norm=False,
                graph_prior={"name": "barabasi-albert", "arguments": {"m": 6}},
                kernel={"truncation": 0.9, "temperature": 0.5}, layer_scale=0.1, drop_path=0.1,
            )  # fmt: skip
        return NAC(net, num_classes=3, warmup_epochs=0)

    def labelled(device: torch.device) -> Any:
        labels = torch.arange(images, device=device) % 3
        return torch.randn(images, 3, size, size, device=device), labels

    yield Fit("NAC, 768 modules", circuit, labelled, images)

    pairs, side, length = (3, 32, 9) if tiny else (64, 384, 40)

    def captions(device: torch.device) -> Any:
        ids = torch.randint(5, 70, (pairs, length), device=device)
        words = torch.arange(length, device=device).repeat(pairs, 1)
        inputs = {
            "images": torch.randn(pairs, 3, side, side, device=device),
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "word_ids": words.where(words > 0, -1),
        }
        return inputs, torch.arange(pairs, device=device)

    def pretraining() -> VLPretraining:
        config = {"vocab_size": 30522, "max_position_embeddings": 40, "image_size": side}
        config |= {"patch_size": 32}
        if tiny:
            config |= {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
            config |= {"intermediate_size": 16, "patch_size": 16, "vocab_size": 73}
        return VLPretraining(ViltBackbone(config), UniformMasker(0.6), mask_id=4)

    yield Fit("VLPretraining, ViLT-B/32", pretraining, captions, pairs)

    videos, frames, resolution, channels = (4, 6, 8, 4) if tiny else (128, 8, 64, 96)

    def clips(device: torch.device) -> Any:
        shape = (videos, frames, 3, resolution, resolution)
        return torch.rand(*shape, device=device) * 2 - 1, torch.zeros(videos, device=device).long()

    yield Fit(
        "CascadedVideoGAN, level 1",
        lambda: CascadedVideoGAN(
            level=1, num_classes=2, num_frames=frames, resolution=resolution, channels=channels,
            d_steps=2, **({"z_dim": 5, "embed_dim": 4} if tiny else {}),
        ),
        clips,
        videos,
    )  # fmt: skip


def all_rows(tiny: bool) -> list[Fit | Call]:
    """All rows, in the order of the table."""
    parts = (msn_rows, monitor_rows, convolution_rows, input_rows, other_rows)
    return [row for part in parts for row in part(tiny)]


def measured(row: Fit | Call, options: argparse.Namespace) -> Row:
    """Measure a row, or say why not."""
    try:
        return row.measure(options)
    except torch.OutOfMemoryError:
        precision = str(row.precision) if isinstance(row, Fit) else "-"
        return Row(row.name, row.images, precision, fault="out of memory")
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def machine(device: torch.device) -> dict[str, str]:
    """Hardware and versions."""
    on_cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_cuda else platform.processor() or "cpu",
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "lightning": pl.__version__,
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure the rows that were asked for and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", nargs="+", default=[""], help="parts of names of rows")
    parser.add_argument("--steps", type=int, default=None, help="timed steps: 20, tiny 2")
    parser.add_argument("--warmup", type=int, default=None, help="steps before these: 10, tiny 1")
    parser.add_argument("--tiny", action="store_true", help="tiny networks and images")
    parser.add_argument("--json", type=Path, help="append each row to this file")
    options = parser.parse_args(arguments)
    options.steps = options.steps or (2 if options.tiny else 20)
    options.warmup = options.warmup or (1 if options.tiny else 10)
    device = torch.device(options.device)
    if device.type != "cuda" and not options.tiny:
        parser.error("there is no GPU here: give --tiny to run every row in small on a CPU")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    about = machine(device)
    print(", ".join(f"{name} {value}" for name, value in about.items()) + "\n")
    print(HEADER, flush=True)
    for row in all_rows(options.tiny):
        if not any(part in row.name for part in options.only):
            continue
        found = measured(row, options)
        print(found.line(), flush=True)
        if options.json:
            with options.json.open("a") as file:
                values = {k: v for k, v in asdict(found).items() if v == v}  # JSON has no NaN
                file.write(json.dumps({**values, **about, "tiny": options.tiny}) + "\n")


if __name__ == "__main__":
    main()
