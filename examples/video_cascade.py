"""A cascade of two video GANs on moving digits, and what its matching discriminator is good for.

    python examples/video_cascade.py                    # everything; about an hour on one core
    python examples/video_cascade.py --only matching    # one part: matching, cost
    python examples/video_cascade.py --quick            # seconds, and no result

For each seed, level 1 (8 frames of 16 x 16) is trained for 500 steps on digits 0, 1 and 7 that move
and bounce. From it level 2 (16 frames of 32 x 32, windows of 4 frames of level 1) is trained twice
for 400 steps, with and without the discriminator that sees a video beside what it was made from.
Measured every 80 steps, on 64 videos; RFD at the end, on 256:

- own, shuffled: mean squared error between a video, made small again, and what it was made from, or
  what another one was made from; values in [-1, 1];
- gap = 1 - own / shuffled: 0 where level 2 ignores its input, 1 where it follows it;
- RFD: Fréchet distance to validation videos on 32 features of a network of random weights. It is no
  FVD, and compares with nothing but itself.

The part "cost" times a step of level 2 and counts what it keeps for the backward, for windows and
for lengths of the whole video. Settings are those of the recipes video/moving_digits_level1.yaml
and level2, but for lower learning rates, with which levels learn slowly enough to be watched;
nothing is chosen on these numbers: the last step counts. A run that was done before is read from
``--out``.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import multiprocessing
import os
import platform
import statistics
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lit_ssl.callbacks import StepSeeder
from lit_ssl.datamodules import MovingDigitsDataModule
from lit_ssl.methods import CascadedVideoGAN
from lit_ssl.metrics.video.preparation import to_uint8
from lit_ssl.metrics.video.random_features import RandomFeatureDistance
from lit_ssl.models.video.cascade import GeneratorCascade
from lit_ssl.models.video.cost import saved_bytes
from lit_ssl.models.video.level import LevelSpec
from lit_ssl.video.sheet import contact_sheet, write_png

SHARED: dict[str, Any] = {
    "d_steps": 1, "score_reduction": "mean", "lr_g": 3e-4, "lr_d": 6e-4, "betas": (0.0, 0.99),
    "ema_decay": 0.98, "ema_start": 0,
}  # fmt: skip
LEVEL_1: dict[str, Any] = {
    "level": 1, "num_frames": 8, "resolution": 16, "channels": 12, "d_channels": 24,
    "channel_multipliers": (2, 2, 2),
}  # fmt: skip
LEVEL_2: dict[str, Any] = {
    "level": 2, "num_frames": 16, "resolution": 32, "channels": 8, "window": 4, "d_frames": 4,
    "channel_multipliers": (2, 2, 2, 1, 1),
}  # fmt: skip
WINDOWS = (1, 2, 4, 8)
LENGTHS = (16, 32, 64, 128)
WAYS = {"with": True, "without": False}


class Sizes(NamedTuple):
    """How much of everything."""

    steps_1: int = 500
    steps_2: int = 400
    every: int = 80
    videos: int = 256
    matched: int = 64
    repeats: int = 7


QUICK = Sizes(steps_1=2, steps_2=2, every=1, videos=4, matched=4, repeats=1)


class Job(NamedTuple):
    """One run: a part, what varies in it, a seed."""

    part: str  # level1, matching, cost
    name: str
    seed: int
    sizes: Sizes
    out: Path

    @property
    def path(self) -> Path:
        """Its record."""
        quick = "_quick" if self.sizes == QUICK else ""
        return self.out / f"{self.part}_{self.name}_{self.seed}{quick}.json"

    @property
    def checkpoint(self) -> Path:
        """Level 1 of its seed."""
        return self.path.with_name(f"level1_{self.seed}_{self.sizes.steps_1}.ckpt")


def trainer(steps: int, *callbacks: pl.Callback) -> pl.Trainer:
    """Trains silently; nothing is chosen, the end counts."""
    return pl.Trainer(
        max_epochs=-1, max_steps=steps, accelerator="cpu", logger=False, limit_val_batches=0,
        callbacks=[StepSeeder(), *callbacks], enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip


def digits(level: int, seed: int) -> MovingDigitsDataModule:
    """Clips for a level, as its recipe has them."""
    if level == 1:
        shape: dict[str, Any] = {"num_frames": 8, "stride": 2, "size": 16, "batch_size": 16}
    else:
        shape = {"num_frames": 8, "eval_frames": 16, "size": 32, "batch_size": 8}
    return MovingDigitsDataModule(**shape, num_workers=0, seed=seed)


def real_videos(level: int, count: int) -> Tensor:
    """Validation videos, uint8 ``[N, T, 3, H, W]``."""
    data = digits(level, 0)
    data.setup("validate")
    videos: list[Tensor] = []
    for batch in data.val_dataloader():
        videos.append(batch[0])
        if sum(map(len, videos)) >= count:
            break
    whole = torch.cat(videos)[:count]
    return whole if whole.dtype == torch.uint8 else to_uint8(whole)


def distance(videos: Tensor, real: Tensor) -> float:
    """RFD between generated and real videos."""
    with isolate_rng():
        metric = RandomFeatureDistance(num_features=32)
    metric.update(real, real=True)
    metric.update(videos, real=False)
    return float(metric.compute())


class GapWatch(pl.Callback):
    """Notes every so many steps how far level 2 follows its input."""

    def __init__(self, every: int, videos: int) -> None:
        self.every, self.videos = every, videos
        self.found: dict[str, dict[str, float]] = {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure, if it is due, with the same noise every time."""
        step = int(pl_module.g_step)
        if step % self.every == 0:
            random = torch.Generator().manual_seed(7)
            self.found[str(step)] = pl_module.matching_gap(self.videos, random)


def train_level1(job: Job) -> dict[str, Any]:
    """Level 1 of a seed."""
    pl.seed_everything(job.seed, verbose=False)
    data = digits(1, job.seed)
    module = CascadedVideoGAN(num_classes=data.num_classes, **LEVEL_1, **SHARED)
    fit = trainer(job.sizes.steps_1)
    fit.fit(module, datamodule=data)
    fit.save_checkpoint(job.checkpoint)
    videos = module.sample(job.sizes.videos, generator=torch.Generator().manual_seed(7))
    draw(module, job.path.with_suffix(".png"))
    return {"rfd": distance(videos, real_videos(1, job.sizes.videos))}


def train_level2(job: Job) -> dict[str, Any]:
    """Level 2 of a seed, with or without the matching discriminator."""
    pl.seed_everything(job.seed, verbose=False)
    data = digits(2, job.seed)
    module = CascadedVideoGAN(
        num_classes=data.num_classes, previous=str(job.checkpoint),
        use_matching=WAYS[job.name], **LEVEL_2, **SHARED,
    )  # fmt: skip
    watch = GapWatch(job.sizes.every, job.sizes.matched)
    trainer(job.sizes.steps_2, watch).fit(module, datamodule=data)
    videos = module.sample(job.sizes.videos, generator=torch.Generator().manual_seed(7))
    draw(module, job.path.with_suffix(".png"))
    return {"rfd": distance(videos, real_videos(2, job.sizes.videos)), "steps": watch.found}


def draw(module: CascadedVideoGAN, path: Path) -> None:
    """Two videos of each class."""
    classes = torch.arange(2 * module.num_classes) % module.num_classes
    videos = module.sample(len(classes), classes, torch.Generator().manual_seed(7))
    captions = [module.class_names[number] for number in classes.tolist()]
    write_png(path, contact_sheet(videos, captions), overwrite=True)


def step_cost(job: Job) -> dict[str, Any]:
    """Time of a step of level 2, and what it keeps, for one window and length of the video."""
    window, frames = (int(number) for number in job.name.split("x"))
    torch.manual_seed(0)
    options = {**LEVEL_2, "window": window, "num_frames": frames}
    module = CascadedVideoGAN(num_classes=3, **options, **SHARED)
    shape: dict[str, Any] = {**LEVEL_1, "num_frames": frames // 2, "resolution": (16, 16)}
    del shape["d_channels"]
    below = LevelSpec(**shape, num_classes=3)
    module.lower = GeneratorCascade([below]).requires_grad_(False).eval()
    module.train()
    batch = 8
    real = torch.zeros(batch, module.frames, 3, 32, 32)
    labels = torch.zeros(batch, dtype=torch.int64)
    kept = saved_bytes(lambda: module.generator_loss(batch), list(module.parameters()))
    seconds = []
    for _ in range(job.sizes.repeats + 1):
        start = time.process_time()
        module.discriminator_loss(real, labels)[0].backward()
        module.discriminators.requires_grad_(False)
        module.generator_loss(batch).backward()
        module.discriminators.requires_grad_(True)
        seconds.append(time.process_time() - start)
    return {"seconds": statistics.median(seconds[1:] or seconds), "mebibytes": kept / 2**20}


RUNS = {"level1": train_level1, "matching": train_level2, "cost": step_cost}


def settings(job: Job) -> Any:
    """What a run depends on, in plain values."""
    return json.loads(json.dumps([job.sizes, SHARED, LEVEL_1, LEVEL_2]))


def found(job: Job) -> dict[str, Any] | None:
    """What a run gave that was done before with these settings; None if it was not."""
    record: dict[str, Any] = json.loads(job.path.read_text()) if job.path.exists() else {}
    is_whole = job.part != "level1" or job.checkpoint.exists()
    return record if record.get("settings") == settings(job) and is_whole else None


def run(job: Job) -> dict[str, Any]:
    """One run, or what was found before."""
    record = found(job)
    if record is not None:
        return record
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    begin = time.process_time()
    result = RUNS[job.part](job)
    record = {
        "part": job.part, "name": job.name, "seed": job.seed, "settings": settings(job),
        "result": result, "cpu_seconds": time.process_time() - begin,
    }  # fmt: skip
    partial = job.path.with_suffix(f".{os.getpid()}.tmp")
    partial.write_text(json.dumps(record, indent=1))
    partial.replace(job.path)
    print(f"# {job.part} {job.name}, seed {job.seed}: {record['cpu_seconds']:.0f} s", flush=True)
    return record


def mean_sd(values: Sequence[float], digits: int = 2) -> str:
    """Mean and standard deviation as text."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {spread:.{digits}f}"


Records = list[dict[str, Any]]


def of(records: Records, part: str, name: str | None = None) -> Records:
    """Records of a part, in the order of seeds."""
    return [r for r in records if r["part"] == part and name in (None, r["name"])]


def print_matching(records: Records) -> None:
    """The gap over steps, and the distance at the end."""
    steps = sorted({int(s) for r in of(records, "matching") for s in r["result"]["steps"]})
    if not steps:
        return
    print("\nLevel 2, mean ± sd over seeds\n")
    print(f"| matching | seeds | {' | '.join(f'gap at {s}' for s in steps)} | own MSE | RFD |")
    print(f"|---|--:|{'--:|' * (len(steps) + 2)}")
    for name in WAYS:
        own = [record["result"] for record in of(records, "matching", name)]
        if not own:
            continue
        cells = [mean_sd([r["steps"][str(s)]["gap"] for r in own]) for s in steps]
        cells.append(mean_sd([r["steps"][str(steps[-1])]["own"] for r in own], 3))
        cells.append(mean_sd([r["rfd"] for r in own], 1))
        print(f"| {name} | {len(own)} | {' | '.join(cells)} |")
    first = [record["result"]["rfd"] for record in of(records, "level1")]
    if first:
        print(f"\nLevel 1: RFD {mean_sd(first, 1)} over {len(first)} seeds")


def print_cost(records: Records) -> None:
    """Time and memory for each window and length."""
    if not of(records, "cost"):
        return
    print("\nA step of level 2, batch 8, one thread\n")
    print("| window | frames of the video | CPU seconds | MiB kept |\n|--:|--:|--:|--:|")
    for record in of(records, "cost"):
        window, frames = record["name"].split("x")
        result = record["result"]
        print(f"| {window} | {frames} | {result['seconds']:.3f} | {result['mebibytes']:.1f} |")


def plot(records: Records, path: Path) -> None:
    """The gap over steps; time and memory over window and length."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.8))
    for (name, _), colour in zip(WAYS.items(), ("tab:blue", "tab:orange"), strict=True):
        for number, record in enumerate(of(records, "matching", name)):
            found = record["result"]["steps"]
            steps = [int(step) for step in found]
            gaps = [values["gap"] for values in found.values()]
            label = f"{name} matching discriminator" if number == 0 else None
            left.plot(steps, gaps, "o-", ms=3, lw=1, color=colour, label=label)
    left.set(xlabel="steps of level 2", title="gap: 1 - own / shuffled error")
    costs = {record["name"]: record["result"] for record in of(records, "cost")}
    titles = ("window, frames of level 1", "length of the whole video, frames")
    for axis, title, names in zip(
        (middle, right),
        titles,
        (
            {w: f"{w}x{LENGTHS[0]}" for w in WINDOWS},
            {length: f"{LEVEL_2['window']}x{length}" for length in LENGTHS},
        ),
        strict=True,
    ):
        places = [place for place, name in names.items() if name in costs]
        if not places:
            continue
        own = [costs[names[place]] for place in places]
        twin = axis.twinx()
        (memory,) = axis.plot(places, [c["mebibytes"] for c in own], "o-", color="tab:green")
        (seconds,) = twin.plot(places, [c["seconds"] for c in own], "s--", color="tab:red")
        axis.set(xlabel=title, title="a step of level 2", xlim=0)
        axis.set_ylim(0, 1.15 * max(c["mebibytes"] for c in own))
        axis.set_ylabel("MiB kept for the backward", color="tab:green")
        twin.set_ylabel("CPU seconds", color="tab:red")
        twin.set_ylim(0, 1.15 * max(c["seconds"] for c in own))
        axis.legend([memory, seconds], ["memory", "time"], fontsize=8, loc="lower right")
    for axis in (left, middle, right):
        axis.grid(alpha=0.3)
    if of(records, "matching"):
        left.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def write_table(records: Records, path: Path) -> None:
    """Every number."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["part", "name", "seed", "step", "measure", "value"])
        for record in records:
            head = [record["part"], record["name"], record["seed"]]
            for measure, value in record["result"].items():
                if measure != "steps":
                    writer.writerow([*head, "", measure, value])
                    continue
                for step, values in value.items():
                    writer.writerows([*head, step, name, number] for name, number in values.items())


def main() -> None:
    """Run what is asked for, print the tables, write every number and the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12, 13])
    parts = ("matching", "cost")
    parser.add_argument("--only", choices=parts, nargs="+", default=list(parts))
    parser.add_argument("--found", action="store_true", help="only report what is in --out")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one core each")
    parser.add_argument("--quick", action="store_true", help="a few steps")
    parser.add_argument("--out", type=Path, default=Path("runs/video_cascade"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    sizes = QUICK if options.quick else Sizes()
    below, above = [], []  # what has to come first, and the rest
    if "matching" in options.only:
        below = [Job("level1", "plain", seed, sizes, options.out) for seed in options.seeds]
        above = [
            Job("matching", way, seed, sizes, options.out) for seed in options.seeds for way in WAYS
        ]
    if "cost" in options.only:
        names = [f"{window}x{LENGTHS[0]}" for window in WINDOWS]
        names += [f"{LEVEL_2['window']}x{length}" for length in LENGTHS[1:]]
        above += [Job("cost", name, 0, sizes, options.out) for name in names]
    records: Records = []
    if options.found:
        records = [record for job in (*below, *above) if (record := found(job)) is not None]
    elif options.jobs == 1:
        records = [run(job) for job in (*below, *above)]
    else:
        with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
            for group in (below, above):
                records += pool.map(run, group, chunksize=1)
    print_matching(records)
    print_cost(records)
    write_table(records, options.out / "results.csv")
    plot(records, options.out / "video_cascade.png")
    spent = sum(record["cpu_seconds"] for record in records)
    machine = f"{platform.machine()}, 1 thread each, torch {torch.__version__}"
    print(f"\n{spent:.0f} CPU-seconds on {machine}; {options.out}/results.csv")


if __name__ == "__main__":
    main()
