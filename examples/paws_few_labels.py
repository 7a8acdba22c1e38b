"""PAWS with one and five labels per digit, against training on the labels alone.

    python examples/paws_few_labels.py --per-class 1     # 3 seeds; 20 minutes on one core
    python examples/paws_few_labels.py --per-class 5     # beside it, on another

Trains a small network on 3,500 digits of which 10 or 50 have a label, and reports the accuracy on
1,000 test digits, mean ± sd over seeds (each draws other labels): PAWS, PAWS without mean-entropy
maximisation, PAWS without sharpening, the same network trained on the labelled digits alone, and
nearest neighbours in raw pixels. Beside each accuracy stands the entropy of the mean prediction:
ln 10 = 2.30 where all classes are in use. Nothing is chosen on the test digits: every run is
evaluated once, at its end.
"""

from __future__ import annotations

import argparse
import csv
import logging
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_ssl import PAWS, ImageClassifier
from lit_ssl.callbacks import StepSeeder
from lit_ssl.datamodules import MNIST5kDataModule, SemiSupervisedDataModule, Subset
from lit_ssl.metrics import soft_nearest_neighbor
from lit_ssl.models import create_backbone
from lit_ssl.transforms import CropSpec, EvalTransform, MultiCrop, SingleView

SIZE, BATCH, CLASSES = 20, 64, 10
NETWORK = {"depth": 10, "width": 1, "in_chans": 1, "bn_momentum_last": 0.1}
LARGE = CropSpec(size=SIZE, count=2, scale=(0.75, 1.0), rotation=15.0, brightness=0.3)
SMALL = CropSpec(size=14, count=4, scale=(0.5, 0.85), rotation=15.0, brightness=0.3)
PAWS_VARIANTS = {
    "PAWS": {},
    "PAWS without me-max": {"me_max_weight": 0.0},
    "PAWS without sharpening": {"sharpen_temperature": 1.0},
}
SUPERVISED, PIXELS = "supervised, same labels", "raw pixels, 1-NN"


class Outcome(NamedTuple):
    """Accuracy on the test digits and entropy (nats) of the mean prediction."""

    accuracy: float
    entropy: float


class Digits:
    """The digits of one run: which have a label follows from the seed."""

    def __init__(self, per_class: int, seed: int) -> None:
        self.per_class, self.seed = per_class, seed
        self.subset = Subset(per_class=per_class, seed=seed)

    def dataset(self, views: MultiCrop | SingleView, **kwargs: object) -> MNIST5kDataModule:
        """All digits, with these training views."""
        return MNIST5kDataModule(
            augment="device", seed=self.seed, eval_transform=EvalTransform(SIZE),
            train_transform=views, **kwargs,
        )  # fmt: skip

    def two_streams(self) -> SemiSupervisedDataModule:
        """Unlabelled digits and supports, for PAWS."""
        return SemiSupervisedDataModule(
            self.dataset(MultiCrop([LARGE, SMALL]), batch_size=BATCH),
            subset=self.subset, images_per_class=self.per_class, support_views=2,
        )  # fmt: skip

    def labelled(self) -> MNIST5kDataModule:
        """The labelled digits alone: each batch is all of them, in fresh views."""
        views = SingleView(replace(LARGE, count=1))
        return self.dataset(views, batch_size=CLASSES * self.per_class, subset=self.subset)


@torch.no_grad()
def collect(data: pl.LightningDataModule, loader: DataLoader, function: Callable) -> tuple:
    """Apply a function to all images of a loader; returns its rows and the labels."""
    batches = [data.on_after_batch_transfer(batch, 0) for batch in loader]
    return torch.cat([function(x) for x, _ in batches]), torch.cat([y for _, y in batches])


def fit(module: pl.LightningModule, data: pl.LightningDataModule, steps: int) -> None:
    """Train for some steps, silently."""
    pl.Trainer(
        max_steps=steps, max_epochs=-1, accelerator="cpu", logger=False, limit_val_batches=0,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[StepSeeder()],
    ).fit(module, datamodule=data)  # fmt: skip
    module.eval()


def outcome(probabilities: Tensor, labels: Tensor) -> Outcome:
    """Accuracy and entropy of predictions ``[N, K]``."""
    accuracy = (probabilities.argmax(1) == labels).double().mean().item()
    return Outcome(accuracy, torch.special.entr(probabilities.mean(0)).sum().item())


def nearest_supports(
    data: SemiSupervisedDataModule, embed: Callable, temperature: float = 0.1
) -> Outcome:
    """Soft nearest neighbours of the test digits among all labelled ones (PAWS-NN)."""
    supports, classes = collect(data, data.support_dataloader(), embed)
    queries, labels = collect(data, data.test_dataloader(), embed)
    return outcome(soft_nearest_neighbor(queries, supports, classes, temperature, CLASSES), labels)


def run_paws(digits: Digits, steps: int, options: dict[str, float]) -> Outcome:
    """Train PAWS and classify by soft nearest neighbours."""
    module = PAWS(
        "wide_resnet", NETWORK, num_classes=CLASSES, proj_output_dim=64, use_prediction_head=False,
        lr=1.6, start_lr=0.4, final_lr=0.016, warmup_epochs=1, **options,
    )  # fmt: skip
    data = digits.two_streams()
    fit(module, data, steps)
    return nearest_supports(data, module.embed)


def run_supervised(digits: Digits, steps: int) -> Outcome:
    """Train the network on the labelled digits alone, with PAWS' large views."""
    module = ImageClassifier(
        create_backbone("wide_resnet", NETWORK)[0], num_classes=CLASSES, label_smoothing=0.1,
        lr=0.05, start_lr=0.01, warmup_epochs=steps / 20, weight_decay=5e-4,
    )  # fmt: skip
    data = digits.labelled()
    fit(module, data, steps)
    scores, labels = collect(data, data.test_dataloader(), module.logits)
    return outcome(scores.softmax(1), labels)


def run_pixels(digits: Digits) -> Outcome:
    """Nearest neighbour in raw pixels."""
    data = digits.two_streams()
    data.setup()
    return nearest_supports(data, nn.Flatten(), temperature=1e-3)


def run_all(digits: Digits, steps: int) -> dict[str, Outcome]:
    """All rows of the table for one draw of labels."""
    rows = {}
    for name, options in PAWS_VARIANTS.items():
        torch.manual_seed(digits.seed)
        rows[name] = run_paws(digits, steps, options)
    torch.manual_seed(digits.seed)
    rows[SUPERVISED] = run_supervised(digits, 2 * steps)
    rows[PIXELS] = run_pixels(digits)
    return rows


def mean_sd(values: list[float], digits: int) -> str:
    """Mean and standard deviation as text."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {spread:.{digits}f}"


def print_table(per_class: int, runs: list[dict[str, Outcome]]) -> None:
    """Print one row per method."""
    print(f"\n{per_class} label(s) per class, {len(runs)} seeds\n")
    print("| method | accuracy, % | of each seed | entropy of the mean prediction |")
    print("|---|--:|---|--:|")
    for name in runs[0]:
        accuracies = [100 * run[name].accuracy for run in runs]
        entropies = mean_sd([run[name].entropy for run in runs], 2)
        each = ", ".join(f"{value:.1f}" for value in accuracies)
        print(f"| {name} | {mean_sd(accuracies, 1)} | {each} | {entropies} |", flush=True)


def main() -> None:
    """Run all seeds and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--per-class", type=int, nargs="+", default=[1, 5], help="labels")
    parser.add_argument("--steps", type=int, default=800, help="of PAWS; supervised takes twice")
    parser.add_argument("--out", type=Path, default=Path("runs/paws_few_labels"))
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    start = time.perf_counter()
    options.out.mkdir(parents=True, exist_ok=True)
    records = []
    for per_class in options.per_class:
        runs = [run_all(Digits(per_class, seed), options.steps) for seed in options.seeds]
        print_table(per_class, runs)
        records += [
            (per_class, seed, name, *result)
            for seed, run in zip(options.seeds, runs, strict=True)
            for name, result in run.items()
        ]
    with open(options.out / "results.csv", "w", newline="") as file:
        csv.writer(file).writerows([("per_class", "seed", "method", *Outcome._fields), *records])
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    seconds, used = time.perf_counter() - start, time.process_time()
    print(f"\n{seconds:.0f} s ({used:.0f} CPU-seconds) on {machine}; {options.out}/results.csv")


if __name__ == "__main__":
    main()
