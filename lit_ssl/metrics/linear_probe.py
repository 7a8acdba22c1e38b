"""Offline linear probe: the best linear classifier on frozen features, for reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_ssl.answers import best_answer, count_right
from lit_ssl.errors import InputError
from lit_ssl.metrics.softmax_regression import check_problem, newton_softmax, principal_basis

PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe.

    Attributes:
        mean: Mean of the bank features, ``[D]``.
        scale: Their standard deviation, ``[D]``; 1 where a feature is constant.
        weights: ``[C, D + 1]``, the last column is the intercept.
        penalty: The chosen L2 penalty.
        held_out_accuracy: Accuracy in [0, 1] on the held-out part of the bank at that penalty; NaN
            when the bank was too small to hold anything out.
    """

    mean: Tensor
    scale: Tensor
    weights: Tensor
    penalty: float
    held_out_accuracy: float

    def predict(self, features: Tensor) -> Tensor:
        """Classify features ``[N, D]``; returns classes, int64 ``[N]``, −2 where none is best.

        Args:
            features: raw; the probe standardises them.
        """
        return best_answer(self.scores(features))

    def scores(self, features: Tensor) -> Tensor:
        """Scores of the classes, ``[N, C]``, for features ``[N, D]``.

        Args:
            features: raw; the probe standardises them.
        """
        return _standardise(features, self.mean, self.scale) @ self.weights.T


def fit_linear_probe(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    penalties: Sequence[float] = PENALTIES,
    held_out: float = 0.2,
    seed: int = 0,
) -> LinearProbe:
    """Fit multinomial logistic regression on a bank and choose its L2 penalty inside the bank.

    Features are standardised with the statistics of the bank and get a constant column. For each
    penalty the regression (mean cross-entropy + penalty / 2 · ||W||²) is fitted on a part of the
    bank and scored on the rest; the best penalty (the stronger one of equals) is used for the final
    fit on the whole bank. Queries never take part in the choice.

    Args:
        features: Bank features, ``[N, D]``, float; the arithmetic is float32 on their device.
        labels: Classes, int64 ``[N]``, each in ``[0, num_classes)``.
        num_classes: Number of classes, >= 2.
        penalties: Candidates, each > 0.
        held_out: Share of the bank that scores the candidates, in (0, 1).
        seed: Seed of the split.

    Returns:
        The fitted probe; its weights are NaN where a feature is NaN or infinite.

    Raises:
        ValueError: On an empty bank, mismatched shapes or values outside their range.
    """
    if len(penalties) == 0 or not 0 < held_out < 1:
        raise InputError(
            f"expected at least one penalty and 0 < held_out < 1, got {list(penalties)}, {held_out}"
        )
    check_problem(features, labels, num_classes, min(penalties))
    features, labels = features.float(), labels.to(features.device)
    descending = sorted(penalties, reverse=True)
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
    cut = round(held_out * len(features))
    if cut == 0 or len(descending) == 1:
        best, accuracy = descending[len(descending) // 2], float("nan")
    else:
        scored, fitted = order[:cut].to(features.device), order[cut:].to(features.device)
        best, accuracy = _choose(
            features, labels, num_classes, penalties=descending, fitted=fitted, scored=scored
        )
    mean, scale, path = _fit_path(features, labels, num_classes, [best])
    return LinearProbe(mean, scale, weights=path[0], penalty=best, held_out_accuracy=accuracy)


def _choose(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    penalties: list[float],
    fitted: Tensor,
    scored: Tensor,
) -> tuple[float, float]:
    mean, scale, path = _fit_path(features[fitted], labels[fitted], num_classes, penalties)
    rows = _standardise(features[scored], mean, scale)
    accuracies = [
        (count_right(rows @ weights.T, labels[scored]) / len(scored)).item() for weights in path
    ]
    best = max(range(len(penalties)), key=lambda i: accuracies[i])  # first, so strongest, of equals
    return penalties[best], accuracies[best]


def _fit_path(
    features: Tensor, labels: Tensor, num_classes: int, penalties: list[float]
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Fit every penalty in turn, each from the solution before it."""
    mean = features.mean(dim=0)
    scale = features.std(dim=0, correction=0)
    scale = torch.where(scale > 1e-6 * scale.max().clamp(min=1e-12), scale, 1.0)
    if not bool(features.isfinite().all()):
        lost = features.new_full((num_classes, features.shape[1] + 1), torch.nan)
        return mean, scale, [lost for _ in penalties]
    rows = _standardise(features, mean, scale)
    basis = principal_basis(rows)
    rows = rows @ basis
    weights = rows.new_zeros(num_classes, rows.shape[1])
    path = []
    for penalty in penalties:
        weights = newton_softmax(rows, labels, penalty, weights, _TOLERANCE)
        path.append(weights @ basis.T)
    return mean, scale, path


def _standardise(features: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    rows = (features.to(mean.device, torch.float32) - mean) / scale
    return F.pad(rows, (0, 1), value=1.0)
