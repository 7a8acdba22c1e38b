"""Few examples of new classes: adapting a trained circuit, and how much of it to adapt.

    python examples/nac_low_shot.py               # 3 seeds x 5 episodes; 12 minutes on one core
    python examples/nac_low_shot.py --quick       # seconds, and no result

Trains a Neural Attentive Circuit and a Perceiver IO of the same size on six digits, adapts each to
the other four with 1, 5 and 20 examples per class, and reports the accuracy on the 400 test digits
of these classes. Adapted are the classifier alone, the classifier and the signatures (re-wiring),
the classifier and the codes (of Perceiver IO: the latents), or everything (full fine-tuning).
Beside them stand the same networks trained on the few examples alone and a linear classifier on
pixels.

Each seed holds out other digits, and each episode draws other examples, the same for all rows.
Differences are taken within episodes. Nothing is chosen on the test digits: the learning rates are
the best of three on validation digits, with a seed that is not reported (``--tune``).
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import logging
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from lit_ssl.callbacks import StepSeeder
from lit_ssl.datamodules import FewShotDataModule, MNIST5kDataModule, SomeClassesDataModule
from lit_ssl.methods import NAC, NACFewShot
from lit_ssl.metrics import fit_low_shot, predict_low_shot
from lit_ssl.models import NeuralAttentiveCircuit, PatchTokenizer, PerceiverIO
from lit_ssl.transforms import CropSpec, SingleView

SEEN, WAYS = 6, 4
HEADS, OUTPUTS = 4, 4
VIEW = SingleView(CropSpec(size=28, scale=(0.9, 1.0), ratio=(0.9, 1.1), rotation=8.0))
NAC_NAME, PERCEIVER, PIXELS = "NAC", "Perceiver IO", "linear, on pixels"
SCRATCH = "from scratch"
# what is adapted → learning rate
RATES = {
    NAC_NAME: {
        "head": 3e-2, "head+signatures": 3e-2, "head+codes": 1e-2, "all": 1e-3, SCRATCH: 3e-3,
    },
    PERCEIVER: {"head": 3e-3, "head+codes": 3e-3, "all": 1e-3, SCRATCH: 3e-3},
}  # fmt: skip
GRID = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)  # of --tune
# rows whose difference is of interest
PAIRS = [
    *(
        (f"{NAC_NAME}, {part}", f"{NAC_NAME}, head")
        for part in ("head+signatures", "head+codes", "all")
    ),
    (f"{NAC_NAME}, head", f"{PERCEIVER}, head"),
    (f"{NAC_NAME}, head+codes", f"{PERCEIVER}, head+codes"),
    (f"{NAC_NAME}, all", f"{PERCEIVER}, all"),
    (f"{NAC_NAME}, all", f"{NAC_NAME}, {SCRATCH}"),
    (f"{NAC_NAME}, all", PIXELS),
]

Scores = dict[str, list[float]]  # row → accuracy in % of each episode


def build(network: str, settings: dict[str, int]) -> NeuralAttentiveCircuit:
    """A new network; Perceiver IO is the same without codes and graph."""
    dim = settings["dim"]
    shared: dict[str, Any] = {
        "tokenizer": PatchTokenizer(28, 7, 1, 48, 16), "state_dim": dim, "depth": settings["depth"],
        "num_modules": settings["modules"], "num_output_modules": OUTPUTS, "num_heads": HEADS,
        "head_dim": dim // HEADS, "ffn_mult": 2.0, "layer_scale": None,
    }  # fmt: skip
    if network == PERCEIVER:
        return PerceiverIO(**shared, read_in_heads=HEADS, readout="pool")
    return NeuralAttentiveCircuit(**shared)


def digits(batch: int, seed: int) -> MNIST5kDataModule:
    """All digits, in random views for training."""
    return MNIST5kDataModule(batch_size=batch, augment="device", seed=seed, train_transform=VIEW)


def fit(module: pl.LightningModule, data: pl.LightningDataModule, **length: int) -> None:
    """Train silently; nothing is chosen, the end counts."""
    pl.Trainer(
        **length, accelerator="cpu", logger=False, limit_val_batches=0, callbacks=[StepSeeder()],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    ).fit(module, datamodule=data)  # fmt: skip
    module.eval()


@torch.no_grad()
def collect(data: pl.LightningDataModule, split: str, function: Callable) -> tuple[Tensor, Tensor]:
    """Apply a function to all images of a split (``bank`` or ``test``)."""
    loader = getattr(data, f"{split}_dataloader")()
    batches = [data.on_after_batch_transfer(batch, 0) for batch in loader]
    return torch.cat([function(x) for x, _ in batches]), torch.cat([y for _, y in batches])


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Share of right answers, in %."""
    return 100 * (predictions == labels).double().mean().item()


def evaluated(module: Any, data: pl.LightningDataModule, split: str = "test") -> float:
    """Accuracy of a network on a split."""
    logits, labels = collect(data, split, module.logits)
    return accuracy(logits.argmax(1), labels)


def pretrained(
    network: str, seed: int, settings: dict[str, int]
) -> tuple[NeuralAttentiveCircuit, float, list[int]]:
    """A network that was trained on six digits, its accuracy on them, and the other four."""
    order = torch.randperm(10, generator=torch.Generator().manual_seed(seed)).tolist()
    seen, unseen = sorted(order[:SEEN]), sorted(order[SEEN:])
    pl.seed_everything(seed, verbose=False)
    module = NAC(
        build(network, settings), len(seen), lr=3e-3, start_lr=3e-4, final_lr=3e-5,
        warmup_epochs=1, weight_decay=0.05, label_smoothing=0.0,
    )  # fmt: skip
    data = SomeClassesDataModule(digits(64, seed), classes=seen)
    fit(module, data, max_epochs=settings["epochs"])
    return module.net, evaluated(module, data), unseen


def episode(seed: int, number: int, shots: int, unseen: list[int]) -> FewShotDataModule:
    """A few images of each unseen digit to learn from, all its test images to be asked."""
    data = FewShotDataModule(
        digits(WAYS * shots, seed), ways=WAYS, shots=shots, episode=number, classes=unseen,
        episode_seed=seed,
    )  # fmt: skip
    data.setup()
    return data


def adapted(
    net: nn.Module, part: str, data: FewShotDataModule, steps: int, rate: float
) -> NACFewShot:
    """An adapted copy of a network; each step sees all examples in new views."""
    module = NACFewShot(
        copy.deepcopy(net), WAYS, adapt="all" if part == SCRATCH else part, lr=rate,
        weight_decay=0.05, optimizer=lambda groups: torch.optim.AdamW(groups),
    )  # fmt: skip
    fit(module, data, max_epochs=-1, max_steps=steps)
    return module


def on_pixels(data: FewShotDataModule) -> float:
    """Accuracy of a logistic regression on the pixels of the examples."""
    features, labels = collect(data, "bank", nn.Flatten())
    queries, answers = collect(data, "test", nn.Flatten())
    weights = fit_low_shot(features, labels, WAYS)
    return accuracy(predict_low_shot(weights, queries), answers)


def run(
    network: str, seed: int, shots: list[int], episodes: int, settings: dict[str, int]
) -> dict[str, Any]:
    """Pretrain one network and adapt it in every way in every episode."""
    start, cpu = time.perf_counter(), time.process_time()
    net, before, unseen = pretrained(network, seed, settings)
    scores: dict[str, Scores] = {}
    for count in shots:
        scores[str(count)] = rows = {}
        for number in range(episodes):
            data = episode(seed, number, count, unseen)
            for part, rate in RATES[network].items():
                torch.manual_seed(1000 * seed + number)
                begin = build(network, settings) if part == SCRATCH else net
                module = adapted(begin, part, data, settings["steps"], rate)
                rows.setdefault(f"{network}, {part}", []).append(evaluated(module, data))
            if network == NAC_NAME:
                rows.setdefault(PIXELS, []).append(on_pixels(data))
    return {
        "settings": settings, "unseen": unseen, "pretraining_accuracy": before, "scores": scores,
        "seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu,
    }  # fmt: skip


def tune(seed: int, shots: int, episodes: int, settings: dict[str, int]) -> None:
    """Print the accuracy on validation digits of each learning rate."""
    print(f"\nAccuracy in % on validation digits, seed {seed}, {shots} examples per class\n")
    for network, parts in RATES.items():
        net, _, unseen = pretrained(network, seed, settings)
        validation = SomeClassesDataModule(digits(100, seed), classes=unseen)
        validation.setup()
        for part in parts:
            for rate in GRID[:3] if part in ("all", SCRATCH) else GRID[2:]:
                scores = []
                for number in range(episodes):
                    torch.manual_seed(1000 * seed + number)
                    begin = build(network, settings) if part == SCRATCH else net
                    data = episode(seed, number, shots, unseen)
                    module = adapted(begin, part, data, settings["steps"], rate)
                    scores.append(evaluated(module, validation, "val"))
                print(f"{network}, {part}, {rate:.1e}: {mean_sd(scores)}", flush=True)


def mean_sd(values: list[float]) -> str:
    """Mean and standard deviation as text."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} ± {spread:.1f}"


def interval(values: list[float]) -> str:
    """Mean and half the width of its 95 % interval (Student's t) as text."""
    from scipy.stats import t

    if len(values) < 2:
        return f"{statistics.mean(values):+.1f}"
    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):+.1f} ± {half:.1f}"


def print_tables(runs: list[dict[str, Scores]], shots: list[int]) -> None:
    """Accuracies, and differences within episodes.

    Args:
        runs: of each seed: examples per class → row → accuracies.
        shots: examples per class.
    """
    head = f"{' | '.join(map(str, shots))} |\n|---|{'--:|' * len(shots)}"
    episodes = len(runs[0][str(shots[0])][PIXELS])
    what = f"mean ± sd over {len(runs)} seed(s) of means over {episodes} episode(s)"
    print(f"\nAccuracy in % by examples per class, {WAYS} classes, {what}\n\n| adapted | {head}")
    for row in runs[0][str(shots[0])]:
        cells = [mean_sd([statistics.mean(run[str(n)][row]) for run in runs]) for n in shots]
        print(f"| {row} | {' | '.join(cells)} |")
    print(f"\nDifference within episodes in points, with its 95 % interval\n\n| | {head}")
    for one, other in PAIRS:
        cells = []
        for n in shots:
            pairs = [zip(run[str(n)][one], run[str(n)][other], strict=True) for run in runs]
            cells.append(interval([a - b for pair in pairs for a, b in pair]))
        print(f"| {one} − {other} | {' | '.join(cells)} |")


def plot(runs: list[dict[str, Scores]], shots: list[int], path: Path) -> None:
    """Accuracy over examples per class."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.5))
    for row in runs[0][str(shots[0])]:
        values = [[statistics.mean(run[str(n)][row]) for run in runs] for n in shots]
        spread = [statistics.stdev(v) if len(v) > 1 else 0 for v in values]
        style = "s:" if row == PIXELS else "o-" if row.startswith(NAC_NAME) else "^--"
        means = [statistics.mean(v) for v in values]
        axis.errorbar(shots, means, spread, fmt=style, capsize=3, label=row)
    axis.set(xscale="log", xlabel="examples per class", ylabel="accuracy on test digits, %")
    axis.set_xticks(shots, [str(n) for n in shots])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    """Run all seeds, print the tables, write every number and the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5, 20])
    parser.add_argument("--episodes", type=int, default=5)
    parser.add_argument("--modules", type=int, default=32)
    parser.add_argument("--dim", type=int, default=48, help="channels of a state")
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=12, help="of pretraining")
    parser.add_argument("--steps", type=int, default=60, help="of adaptation")
    parser.add_argument("--quick", action="store_true", help="a tiny network, one epoch, one step")
    parser.add_argument("--tune", type=int, metavar="SEED", help="only compare learning rates")
    parser.add_argument("--out", type=Path, default=Path("runs/nac_low_shot"))
    options = parser.parse_args()
    names = ("modules", "dim", "depth", "epochs", "steps")
    settings = {name: getattr(options, name) for name in names}
    if options.quick:
        settings = dict(zip(names, (8, 16, 1, 1, 1), strict=True))
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    torch.set_num_threads(1)
    if options.tune is not None:
        tune(options.tune, options.shots[len(options.shots) // 2], options.episodes, settings)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    settings["episodes"] = options.episodes
    runs, spent = [], 0.0
    for seed in options.seeds:
        merged: dict[str, Scores] = {str(n): {} for n in options.shots}
        for network in RATES:
            path = options.out / f"{network.replace(' ', '_')}_seed{seed}.json"
            record = json.loads(path.read_text()) if path.exists() else {}
            wanted = {**settings, "shots": options.shots, "rates": RATES}
            if record.get("settings") != wanted:
                record = run(network, seed, options.shots, options.episodes, settings)
                record["settings"] = wanted
                path.write_text(json.dumps(record, indent=1))
                print(f"# {network}, seed {seed}: {record['seconds']:.0f} s, new digits "
                      f"{record['unseen']}, {record['pretraining_accuracy']:.1f} % on the others",
                      flush=True)  # fmt: skip
            spent += record["cpu_seconds"]
            for count, rows in record["scores"].items():
                merged[count].update(rows)
        runs.append(merged)
    print_tables(runs, options.shots)
    with open(options.out / "results.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["seed", "episode", "shots", "row", "accuracy"])
        writer.writerows(
            [seed, number, shots, row, value]
            for seed, merged in zip(options.seeds, runs, strict=True)
            for shots, rows in merged.items()
            for row, values in rows.items()
            for number, value in enumerate(values)
        )
    plot(runs, options.shots, options.out / "low_shot.png")
    machine = f"{platform.machine()}, 1 thread, torch {torch.__version__}"
    print(f"\n{spent:.0f} CPU-seconds on {machine}; {options.out}/results.csv")


if __name__ == "__main__":
    main()
