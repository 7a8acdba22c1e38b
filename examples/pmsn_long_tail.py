"""PMSN's effect on long-tailed data: a mild power-law prior finds the classes, a uniform one not.

    python examples/pmsn_long_tail.py             # a mixture of ten clusters; minutes on one core
    python examples/pmsn_long_tail.py --mnist     # digits, through the recipe; an hour on two cores

The first prints how well prototypes agree with classes (normalised mutual information, mean ± sd
over seeds) for several priors, on long-tailed and on balanced data, and ends with status 1 if the
effect is not there. The second trains the recipe pmsn/mnist5k_lt.yaml with MSN's settings and with
PMSN's, with as many prototypes as classes, on a long-tailed and on a balanced fifth of the digits,
and evaluates the frozen features on all of them.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_ssl.losses import PMSNLoss, power_law_prior
from lit_ssl.models import ema_update_

CLASSES, DIM, TAIL = 10, 16, 1.2


class Variant(NamedTuple):
    """A row of the table: exponent of the prior (0: uniform, as MSN), Sinkhorn, λ."""

    name: str
    exponent: float
    sinkhorn_iterations: int
    me_max_weight: float
    sinkhorn_marginal: str = "uniform"


VARIANTS = (
    Variant("uniform, λ 5 (MSN without Sinkhorn)", 0.0, 0, 5.0),
    Variant("uniform, Sinkhorn, λ 1 (MSN)", 0.0, 3, 1.0),
    Variant("uniform, λ 1", 0.0, 0, 1.0),
    Variant("power law 0.25, λ 5 (PMSN)", 0.25, 0, 5.0),
    Variant("power law 0.5, λ 5", 0.5, 0, 5.0),
    Variant("power law 1, λ 5", 1.0, 0, 5.0),
)
MSN_ROW, PMSN_ROW, STEEP_ROW = VARIANTS[0].name, VARIANTS[3].name, VARIANTS[4].name


# ------------------------------------------------------------------ the mixture


class Mixture:
    """Clusters of frequency ``(c + 1) ** -tail``; views of a sample differ by Gaussian noise.

    Args:
        tail: 0 is balanced.
        generator: draws the centres now and the samples later.
    """

    def __init__(self, tail: float, generator: torch.Generator) -> None:
        centres = F.normalize(torch.randn(CLASSES, DIM // 2, generator=generator), dim=1)
        self.centres = F.pad(2.0 * centres, (0, DIM // 2))  # the other half is only noise
        self.frequencies = torch.arange(1.0, CLASSES + 1) ** -tail
        self.generator = generator

    def draw(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Two views ``[count, DIM]`` of each sample, and their classes."""
        labels = torch.multinomial(
            self.frequencies, count, replacement=True, generator=self.generator
        )
        noise = 0.3 * torch.randn(2, count, DIM, generator=self.generator)
        first, second = self.centres[labels] + noise
        return first, second, labels


def agreement(variant: Variant, tail: float, seed: int, steps: int) -> float:
    """Train on the mixture; returns the mutual information of prototypes and classes, in [0, 1]."""
    torch.manual_seed(seed)
    data = Mixture(tail, torch.Generator().manual_seed(1000 + seed))
    online = nn.Sequential(nn.Linear(DIM, 64), nn.BatchNorm1d(64), nn.GELU(), nn.Linear(64, DIM))
    target = copy.deepcopy(online).requires_grad_(False)
    prototypes = nn.Parameter(torch.empty(CLASSES, DIM).uniform_(-(DIM**-0.5), DIM**-0.5))
    loss = PMSNLoss(
        power_law_prior(CLASSES, variant.exponent),
        sinkhorn_iterations=variant.sinkhorn_iterations,
        me_max_weight=variant.me_max_weight,
    )
    optimizer = torch.optim.AdamW([*online.parameters(), prototypes], lr=2e-3)
    for _ in range(steps):
        first, second, _ = data.draw(256)
        loss(online(first), target(second), prototypes).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        ema_update_(target, online, 0.99)
    with torch.no_grad():
        images, _, labels = data.draw(4000)
        return mutual_information(target.eval()(images), prototypes, labels)


def mutual_information(projections: Tensor, prototypes: Tensor, labels: Tensor) -> float:
    """Agreement of the nearest prototypes with the classes, normalised to [0, 1]."""
    nearest = (F.normalize(projections, dim=1) @ F.normalize(prototypes, dim=1).T).argmax(dim=1)
    joint = torch.zeros(len(prototypes), CLASSES).index_put_(
        (nearest, labels), torch.ones(len(labels)), accumulate=True
    )
    joint = joint / len(labels)
    rows, columns = joint.sum(1), joint.sum(0)
    entropies = [torch.special.entr(part).sum() for part in (rows, columns, joint)]
    information = entropies[0] + entropies[1] - entropies[2]
    return (2 * information / (entropies[0] + entropies[1]).clamp_min(1e-9)).item()


def run_mixture(seeds: int, steps: int) -> bool:
    """Print the table; returns whether the effect is there."""
    table = {
        variant.name: [
            [agreement(variant, tail, seed, steps) for seed in range(seeds)] for tail in (TAIL, 0.0)
        ]
        for variant in VARIANTS
    }
    print(f"\nNMI of prototypes and classes, {seeds} seeds, {steps} steps\n")
    print(f"| prior, Sinkhorn, λ | long tail ({TAIL}) | balanced |\n|---|--:|--:|")
    for name, (long_tailed, balanced) in table.items():
        print(f"| {name} | {mean_sd(long_tailed, 3)} | {mean_sd(balanced, 3)} |")
    gain = mean(table[PMSN_ROW][0]) - mean(table[MSN_ROW][0])
    price = mean(table[MSN_ROW][1]) - mean(table[STEEP_ROW][1])
    print(f"\nlong tail: {PMSN_ROW} − {MSN_ROW} = {gain:+.3f} (expected: at least +0.04)")
    print(f"balanced: {MSN_ROW} − {STEEP_ROW} = {price:+.3f} (expected: at least +0.02)")
    return gain >= 0.04 and price >= 0.02


# ------------------------------------------------------------------ the digits

RECIPE = ("--config", "pmsn/mnist5k_lt.yaml")
DIGIT_DATA = {"long-tailed": (), "balanced": ("--data.subset={per_class: 86, power_law: null}",)}
DIGIT_COLUMNS = ("knn_acc1", "linear_acc1", "lowshot_1_acc1", "lowshot_5_acc1")
# each prior against the uniform one with the same Sinkhorn and λ
DIGIT_VARIANTS = (
    Variant("uniform, λ 5 (MSN without Sinkhorn)", 0.0, 0, 5.0),
    Variant("power law 0.25, λ 5 (PMSN)", 0.25, 0, 5.0),
    Variant("uniform, Sinkhorn, λ 1 (MSN)", 0.0, 3, 1.0),
    Variant("power law 0.5, Sinkhorn to the prior, λ 1", 0.5, 3, 1.0, "prior"),
)


def digit_words(variant: Variant, prototypes: int) -> list[str]:
    """Overrides of the recipe's model."""
    return [
        f"--model.num_prototypes={prototypes}",
        f"--model.prior_exponent={variant.exponent}",
        f"--model.sinkhorn_iterations={variant.sinkhorn_iterations}",
        f"--model.sinkhorn_marginal={variant.sinkhorn_marginal}",
        f"--model.me_max_weight={variant.me_max_weight}",
    ]


def train_on_digits(
    folder: Path, seed: int, model_words: list[str], words: list[str]
) -> dict[str, float]:
    """Train the recipe and evaluate its frozen features on all digits; returns values in %."""
    done = folder / "values.json"
    if done.exists():  # an earlier call was interrupted
        return json.loads(done.read_text())
    command = [sys.executable, "-m", "lit_ssl"]
    shared = [*RECIPE, "--seed_everything", str(seed), "--trainer.default_root_dir", str(folder)]
    shared += model_words
    subprocess.run([*command, "fit", *shared, *words], check=True, stdout=subprocess.DEVNULL)
    report = ["--config", "eval/mnist5k.yaml", "--data.subset=null", "--ckpt_path=last"]
    subprocess.run([*command, "test", *shared, *report], check=True, stdout=subprocess.DEVNULL)
    rows = json.loads((folder / "report.json").read_text())["rows"]
    trained = next(row for row in rows if row["features"] == "trained")
    values = {name: 100 * trained[name] for name in DIGIT_COLUMNS}
    values["nmi"] = digit_agreement(folder)
    done.write_text(json.dumps(values))
    return values


def digit_agreement(folder: Path) -> float:
    """Mutual information of prototypes and classes on the test digits, in %."""
    from lit_ssl import PMSN
    from lit_ssl.checkpoints.newest import newest_checkpoint
    from lit_ssl.datamodules import MNIST5kDataModule

    path = newest_checkpoint([folder]).path
    module = PMSN.load_from_checkpoint(path, weights_only=True).eval()
    data = MNIST5kDataModule(batch_size=1000)
    images, labels = data.on_after_batch_transfer(next(iter(data.test_dataloader())), 0)
    with torch.no_grad():
        _, projections = module.encode_target(images)
    return 100 * mutual_information(projections, module.prototypes, labels)


def run_digits(seeds: int, out: Path, epochs: int, prototypes: int, rows: int | None) -> None:
    """Print the first rows of the tables of long-tailed and balanced pre-training."""
    for data, subset in DIGIT_DATA.items():
        print(
            f"\nPre-trained on {data} digits, evaluated on all: {prototypes} prototypes, {seeds} "
            f"seeds, {epochs} epochs\n"
        )
        print("| prior, Sinkhorn, λ | k-NN | linear | 1-shot | 5-shot | NMI |")
        print("|---|--:|--:|--:|--:|--:|")
        for variant in DIGIT_VARIANTS[:rows]:
            settings = "prior{1}_sinkhorn{2}_weight{3}".format(*variant)
            folder = out / f"{data}_{prototypes}_prototypes_{epochs}_epochs" / settings
            words = [*subset, f"--trainer.max_epochs={epochs}"]
            model_words = digit_words(variant, prototypes)
            runs = [
                train_on_digits(folder / f"seed{s}", s, model_words, words) for s in range(seeds)
            ]
            cells = (mean_sd([run[name] for run in runs], 1) for name in (*DIGIT_COLUMNS, "nmi"))
            print(f"| {variant.name} | {' | '.join(cells)} |", flush=True)


# ------------------------------------------------------------------ the program


def mean(values: list[float]) -> float:
    """Mean of the values."""
    return statistics.mean(values)


def mean_sd(values: list[float], digits: int) -> str:
    """Mean and standard deviation as text."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{mean(values):.{digits}f} ± {spread:.{digits}f}"


def main() -> int:
    """Run the experiment that is asked for; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", action="store_true", help="train on digits instead")
    parser.add_argument("--seeds", type=int, help="default: 8, with --mnist 3")
    parser.add_argument("--steps", type=int, default=1000, help="of a run on the mixture")
    parser.add_argument("--epochs", type=int, default=200, help="with --mnist")
    parser.add_argument("--prototypes", type=int, default=CLASSES, help="with --mnist")
    parser.add_argument("--rows", type=int, help="with --mnist: only the first n; default: all")
    parser.add_argument("--out", type=Path, default=Path("runs/pmsn_long_tail"))
    options = parser.parse_args()
    start = time.perf_counter()
    shown = True
    if options.mnist:
        run_digits(
            options.seeds or 3, options.out, options.epochs, options.prototypes, options.rows
        )
    else:
        torch.set_num_threads(1)  # matrices this small only lose by more
        shown = run_mixture(options.seeds or 8, options.steps)
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    seconds, used = time.perf_counter() - start, time.process_time()
    print(f"\n{seconds:.0f} s ({used:.0f} CPU-seconds of this process) on {machine}")
    return 0 if shown else 1


if __name__ == "__main__":
    sys.exit(main())
