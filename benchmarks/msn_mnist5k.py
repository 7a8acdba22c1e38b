"""The table of `make demo` over several seeds: mean ± standard deviation of each number.

    python benchmarks/msn_mnist5k.py --seeds 0 1 2 --out runs/msn_mnist5k

Each seed trains through the CLI as `make demo` does and is reported on the same test split and the
same draws of labelled images; the seed changes initialisation, order, views and masks. More
overrides of the recipe may follow after `--`.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

COLUMNS = ["knn_acc1", "linear_acc1", "lowshot_1_acc1", "lowshot_2_acc1", "lowshot_5_acc1"]


def run_seed(seed: int, folder: Path, overrides: list[str]) -> tuple[list[dict], float]:
    """Train and report one seed; returns the rows of the report and the seconds of the training."""
    command = [sys.executable, "-m", "lit_ssl"]
    recipe = ["--config", "msn/mnist5k.yaml"]
    rest = ["--seed_everything", str(seed), "--trainer.default_root_dir", str(folder), *overrides]
    start = time.perf_counter()
    subprocess.run([*command, "fit", *recipe, *rest], check=True)
    seconds = time.perf_counter() - start
    report = ["--config", "eval/mnist5k.yaml", "--ckpt_path", "last"]
    subprocess.run([*command, "test", *recipe, *report, *rest], check=True)
    return json.loads((folder / "report.json").read_text())["rows"], seconds


def main() -> None:
    """Run the seeds and print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/msn_mnist5k"))
    parser.add_argument("overrides", nargs="*", help="further words for lit-ssl, after --")
    options = parser.parse_args()
    values: dict[str, dict[str, list[float]]] = {}
    times = []
    for seed in options.seeds:
        rows, seconds = run_seed(seed, options.out / f"seed{seed}", options.overrides)
        times.append(seconds)
        for row in rows:
            cells = values.setdefault(row["features"], {name: [] for name in COLUMNS})
            for name in COLUMNS:
                cells[name].append(100 * row[name])
    print(f"\nseeds {options.seeds}; training {statistics.mean(times):.0f} s each")
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| features | k-NN | linear | 1-shot | 2-shot | 5-shot |\n|---|--:|--:|--:|--:|--:|")
    for name, cells in values.items():
        texts = []
        for column in COLUMNS:
            numbers = cells[column]
            spread = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
            texts.append(f"{statistics.mean(numbers):.1f} ± {spread:.1f}")
        print(f"| {name} | {' | '.join(texts)} |")


if __name__ == "__main__":
    main()
