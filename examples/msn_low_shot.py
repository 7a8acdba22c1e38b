"""MSN with few labels: pre-training without labels, then 1 to 20 labelled digits per class.

    python examples/msn_low_shot.py               # 3 seeds; half an hour on one core

Pre-trains the recipe msn/mnist5k.yaml (3,500 digits, no labels) with and without masks, and reports
the accuracy of a logistic regression on frozen features (the paper's low-shot protocol) on 1,000
test digits, against the same network untrained, against raw pixels, and against two networks that
are trained on the labelled digits alone: the same ViT, and a small wide ResNet. Mean ± sd over
seeds; each seed pre-trains anew and draws other labels, the same for all rows. Nothing is chosen on
the test digits.
"""

from __future__ import annotations

import argparse
import csv
import logging
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from lit_ssl import MSN, ImageClassifier
from lit_ssl.callbacks import StepSeeder
from lit_ssl.checkpoints.newest import newest_checkpoint
from lit_ssl.datamodules import MNIST5kDataModule, Subset
from lit_ssl.metrics import fit_low_shot, predict_low_shot
from lit_ssl.models import create_backbone
from lit_ssl.transforms import CropSpec, SingleView

CLASSES = 10
# name → overrides of the recipe
PRETRAINED = {"MSN": [], "MSN without masks": ["--model.mask_ratio=0"]}
UNTRAINED, PIXELS = "untrained ViT", "raw pixels"
SUPERVISED = {"supervised ViT, same labels": "vit", "supervised WRN-10-1, same labels": "wrn"}
VIEW = CropSpec(size=28, scale=(0.5, 1.0), rotation=15.0, brightness=0.4)  # of the recipe
WRN = {"depth": 10, "width": 1, "in_chans": 1, "bn_momentum_last": 0.1}


def pretrain(folder: Path, seed: int, words: list[str]) -> MSN:
    """Train the recipe through the command line, or take what an earlier call has trained."""
    command = [sys.executable, "-m", "lit_ssl", "fit", "--config", "msn/mnist5k.yaml"]
    shared = [f"--seed_everything={seed}", f"--trainer.default_root_dir={folder}"]
    if not (folder / "done").exists():
        subprocess.run([*command, *shared, *words], check=True, stdout=subprocess.DEVNULL)
        (folder / "done").touch()
    path = newest_checkpoint([folder]).path
    return MSN.load_from_checkpoint(path, map_location="cpu", weights_only=True).eval()


@torch.no_grad()
def collect(data: MNIST5kDataModule, split: str, function: Callable) -> tuple[Tensor, Tensor]:
    """Apply a function to all digits of a split (``bank`` or ``test``)."""
    loader = getattr(data, f"{split}_dataloader")()
    batches = [data.on_after_batch_transfer(batch, 0) for batch in loader]
    return torch.cat([function(x) for x, _ in batches]), torch.cat([y for _, y in batches])


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Share of correct predictions, in %."""
    return 100 * (predictions == labels).double().mean().item()


def low_shot(
    data: MNIST5kDataModule, features: Callable, draws: dict[int, Tensor]
) -> dict[int, float]:
    """Accuracy of the paper's regression on frozen features, by labels per class."""
    bank, bank_labels = collect(data, "bank", features)
    queries, labels = collect(data, "test", features)
    result = {}
    for shots, rows in draws.items():
        weights = fit_low_shot(bank[rows], bank_labels[rows], CLASSES)
        result[shots] = accuracy(predict_low_shot(weights, queries), labels)
    return result


def supervised(kind: str, shots: int, seed: int, steps: int) -> float:
    """Accuracy of a network that is trained on the labelled digits alone."""
    torch.manual_seed(seed)
    if kind == "vit":
        vit = untrained(seed).encoder.requires_grad_(True)
        module = ImageClassifier(
            vit, num_classes=CLASSES, label_smoothing=0.1, lr=1e-3, start_lr=1e-4,
            warmup_epochs=steps / 20, weight_decay=0.05, optimizer=torch.optim.AdamW,
        )  # fmt: skip
    else:
        module = ImageClassifier(
            create_backbone("wide_resnet", WRN)[0], num_classes=CLASSES, label_smoothing=0.1,
            lr=0.05, start_lr=0.01, warmup_epochs=steps / 20, weight_decay=5e-4,
        )  # fmt: skip
    data = MNIST5kDataModule(
        batch_size=CLASSES * shots, augment="device", seed=seed, train_transform=SingleView(VIEW),
        subset=Subset(per_class=shots, seed=seed),
    )  # fmt: skip
    pl.Trainer(
        max_steps=steps, max_epochs=-1, accelerator="cpu", logger=False, limit_val_batches=0,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[StepSeeder()],
    ).fit(module, datamodule=data)  # fmt: skip
    scores, labels = collect(data, "test", module.eval().logits)
    return accuracy(scores.argmax(1), labels)


def untrained(seed: int) -> MSN:
    """The recipe's network before training."""
    torch.manual_seed(seed)
    network = {"img_size": 28, "patch_size": 7, "in_chans": 1}
    network |= {"embed_dim": 64, "depth": 3, "num_heads": 4}
    return MSN("vit_tiny_patch16_224", network, initialization="sincos", num_prototypes=40).eval()


def run_seed(
    seed: int, shots: list[int], steps: int, epochs: int | None, out: Path
) -> dict[str, dict[int, float]]:
    """All rows of the table for one seed."""
    length = [] if epochs is None else [f"--trainer.max_epochs={epochs}"]
    data = MNIST5kDataModule(batch_size=500)
    data.setup()
    draws = {n: torch.from_numpy(data.positions(Subset(per_class=n, seed=seed))) for n in shots}
    rows = {}
    for name, words in PRETRAINED.items():
        folder = out / name.replace(" ", "_") / f"seed{seed}"
        rows[name] = low_shot(data, pretrain(folder, seed, [*words, *length]).features, draws)
    rows[UNTRAINED] = low_shot(data, untrained(seed).features, draws)
    rows[PIXELS] = low_shot(data, nn.Flatten(), draws)
    for name, kind in SUPERVISED.items():
        rows[name] = {n: supervised(kind, n, seed, steps) for n in shots}
    return rows


def mean_sd(values: list[float]) -> str:
    """Mean and standard deviation as text."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} ± {spread:.1f}"


def main() -> None:
    """Run all seeds, print the table and write every number."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 5, 20])
    parser.add_argument("--steps", type=int, default=600, help="of supervised training")
    parser.add_argument("--epochs", type=int, help="of pre-training, instead of the recipe's")
    parser.add_argument("--out", type=Path, default=Path("runs/msn_low_shot"))
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    start = time.perf_counter()
    settings = (options.shots, options.steps, options.epochs, options.out)
    runs = [run_seed(seed, *settings) for seed in options.seeds]

    print(f"\nAccuracy in %, {len(runs)} seeds, by labelled digits per class\n")
    print("| features or network | " + " | ".join(map(str, options.shots)) + " |")
    print("|---|" + "--:|" * len(options.shots))
    for name in runs[0]:
        cells = [mean_sd([run[name][n] for run in runs]) for n in options.shots]
        print(f"| {name} | {' | '.join(cells)} |")
    with open(options.out / "results.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["seed", "row", *(f"{n}_per_class" for n in options.shots)])
        for seed, run in zip(options.seeds, runs, strict=True):
            writer.writerows([seed, name, *row.values()] for name, row in run.items())
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    print(f"\n{time.perf_counter() - start:.0f} s on {machine}; {options.out}/results.csv")


if __name__ == "__main__":
    main()
