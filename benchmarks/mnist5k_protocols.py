"""Linear evaluation and fine-tuning of checkpoints on digits: mean ± standard deviation.

    python benchmarks/mnist5k_protocols.py CHECKPOINT [CHECKPOINT ...]

Each checkpoint of msn/mnist5k (``benchmarks/msn_mnist5k.py`` makes three) goes through the recipes
eval/linear_mnist5k.yaml (48 heads, the one that validates best is tested) and finetune/mnist5k.yaml
(10 labels per class), from the command line. Further words for `lit-ssl` may follow after `--`.
"""

from __future__ import annotations

import argparse
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

RECIPES = {  # recipe → option that takes the weights, metric
    "eval/linear_mnist5k.yaml": ("weights", "test/linear_acc1"),
    "finetune/mnist5k.yaml": ("pretrained", "test/acc1"),
}


def evaluate(recipe: str, checkpoint: Path, folder: Path, seed: int, words: list[str]) -> float:
    """Accuracy on the test digits, in %."""
    option, metric = RECIPES[recipe]
    command = [sys.executable, "-m", "lit_ssl"]
    shared = ["--config", recipe, f"--seed_everything={seed}"]
    shared += [f"--trainer.default_root_dir={folder}", "--trainer.enable_progress_bar=false"]
    shared += [f"--model.{option}={checkpoint.resolve()}", *words]
    subprocess.run([*command, "fit", *shared], check=True, stdout=subprocess.DEVNULL)
    test = [*command, "test", *shared, "--ckpt_path=last"]
    out = subprocess.run(test, check=True, stdout=subprocess.PIPE, text=True).stdout
    return 100 * float(re.search(rf"{metric} *│ *([\d.e-]+)", out)[1])


def main() -> None:
    """Evaluate all checkpoints and print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", type=Path, nargs="+", help="one per seed: 0, 1, …")
    parser.add_argument("--out", type=Path, default=Path("runs/mnist5k_protocols"))
    options, words = parser.parse_known_args()
    words = [word for word in words if word != "--"]
    start = time.perf_counter()
    print("| recipe | test accuracy, % | of each checkpoint |\n|---|--:|---|")
    for recipe in RECIPES:
        values = [
            evaluate(recipe, path, options.out / Path(recipe).stem / f"seed{seed}", seed, words)
            for seed, path in enumerate(options.checkpoints)
        ]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        each = ", ".join(f"{value:.1f}" for value in values)
        print(f"| {recipe} | {statistics.mean(values):.1f} ± {spread:.1f} | {each} |", flush=True)
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    print(f"\n{time.perf_counter() - start:.0f} s on {machine}")


if __name__ == "__main__":
    main()
