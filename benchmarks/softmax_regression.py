"""Softmax regression to a tight optimum, beside scikit-learn, in CPU seconds of one thread.

    python benchmarks/softmax_regression.py
    python benchmarks/softmax_regression.py --rows 80000 --classes 100 --width 384

Features are random directions around one centre per class, of length 1. scikit-learn stops at its
own tolerance of 1e-6; the table shows how far from the optimum both end: the largest entry of the
gradient, and the objective above the lowest one found.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F

from lit_ssl.metrics import fit_softmax_regression


def make_problem(rows: int, width: int, classes: int) -> tuple[Tensor, Tensor]:
    """Features float64 ``[rows, width]`` and labels int64 ``[rows]``."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, width, generator=generator)
    labels = torch.arange(rows) % classes
    features = 0.6 * centres[labels] + torch.randn(rows, width, generator=generator)
    return F.normalize(features, dim=1).double(), labels


def judge(weights: Tensor, features: Tensor, labels: Tensor, penalty: float) -> tuple[float, float]:
    """Objective and largest entry of its gradient."""
    weights = weights.double().requires_grad_()
    loss = F.cross_entropy(features @ weights.T, labels) + penalty / 2 * weights.square().sum()
    (gradient,) = torch.autograd.grad(loss, weights)
    return loss.item(), gradient.abs().max().item()


def seconds(function: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """CPU seconds of a call, and what it returns."""
    start = time.process_time()
    found = function()
    return time.process_time() - start, found


def main() -> None:
    """Solve one problem with both and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--penalties", type=float, nargs="+", default=[1e-4, 1e-5, 1e-6])
    options = parser.parse_args()
    torch.set_num_threads(1)
    features, labels = make_problem(options.rows, options.width, options.classes)
    shape = f"{options.rows:,} × {options.width}, {options.classes:,} classes"
    print(f"{shape}, float64, torch {torch.__version__}, 1 thread")
    print(f"{'penalty':>8} {'solver':<12} {'CPU s':>7} {'gradient':>9} {'above lowest':>13}")
    for penalty in options.penalties:

        def peer(penalty: float = penalty) -> Tensor:
            strength = 1 / (penalty * len(labels))
            model = LogisticRegression(C=strength, fit_intercept=False, tol=1e-6, max_iter=5000)
            return torch.from_numpy(model.fit(features.numpy(), labels.numpy()).coef_)

        def ours(penalty: float = penalty) -> Tensor:
            return fit_softmax_regression(features, labels, options.classes, penalty)

        found = {"lit_ssl": seconds(ours), "scikit-learn": seconds(peer)}
        judged = {k: judge(w, features, labels, penalty) for k, (_, w) in found.items()}
        lowest = min(value for value, _ in judged.values())
        for name, (time_taken, _) in found.items():
            value, gradient = judged[name]
            row = f"{penalty:8.0e} {name:<12} {time_taken:7.2f} {gradient:9.1e}"
            print(f"{row} {value - lowest:13.1e}", flush=True)


if __name__ == "__main__":
    main()
