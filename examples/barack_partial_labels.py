"""Robust digits with few group labels: ERM, Subset-GDRO, BARACK and group DRO on all labels.

    python examples/barack_partial_labels.py      # 5 seeds, minutes on one core

The digits are coloured: red goes along with 5-9 in 97 % of the training images, and a classifier
that looks at the colour alone is nearly always right there. The table shows the accuracy on the
worst of the four groups (digit × colour) of the test images, which come in both colours, mean ± sd
over seeds. Each seed draws other colours and another labelled subset, the same one for all methods.
The epoch is chosen by the worst group of the validation images, for every method; these labels
count too, and their number stands below the table.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_ssl import BARACK, GroupRobustClassifier
from lit_ssl.callbacks import StepSeeder
from lit_ssl.datamodules import ColouredMNISTDataModule
from lit_ssl.models import SmallCNN

EPOCHS, PREDICTOR_EPOCHS = 10, 6  # of 50 steps each
COMMON = {"num_classes": 2, "lr": 0.05, "weight_decay": 1e-2}
DRO = {**COMMON, "step_size": 0.05, "adjustment": 2.0}
ERM, ORACLE = "ERM (no labels)", "group DRO (all labels)"


class Outcome(NamedTuple):
    """Accuracy on the test images, in [0, 1]."""

    worst: float
    average: float  # weighted as the training groups


def erm() -> GroupRobustClassifier:
    """Plain training."""
    return GroupRobustClassifier(SmallCNN(2), objective="erm", **COMMON)


def group_dro() -> GroupRobustClassifier:
    """Group DRO on known groups."""
    return GroupRobustClassifier(SmallCNN(2), **DRO)


def subset() -> GroupRobustClassifier:
    """Group DRO on the labelled rows alone."""
    return GroupRobustClassifier(SmallCNN(2), labelled_only=True, **DRO)


def barack(**options: object) -> BARACK:
    """Both steps."""
    return BARACK(backbone=SmallCNN(2), predictor_epochs=PREDICTOR_EPOCHS, **DRO, **options)


PARTIAL: dict[str, Callable[[], GroupRobustClassifier]] = {
    "Subset-GDRO": subset,
    "RWG on predicted groups": lambda: barack(objective="erm", sampling="balanced"),
    "BARACK": barack,
    "BARACK, soft groups": lambda: barack(soft_groups=True),
}


def run(make: Callable[[], GroupRobustClassifier], fraction: float, seed: int) -> Outcome:
    """Train, choose the epoch on the validation images, and test once."""
    torch.manual_seed(seed)
    module = make()
    data = ColouredMNISTDataModule(
        batch_size=64, seed=seed, colour_seed=seed, group_label_fraction=fraction or 1.0,
        group_label_seed=seed,
    )  # fmt: skip
    epochs = EPOCHS + (PREDICTOR_EPOCHS if isinstance(module, BARACK) else 0)
    with tempfile.TemporaryDirectory() as folder:
        best = ModelCheckpoint(folder, "best", monitor="val/acc_worst", mode="max")
        trainer = pl.Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, default_root_dir=folder,
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
            callbacks=[StepSeeder(seed), best],
        )  # fmt: skip
        trainer.fit(module, datamodule=data)
        weights = torch.load(best.best_model_path, weights_only=True)["state_dict"]
        module.load_state_dict(weights)
        (logged,) = trainer.test(module, datamodule=data, verbose=False)
    return Outcome(logged["test/acc_worst"], logged["test/acc_adj"])


def measure(
    fractions: Sequence[float], seeds: Sequence[int], methods: Sequence[str]
) -> list[dict[str, object]]:
    """One record per run."""
    plan = [(ERM, erm, 0.0), (ORACLE, group_dro, 1.0)]
    plan += [(name, PARTIAL[name], fraction) for fraction in fractions for name in methods]
    records = []
    for name, make, fraction in plan:
        for seed in seeds:
            outcome = run(make, fraction, seed)
            records.append(
                {"method": name, "fraction": fraction, "seed": seed, **outcome._asdict()}
            )
        values = [r["worst"] for r in records[-len(seeds) :]]
        print(f"{name:<24} {100 * fraction:>5.3g} %  worst {mean_sd(values)}", flush=True)
    return records


def mean_sd(values: Sequence[float]) -> str:
    """Mean and standard deviation in percent, as text."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.mean(values):.1f} ± {100 * spread:.1f}"


def select(
    records: Sequence[dict], method: str, fraction: float | None, what: str = "worst"
) -> list[float]:
    """Values of a method at a fraction of labels, over seeds; None: at the only one."""
    wanted = [r for r in records if r["method"] == method]
    return [r[what] for r in wanted if fraction in (None, r["fraction"])]


def print_table(
    records: Sequence[dict], fractions: Sequence[float], methods: Sequence[str]
) -> None:
    """Markdown tables of the worst group and of the average."""
    for what, title in (("worst", "worst group, %"), ("average", "average as in training, %")):
        print(f"\n| {title} | " + " | ".join(f"{100 * f:g} % labels" for f in fractions) + " |")
        print("|---|" + "--:|" * len(fractions))
        for name in (ERM, *methods, ORACLE):
            constant = name in (ERM, ORACLE)
            cells = [
                mean_sd(select(records, name, None if constant else f, what)) for f in fractions
            ]
            print(f"| {name} | " + " | ".join(cells) + " |")


def plot(
    records: Sequence[dict], fractions: Sequence[float], methods: Sequence[str], path: Path
) -> None:
    """Worst group over the share of labels, as PNG."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    for name in methods:
        values = [select(records, name, fraction) for fraction in fractions]
        means = [100 * statistics.mean(v) for v in values]
        spreads = [100 * statistics.stdev(v) if len(v) > 1 else 0.0 for v in values]
        axes.errorbar(
            [100 * f for f in fractions], means, spreads, marker="o", capsize=3, label=name
        )
    for name, style in ((ERM, ":"), (ORACLE, "--")):
        level = 100 * statistics.mean(select(records, name, None))
        axes.axhline(level, linestyle=style, color="grey", label=name)
    axes.set(
        xscale="log", xlabel="training images with a group label, %",
        ylabel="accuracy of the worst group, %", ylim=(0, 100),
    )  # fmt: skip
    axes.set_xticks([100 * f for f in fractions], [f"{100 * f:g}" for f in fractions])
    axes.minorticks_off()
    axes.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Run everything, print the tables, and write them as JSON and as a plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.01, 0.05, 0.33])
    parser.add_argument("--methods", nargs="+", default=list(PARTIAL), choices=list(PARTIAL))
    parser.add_argument("--out", type=Path, default=Path("runs/barack_partial_labels"))
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    start = time.perf_counter()
    records = measure(options.fractions, options.seeds, options.methods)
    print_table(records, options.fractions, options.methods)
    print("\nOf 3,200 training images; all 1,600 validation images have their group label.")
    options.out.mkdir(parents=True, exist_ok=True)
    results = options.out / "results.json"
    results.write_text(json.dumps(records, indent=2) + "\n")
    plot(records, options.fractions, options.methods, options.out / "worst_group.png")
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    seconds, used = time.perf_counter() - start, time.process_time()
    print(f"{seconds:.0f} s ({used:.0f} CPU-seconds) on {machine}; {results}, worst_group.png")


if __name__ == "__main__":
    main()
