"""What an augmentation does to the kinds of image it was not made for, on digits.

    python examples/imagenet_x_spillover.py              # 5 seeds: under a minute on one core
    python examples/imagenet_x_spillover.py --seeds 1

ImageNet-X's finding (arXiv 2211.01866, section 3.3.2), scaled down: an augmentation helps the
factor that it imitates and spills over to others. Nine of ten test digits get one of nine factors
(rotation, background, size, brightness, covered parts …); a small network is trained on digits of
which a quarter are varied in the same ways, with no augmentation or with one. The table tells
accuracies and error ratios apart: where one factor's share of the errors falls, those of the others
rise, also where their accuracy did not change. Needs `pip install lit-ssl[examples]`.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_ssl.datamodules import MNIST5kDataModule
from lit_ssl.metrics import FactorAccuracy

EPOCHS, BATCH, RENDERINGS = 10, 64, 4
NONE_SHARE, VARIED_SHARE = 0.1, 0.25


# ------------------------------------------------------------------ factors


def uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """``[n, 1, 1, 1]`` in [low, high)."""
    return torch.rand(n, 1, 1, 1, generator=generator) * (high - low) + low


def warp(images: Tensor, degrees: Tensor, scale: Tensor) -> Tensor:
    """Rotate and resize each image about its centre; ``degrees`` and ``scale`` are [N, 1, 1, 1]."""
    angle = torch.deg2rad(degrees.flatten())
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    rows = torch.stack([cos, -sin, zero, sin, cos, zero], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(rows / scale.view(-1, 1, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def pose(images: Tensor, g: torch.Generator) -> Tensor:
    """Rotate by 20 to 43 degrees to either side."""
    sign = uniform(len(images), -1, 1, g).sign()
    return warp(images, sign * uniform(len(images), 20, 43, g), torch.ones(len(images)))


def background(images: Tensor, g: torch.Generator) -> Tensor:
    """Put smooth grey spots behind the digit."""
    spots = torch.rand(len(images), 1, 4, 4, generator=g)
    spots = F.interpolate(spots, size=images.shape[-2:], mode="bilinear", align_corners=False)
    return torch.maximum(images, 0.6 * spots)


def smaller(images: Tensor, g: torch.Generator) -> Tensor:
    """Shrink to half or two thirds."""
    return warp(images, torch.zeros(len(images)), uniform(len(images), 0.5, 0.65, g))


def larger(images: Tensor, g: torch.Generator) -> Tensor:
    """Grow by a half; parts leave the picture."""
    return warp(images, torch.zeros(len(images)), uniform(len(images), 1.35, 1.6, g))


def darker(images: Tensor, g: torch.Generator) -> Tensor:
    """Keep a fifth of the brightness."""
    return images * uniform(len(images), 0.12, 0.3, g)


def brighter(images: Tensor, g: torch.Generator) -> Tensor:
    """Lower the contrast on a bright ground."""
    return images * 0.4 + uniform(len(images), 0.4, 0.6, g)


def partial_view(images: Tensor, g: torch.Generator) -> Tensor:
    """Lose the outer third on one of the four sides."""
    side = torch.randint(0, 4, (len(images), 1, 1, 1), generator=g)
    line = torch.arange(28)
    down, across = line.view(1, 1, 28, 1), line.view(1, 1, 1, 28)
    lost = torch.where(side < 2, down, across)
    return images * torch.where(side % 2 == 0, lost >= 9, lost < 19)


def object_blocking(images: Tensor, g: torch.Generator) -> Tensor:
    """Put a grey block of 8 x 8 pixels somewhere in the middle."""
    corner = torch.randint(6, 15, (2, len(images), 1, 1, 1), generator=g)
    line = torch.arange(28)
    down, across = line.view(1, 1, 28, 1) - corner[0], line.view(1, 1, 1, 28) - corner[1]
    covered = (down >= 0) & (down < 8) & (across >= 0) & (across < 8)
    return torch.where(covered, 0.7, images)


def texture(images: Tensor, g: torch.Generator) -> Tensor:
    """Punch holes into 45% of the pixels."""
    return images * (torch.rand(images.shape, generator=g) > 0.45)


FACTORS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    function.__name__: function
    for function in (
        pose, background, smaller, larger, darker, brighter, partial_view, object_blocking, texture,
    )
}  # fmt: skip


def vary(images: Tensor, share: float, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Give a share of the images one random factor; returns images and factors (−1: none)."""
    factor = torch.randint(0, len(FACTORS), (len(images),), generator=g)
    factor[torch.rand(len(images), generator=g) >= share] = -1
    out = images.clone()
    for f, function in enumerate(FACTORS.values()):
        out[factor == f] = function(images[factor == f], g)
    return out, factor


# ------------------------------------------------------------------ augmentations


def no_augmentation(images: Tensor, g: torch.Generator) -> Tensor:
    """Leave the images as they are."""
    return images


def rotation(images: Tensor, g: torch.Generator) -> Tensor:
    """Rotate by up to 40 degrees."""
    return warp(images, uniform(len(images), -40, 40, g), torch.ones(len(images)))


def zoom_out(images: Tensor, g: torch.Generator) -> Tensor:
    """Shrink to between half and full size."""
    return warp(images, torch.zeros(len(images)), uniform(len(images), 0.5, 1.0, g))


AUGMENTATIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "none": no_augmentation,
    "rotation": rotation,
    "zoom out": zoom_out,
}
TARGETS = {"rotation": "pose", "zoom out": "smaller"}


# ------------------------------------------------------------------ one run


def digits() -> dict[str, tuple[Tensor, Tensor]]:
    """Images ``[N, 1, 28, 28]`` in [0, 1] and labels of both splits."""
    data = MNIST5kDataModule(batch_size=4000, val_size=0)
    data.setup()
    loaders = {"train": data.bank_dataloader(), "test": data.test_dataloader()}
    batches = {name: next(iter(loader)) for name, loader in loaders.items()}
    return {name: (images / 255, labels) for name, (images, labels) in batches.items()}


def train(images: Tensor, labels: Tensor, augment: Callable, seed: int) -> nn.Module:
    """Train the network."""
    torch.manual_seed(seed)
    g = torch.Generator().manual_seed(1000 + seed)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 5, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images), generator=g).split(BATCH):
            loss = F.cross_entropy(network(augment(images[rows], g)), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network


def run(data: dict[str, tuple[Tensor, Tensor]], augmentation: str, seed: int) -> dict[str, Any]:
    """Train with an augmentation, and measure by factor."""
    images, labels = data["train"]
    g = torch.Generator().manual_seed(2000 + seed)  # the same images for all augmentations
    images, _ = vary(images, VARIED_SHARE, g)
    network = train(images, labels, AUGMENTATIONS[augmentation], seed)
    metric = FactorAccuracy(list(FACTORS))
    test_images, test_labels = data["test"]
    for _ in range(RENDERINGS):
        varied, factors = vary(test_images, 1 - NONE_SHARE, g)
        with torch.no_grad():
            metric.update(network(varied), test_labels, factors)
    table = metric.table()
    return {
        "augmentation": augmentation,
        "seed": seed,
        "average": table.average,
        "accuracy": dict(zip(table.factors, table.accuracy.tolist(), strict=True)),
        "error_ratio": dict(zip(table.factors, table.error_ratio.tolist(), strict=True)),
    }


# ------------------------------------------------------------------ results


def changes(runs: list[dict[str, Any]], augmentation: str, value: str) -> dict[str, list[float]]:
    """What an augmentation changes per factor, one number per seed, same seed without it."""
    base = {run["seed"]: run[value] for run in runs if run["augmentation"] == "none"}
    return {
        factor: [
            run[value][factor] - base[run["seed"]][factor]
            for run in runs
            if run["augmentation"] == augmentation
        ]
        for factor in FACTORS
    }


def mean_sd(values: list[float], sign: str = "+") -> str:
    """Mean and standard deviation as text."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):{sign}.3f} ± {spread:.3f}"


def print_tables(runs: list[dict[str, Any]]) -> None:
    """Print what each network reaches, and the changes."""
    base = [run for run in runs if run["augmentation"] == "none"]
    print("\n| no augmentation | accuracy | error ratio |\n|---|--:|--:|")
    for factor in FACTORS:
        cells = (mean_sd([run[v][factor] for run in base], "") for v in ("accuracy", "error_ratio"))
        print(f"| {factor} | {' | '.join(cells)} |")
    print(f"| all | {mean_sd([run['average'] for run in base], '')} | 1 |")
    names = list(TARGETS)
    print(
        "\n| change with | " + " | ".join(f"{n}: accuracy | {n}: error ratio" for n in names) + " |"
    )
    print("|---" + "|--:" * 2 * len(names) + "|")
    table = {n: {v: changes(runs, n, v) for v in ("accuracy", "error_ratio")} for n in names}
    for factor in FACTORS:
        cells = (mean_sd(table[n][v][factor]) for n in names for v in ("accuracy", "error_ratio"))
        print(f"| {factor} | {' | '.join(cells)} |")
    averages = {run["seed"]: run["average"] for run in base}
    cells = (
        mean_sd([r["average"] - averages[r["seed"]] for r in runs if r["augmentation"] == n])
        for n in names
    )
    print(f"| all | {' |  | '.join(cells)} |  |")


def plot(runs: list[dict[str, Any]], path: Path) -> None:
    """Draw the changes of accuracies and error ratios."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    texts = (("accuracy", "change of accuracy"), ("error_ratio", "change of error ratio"))
    for axes, (value, text) in zip(panels, texts, strict=True):
        for k, name in enumerate(TARGETS):
            found = changes(runs, name, value)
            means = [statistics.mean(values) for values in found.values()]
            sds = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in found.values()]
            places = [i + 0.4 * (k - 0.5) for i in range(len(found))]
            colour = ("#0072B2", "#E69F00")[k]
            label = f"{name} (made for {TARGETS[name]})"
            axes.bar(places, means, 0.38, yerr=sds, capsize=2, color=colour, label=label,
                     error_kw={"elinewidth": 1, "ecolor": "#333333"})  # fmt: skip
        axes.axhline(0, color="black", linewidth=1)
        axes.set_ylabel(text)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
    panels[0].legend(frameon=False)
    panels[1].set_xticks(range(len(FACTORS)), [name.replace("_", "\n") for name in FACTORS])
    figure.savefig(path, dpi=130)


def check(runs: list[dict[str, Any]]) -> bool:
    """Print whether each augmentation helps its factor and harms another; returns if all do."""
    shown = True
    for name, target in TARGETS.items():
        found = {f: statistics.mean(v) for f, v in changes(runs, name, "accuracy").items()}
        ratio = statistics.mean(changes(runs, name, "error_ratio")[target])
        worst = min(found, key=found.__getitem__)
        print(
            f"{name}: accuracy of {target} {found[target]:+.3f} (expected: at least +0.1), its "
            f"error ratio {ratio:+.2f}; accuracy of {worst} {found[worst]:+.3f} (expected: below 0)"
        )
        shown = shown and found[target] >= 0.1 and found[worst] < 0 and ratio < 0
    return shown


def main() -> int:
    """Run the study; returns status 1 if the effect is not there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/imagenet_x_spillover"))
    options = parser.parse_args()
    start = time.perf_counter()
    torch.set_num_threads(1)  # more only lose with batches this small
    data = digits()
    runs = [run(data, name, seed) for seed in range(options.seeds) for name in AUGMENTATIONS]
    print_tables(runs)
    print()
    shown = check(runs)
    picture = options.out / "spillover.png"
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(runs, indent=1) + "\n")
    plot(runs, picture)
    seconds, used = time.perf_counter() - start, time.process_time()
    machine = f"{platform.machine()}, torch {torch.__version__}"
    print(f"\n{seconds:.0f} s ({used:.0f} CPU-seconds) on {machine}; plot: {picture}")
    return 0 if shown else 1


if __name__ == "__main__":
    sys.exit(main())
