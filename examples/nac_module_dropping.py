"""Dropping modules of a trained circuit: what it saves on the clock and what it costs.

    python examples/nac_module_dropping.py                  # 3 seeds; 40 minutes on one core
    python examples/nac_module_dropping.py --quick          # seconds, and no result

Trains Neural Attentive Circuits and Perceiver IOs of the same size on 3,500 digits, in the ordinary
way and with module dropout, cuts them to fewer and fewer modules, and reports for each size the
accuracy on 1,000 test digits and the wall-clock time of the circuit that is really smaller
(``prune``, ``fold``; tokens are given). Mean ± sd over seeds.

Circuits with nested or sandwich dropout are cut in the order of training, plain ones in the order
of each ranking; the rankings that look at a loss see the 500 validation digits. Beside them stand
small circuits that were trained as such, and one random module alone: a circuit has to beat that by
5 points, or its modules were of no use and dropping them shows nothing.

Each run is saved when it is done, and one that is there with the same settings is taken.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import platform
import statistics
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from lit_ssl.callbacks import StepSeeder
from lit_ssl.datamodules import MNIST5kDataModule
from lit_ssl.methods import NAC
from lit_ssl.models import NeuralAttentiveCircuit, PatchTokenizer, PerceiverIO, Tokens
from lit_ssl.transforms import CropSpec, SingleView

CLASSES, HEADS, OUTPUTS = 10, 4, 4
SHARES = (1, 2, 4, 8, 16)  # 1 / n of the modules
BATCHES = {64: 20, 1: 100}  # images at once → timed rounds
VIEW = SingleView(CropSpec(size=28, scale=(0.9, 1.0), ratio=(0.9, 1.1), rotation=8.0))
NAC_NAME, PERCEIVER = "NAC", "Perceiver IO"
GATE, SPEED_UP, COST = 5.0, 8.0, 3.0  # points, times, points


class Variant(NamedTuple):
    """A network and how it is trained; ``share`` > 1: it has 1 / share of the modules."""

    network: str
    dropout: str
    share: int = 1

    @property
    def name(self) -> str:
        """As rows of tables are called."""
        kind = {"none": "plain", "distilled": "distilled sandwich"}.get(self.dropout, self.dropout)
        return (
            f"{self.network}, {kind}"
            if self.share == 1
            else f"{self.network}, 1/{self.share} trained"
        )

    @property
    def orders(self) -> tuple[str, ...]:
        """In which its modules are kept."""
        if self.dropout != "none":
            return ("nested",)
        graph = ("eigenvector",) if self.network == NAC_NAME else ()
        return ("random",) if self.share > 1 else (*graph, "taylor", "loo", "random")


KINDS = ("nested", "none", "sandwich", "distilled")
VARIANTS = [Variant(net, kind) for kind in KINDS for net in (NAC_NAME, PERCEIVER)]
VARIANTS[4:4] = [Variant(NAC_NAME, "none", share) for share in (8, 16)]


def build(variant: Variant, settings: dict[str, int]) -> NeuralAttentiveCircuit:
    """A new network; Perceiver IO is the same without codes and graph."""
    dim = settings["dim"]
    shared: dict[str, Any] = {
        "tokenizer": PatchTokenizer(28, 7, 1, 48, 16), "state_dim": dim, "depth": settings["depth"],
        "num_modules": max(1, settings["modules"] // variant.share), "num_output_modules": OUTPUTS,
        "num_heads": HEADS, "head_dim": dim // HEADS, "ffn_mult": 2.0, "layer_scale": None,
    }  # fmt: skip
    if variant.network == PERCEIVER:
        return PerceiverIO(**shared, read_in_heads=HEADS, readout="pool")
    return NeuralAttentiveCircuit(**shared)


def train(variant: Variant, seed: int, settings: dict[str, int]) -> NeuralAttentiveCircuit:
    """Train silently; nothing is chosen, the end counts."""
    pl.seed_everything(seed, verbose=False)
    module = NAC(
        build(variant, settings), CLASSES, lr=3e-3, start_lr=3e-4, final_lr=3e-5, warmup_epochs=1,
        weight_decay=0.05, label_smoothing=0.0, module_dropout=variant.dropout,
    )  # fmt: skip
    data = MNIST5kDataModule(
        batch_size=settings["batch"], augment="device", seed=seed, train_transform=VIEW
    )
    pl.Trainer(
        max_epochs=settings["epochs"], accelerator="cpu", logger=False, limit_val_batches=0,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[StepSeeder()],
    ).fit(module, datamodule=data)  # fmt: skip
    return module.net.eval()


def digits(split: str) -> tuple[Tensor, Tensor]:
    """All images and labels of ``val`` or ``test``."""
    data = MNIST5kDataModule(batch_size=500)
    data.setup()
    loader = getattr(data, f"{split}_dataloader")()
    batches = [data.on_after_batch_transfer(batch, 0) for batch in loader]
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


@torch.inference_mode()
def accuracy(net: nn.Module, images: Tensor, labels: Tensor, **kwargs: Any) -> float:
    """Share of right answers, in %."""
    logits = [net(part, **kwargs).logits for part in images.split(250)]
    return 100 * (torch.cat(logits).argmax(1) == labels).double().mean().item()


class Given(nn.Module):
    """The inputs are the tokens."""

    def forward(self, inputs: Tensor) -> Tokens:
        """``[B, V, token_dim]`` as they are."""
        return Tokens(inputs)


@torch.inference_mode()
def milliseconds(
    net: NeuralAttentiveCircuit, sizes: Iterable[int], images: Tensor, rounds: int
) -> dict[int, float]:
    """Wall-clock time of pruned and folded circuits per batch: the fastest of alternating rounds.

    The fastest, since on a busy machine a long pass is interrupted more often than a short one,
    and a mean or median would flatter the small circuits.
    """
    tokens = net.tokenizer(images).values
    circuits = {size: net.prune(range(size)) for size in sizes}
    for circuit in circuits.values():
        circuit.tokenizer = Given()
        circuit.fold()(tokens)
    times: dict[int, list[float]] = {size: [] for size in circuits}
    for _ in range(rounds):
        for size, circuit in circuits.items():
            start = time.perf_counter()
            circuit(tokens)
            times[size].append(time.perf_counter() - start)
    return {size: 1e3 * min(values) for size, values in times.items()}


def run(variant: Variant, seed: int, settings: dict[str, int]) -> dict[str, Any]:
    """Train one network and measure all of it."""
    start, cpu = time.perf_counter(), time.process_time()
    net = train(variant, seed, settings)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    images, labels = digits("test")
    calibration = [tuple(part[: settings["calibration"]] for part in digits("val"))]
    sizes = sorted({max(1, net.num_modules // share) for share in SHARES}, reverse=True)
    sizes = sizes[:1] if variant.share > 1 else [*sizes, 1]
    scores = {}
    for order in variant.orders:
        ranks = net.rank_modules(order, calibration)
        scores[order] = {n: accuracy(net.prune(ranks[:n]).fold(), images, labels) for n in sizes}
    alone = torch.randperm(net.num_modules, generator=torch.Generator().manual_seed(seed))[:10]
    return {
        "network": variant.network, "dropout": variant.dropout, "share": variant.share,
        "seed": seed, "settings": settings, "seconds": seconds, "cpu_seconds": cpu,
        "accuracy": scores,
        "one_random_module": [accuracy(net, images, labels, keep=[int(u)]) for u in alone],
        "milliseconds": {
            batch: milliseconds(net, sizes, images[:batch], rounds)
            for batch, rounds in BATCHES.items()
        },
    }  # fmt: skip


def recorded(variant: Variant, seed: int, settings: dict[str, int], out: Path) -> dict[str, Any]:
    """A run that was saved with the same settings, or a new one."""
    words = variant.name.replace(", ", "_").replace(" ", "_").replace("/", "")
    path = out / f"{words}_seed{seed}.json"
    record = json.loads(path.read_text()) if path.exists() else {}
    if record.get("settings") != settings:
        path.write_text(json.dumps(run(variant, seed, settings), indent=1))
        record = json.loads(path.read_text())
        best = {order: list(by_size.values()) for order, by_size in record["accuracy"].items()}
        print(f"# {variant.name}, seed {seed}: {record['seconds']:.0f} s, {best}", flush=True)
    return record


def mean_sd(values: list[float]) -> str:
    """Mean and standard deviation as text."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} ± {spread:.1f}"


Runs = dict[Variant, list[dict[str, Any]]]


def rows_of(runs: Runs) -> dict[str, list[dict[str, float]]]:
    """Accuracies by size of each seed, by row of the table: each order, and the best of them."""
    rows = {}
    for variant, records in runs.items():
        for order in variant.orders:
            suffix = f", by {order}" if len(variant.orders) > 1 else ""
            rows[variant.name + suffix] = [record["accuracy"][order] for record in records]
        if len(variant.orders) > 1:
            rows[f"{variant.name}, best order"] = [
                {n: max(scores[n] for scores in record["accuracy"].values())
                 for n in next(iter(record["accuracy"].values()))}
                for record in records
            ]  # fmt: skip
    return rows


def fastest(records: list[dict[str, Any]], batch: int) -> dict[str, float]:
    """Milliseconds of each size: the fastest pass over seeds, whose circuits are equally large."""
    times = [record["milliseconds"][str(batch)] for record in records]
    return {size: min(seed[size] for seed in times) for size in times[0]}


def speed_ups(records: list[dict[str, Any]], batch: int) -> dict[str, float]:
    """How many times faster each size is than the whole circuit."""
    times = fastest(records, batch)
    return {size: max(times.values()) / one for size, one in times.items()}


def print_tables(runs: Runs) -> None:
    """Accuracies, times, and what they show."""
    rows = rows_of(runs)
    sizes = list(next(iter(rows.values()))[0])
    head = f"{' | '.join(sizes)} |\n|---|{'--:|' * len(sizes)}"
    seeds = len(next(iter(runs.values())))
    print(f"\nAccuracy in % by modules kept, {seeds} seed(s)\n\n| trained | {head}")
    for name, seeds_of_row in rows.items():
        cells = [mean_sd([s[n] for s in seeds_of_row]) if n in seeds_of_row[0] else ""
                 for n in sizes]  # fmt: skip
        print(f"| {name} | {' | '.join(cells)} |")
    for batch in BATCHES:
        print(f"\nMilliseconds of the circuit for {batch} image(s), and speed-up\n\n| | {head}")
        for variant, records in runs.items():
            times, gains = fastest(records, batch), speed_ups(records, batch)
            cells = [f"{times[n]:.2f}, {gains[n]:.1f}x" if n in times else "" for n in sizes]
            print(f"| {variant.name} | {' | '.join(cells)} |")
    print()
    for variant, records in runs.items():
        if variant.share == 1:
            print_verdict(variant, records, rows)


def print_verdict(variant: Variant, records: list[dict[str, Any]], rows: dict[str, Any]) -> None:
    """What the largest circuit costs that is eight times faster, and if that means anything."""
    scores = rows.get(f"{variant.name}, best order", rows.get(variant.name))
    whole = next(iter(scores[0]))
    alone = [statistics.mean(record["one_random_module"]) for record in records]
    margin = min(score[whole] - one for score, one in zip(scores, alone, strict=True))
    gate = "holds" if margin >= GATE else "is missed, which makes the following void"
    gains = {n: gain for n, gain in speed_ups(records, 64).items() if gain >= SPEED_UP}
    print(f"{variant.name}: one random module {mean_sd(alone)}; gate of {GATE:g} points {gate}")
    if not gains:
        print(f"  no size is {SPEED_UP:g} times faster")
        return
    size, gain = next(iter(gains.items()))
    loss = [score[whole] - score[size] for score in scores]
    answer = "yes" if max(loss) < COST else "on average" if statistics.mean(loss) < COST else "no"
    cost = f"cost {mean_sd(loss)} points; less than {COST:g} in each seed: {answer}"
    print(f"  {size} modules are {gain:.1f} times faster and {cost}")
    plain = rows.get(f"{variant.network}, plain, best order")
    if plain and variant.dropout != "none":
        loss = [other[whole] - score[size] for other, score in zip(plain, scores, strict=True)]
        print(f"  against the whole circuit without module dropout: {mean_sd(loss)} points")


def plot(runs: Runs, path: Path) -> None:
    """Accuracy over measured speed-up, batch of 64."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = rows_of(runs)
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True)
    # one whole circuit for each kind of network: the training does not change its speed
    whole = {
        name: min(max(fastest(r, 64).values()) for v, r in runs.items()
                  if v.network == name and v.share == 1)
        for name in {v.network for v in runs}
    }  # fmt: skip
    for variant, records in runs.items():
        orders = f"{variant.name}, best order"
        row = rows.get(orders, rows.get(variant.name, []))
        values = [[score[n] for score in row] for n in row[0]]
        style = "x" if variant.share > 1 else "o:" if variant.dropout == "none" else "o-"
        axes[int(variant.network == PERCEIVER)].errorbar(
            [whole[variant.network] / ms for ms in fastest(records, 64).values()],
            [statistics.mean(v) for v in values],
            [statistics.stdev(v) if len(v) > 1 else 0 for v in values],
            fmt=style, capsize=3, label=orders if orders in rows else variant.name,
        )  # fmt: skip
    for axis, name in zip(axes, (NAC_NAME, PERCEIVER), strict=True):
        axis.set(xscale="log", title=name, xlabel="speed-up of the circuit, batch of 64")
        axis.set_xticks(SHARES, [str(share) for share in SHARES])
        axis.minorticks_off()
        axis.axvline(SPEED_UP, color="grey", linewidth=0.7)
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=8, loc="lower left")
    axes[0].set_ylabel("accuracy on test digits, %")
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    """Run all variants and seeds, print the tables, write every number and the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--dropout", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--modules", type=int, default=64)
    parser.add_argument("--dim", type=int, default=64, help="channels of a state")
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--calibration", type=int, default=250, help="digits for taylor and loo")
    parser.add_argument("--quick", action="store_true", help="a tiny network and one epoch")
    parser.add_argument("--out", type=Path, default=Path("runs/nac_module_dropping"))
    options = parser.parse_args()
    names = ("modules", "dim", "depth", "epochs", "batch", "calibration")
    settings = {name: getattr(options, name) for name in names}
    if options.quick:
        settings = dict(zip(names, (16, 16, 1, 1, 250, 20), strict=True))
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    chosen = [variant for variant in VARIANTS if variant.dropout in options.dropout]
    runs = {v: [recorded(v, seed, settings, options.out) for seed in options.seeds]
            for v in chosen}  # fmt: skip
    print_tables(runs)
    with open(options.out / "results.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "seed", "modules", "accuracy"])
        writer.writerows(
            [name, seed, n, value]
            for name, scores in rows_of(runs).items()
            for seed, score in zip(options.seeds, scores, strict=True)
            for n, value in score.items()
        )
    plot(runs, options.out / "module_dropping.png")
    machine = f"{platform.machine()}, 1 thread, torch {torch.__version__}"
    seconds = sum(record["cpu_seconds"] for records in runs.values() for record in records)
    print(f"\n{seconds:.0f} CPU-seconds of training on {machine}; {options.out}/results.csv")


if __name__ == "__main__":
    main()
