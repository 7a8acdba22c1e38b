"""Accuracy against communication: local SGD, slow momentum and post-local SGD on real digits.

    python examples/local_sgd_tradeoff.py                # a few minutes on two CPU cores
    python examples/local_sgd_tradeoff.py --quick        # half a minute: one seed, few settings

The claims of arXiv 2110.08133 and 1910.00643, scaled down: accuracy falls as the processes average
their parameters more rarely (every H steps); slow momentum lifts it again without any communication
of its own; local steps that begin only at the first drop of the learning rate cost next to nothing.

16 workers are simulated in one process, by the functions that the strategies use themselves. Then 2
and 4 real processes train under a Trainer with the strategies, from the same weights on the same
batches, and must arrive at the simulation's losses. Workers hold random parts of the digits, or
sorted ones, where each knows only one or two classes. Writes results.json, tradeoff.png and
TensorBoard files to ``--out``. Needs `pip install lit-ssl[examples]`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from local_sgd_simulation import (
    MOMENTUM,
    STEPS,
    Digits,
    Result,
    Setting,
    batches,
    evaluate,
    first_weights,
    learning_rate,
    network,
    settings,
    simulate,
)
from torch import Tensor, nn

# real processes: torchrun starts this file again with --worker


def train_here(digits: Digits, setting: Setting, seed: int, is_sorted: bool) -> Result:
    """Train as one of the processes that torchrun started."""
    import lightning.pytorch as pl

    from lit_ssl.strategies import LocalSGDStrategy, SlowMomentumStrategy

    class Network(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            first = first_weights(seed, digits.images.dtype)
            self.weights = nn.ParameterList([nn.Parameter(weight) for weight in first])

        def forward(self, x: Tensor) -> Tensor:
            return network(list(self.weights), x)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return F.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=1.0, momentum=MOMENTUM)
            scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate)
            schedule = {"scheduler": scheduler, "interval": "step"}
            return {"optimizer": optimizer, "lr_scheduler": schedule}

        def train_dataloader(self) -> Any:
            trainer = self.trainer
            seen = batches(digits, trainer.world_size, seed, is_sorted)[trainer.global_rank]
            rows = [(digits.images[i], digits.labels[i]) for i in seen]
            return torch.utils.data.DataLoader(rows, batch_size=None)

    strategy: Any = "ddp"
    if setting.beta:
        strategy = SlowMomentumStrategy(
            sync_every=setting.period, slow_momentum=setting.beta, buffers=setting.buffers
        )
    elif setting.period > 1:
        strategy = LocalSGDStrategy(
            sync_every=setting.period, warmup_steps=setting.warmup, buffers=setting.buffers
        )
    trainer = pl.Trainer(
        strategy=strategy, accelerator="cpu", devices=int(os.environ["WORLD_SIZE"]), max_epochs=1,
        barebones=True, use_distributed_sampler=False,
    )  # fmt: skip
    module = Network()
    trainer.fit(module)
    return evaluate(digits, [w.detach() for w in module.weights])


def worker(out: str, seeds: Sequence[int], periods: Sequence[int]) -> None:
    """Train every setting; rank 0 writes the results."""
    import logging

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    digits = Digits.load(torch.float64)
    rows = [
        [*setting, seed, is_sorted, *train_here(digits, setting, seed, is_sorted)]
        for setting in settings(periods)
        for is_sorted in (False, True)
        for seed in seeds
    ]
    if os.environ["RANK"] == "0":
        Path(out).write_text(json.dumps(rows))


def compare(workers: int, seeds: Sequence[int], periods: Sequence[int], out: Path) -> list[dict]:
    """Train with real processes and with simulated ones; rows of both."""
    file = out / f"processes_{workers}.json"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
    command += [str(workers), __file__, "--worker", str(file), "--seeds", *map(str, seeds)]
    subprocess.run([*command, "--periods", *map(str, periods)], check=True)
    # long rounds on sorted shards are chaotic: in float32 rounding alone moves losses by percents
    digits, found = Digits.load(torch.float64), {}
    for *setting, _, is_sorted, loss, accuracy in json.loads(file.read_text()):
        results = found.setdefault((Setting(*setting), is_sorted), [])
        results.append(Result(loss, accuracy))
    rows = []
    for (setting, is_sorted), real in found.items():
        simulated = simulate(digits, setting, workers, seeds, is_sorted)
        gaps = [abs(a.loss - b.loss) / b.loss for a, b in zip(real, simulated, strict=True)]
        rows.append(row(setting, workers, is_sorted, real) | {"gap": max(gaps)})
    return rows


# tables and plots


def row(setting: Setting, workers: int, is_sorted: bool, results: Sequence[Result]) -> dict:
    """Mean over seeds, and the standard error of the mean."""
    made: dict[str, Any] = {**setting._asdict(), "workers": workers, "sorted": is_sorted}
    made["averages"] = setting.averages
    for name in Result._fields:
        values = [getattr(result, name) for result in results]
        spread = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
        made |= {name: statistics.fmean(values), f"{name}_error": spread}
    return made


def show(title: str, rows: Sequence[dict]) -> None:
    """Print a table."""
    print(f"\n{title}\nmethod           H averages   random shards: loss, accuracy"
          "      sorted shards: loss, accuracy")  # fmt: skip
    for plain in (r for r in rows if not r["sorted"]):
        same = ("method", "period", "workers")
        other = next(r for r in rows if r["sorted"] and all(r[k] == plain[k] for k in same))
        cells = [f"{plain['method']:15s} {plain['period']:2d} {plain['averages']:8d}"]
        for r in (plain, other):
            cells.append(f"{r['loss']:.4f} ±{r['loss_error']:.4f} "
                         f"{r['accuracy']:6.2f} ±{r['accuracy_error']:.2f}")  # fmt: skip
        if "gap" in plain:
            cells.append(f"off the simulation by {max(plain['gap'], other['gap']):.0e}")
        print("     ".join(cells), flush=True)


def plot(rows: Sequence[dict], out: Path) -> None:
    """Accuracy against communication, as PNG and for TensorBoard."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from torch.utils.tensorboard import SummaryWriter

    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    writer = SummaryWriter(str(out / "tensorboard"))
    for axis, is_sorted in zip(axes, (False, True), strict=True):
        name = "sorted" if is_sorted else "random"
        mine = [r for r in rows if r["sorted"] == is_sorted]
        best = next(r for r in mine if r["method"] == "DDP")
        axis.axhline(best["accuracy"], color="black", linewidth=1, label="DDP: every step")
        for method, style in (
            ("post-local SGD", "^:"),
            ("slow momentum", "s-"),
            ("local SGD", "o--"),
        ):
            line = [r for r in mine if r["method"] == method]
            x, y = [r["period"] for r in line], [r["accuracy"] for r in line]
            axis.errorbar(
                x, y, [r["accuracy_error"] for r in line], fmt=style, capsize=3, label=method
            )
            for r in line:
                tag = f"{name}_shards/{method.replace(' ', '_')}_accuracy"
                writer.add_scalar(tag, r["accuracy"], r["period"])
        axis.set(title=f"{name} shards", xlabel="local steps between averages (H)", xscale="log")
        axis.set_xticks(x, labels=map(str, x), minor=False)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("test accuracy, %")
    axes[0].legend()
    figure.suptitle(f"MNIST-5k, {rows[0]['workers']} workers, {STEPS} steps: mean ± standard error")
    figure.savefig(out / "tradeoff.png", dpi=120)
    writer.add_figure("tradeoff", figure)
    writer.close()


def main() -> None:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", default="runs/local_sgd_tradeoff", help="folder for the results")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(8)))
    parser.add_argument("--periods", type=int, nargs="+", default=[2, 4, 8, 16, 24, 48])
    parser.add_argument("--processes", type=int, nargs="*", default=[2, 4], help="real ones")
    parser.add_argument("--quick", action="store_true", help="one seed, few settings")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.worker:
        worker(options.worker, options.seeds, options.periods)
        return
    if options.quick:
        options.seeds, options.periods, options.processes = [0], [24], [2]
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    digits, start, rows = Digits.load(), time.perf_counter(), []
    for workers in (16,) if options.quick else (16, 4):
        for setting in settings(options.periods):
            for is_sorted in (False, True):
                results = simulate(digits, setting, workers, options.seeds, is_sorted)
                rows.append(row(setting, workers, is_sorted, results))
        mine = [r for r in rows if r["workers"] == workers]
        show(f"{workers} simulated workers, {len(options.seeds)} seeds", mine)
    plot([r for r in rows if r["workers"] == 16], out)
    real: list[dict] = []
    for workers in options.processes:
        seeds, periods = options.seeds[:2], [p for p in options.periods if p in (8, 24)]
        real += compare(workers, seeds, periods, out)
        mine = [r for r in real if r["workers"] == workers]
        show(f"{workers} processes under the Trainer, {len(seeds)} seeds", mine)
    (out / "results.json").write_text(json.dumps({"simulated": rows, "processes": real}, indent=1))
    print(f"\n{time.perf_counter() - start:.0f} s; results, plot and TensorBoard files in {out}")


if __name__ == "__main__":
    main()
