"""The low-shot protocol of MSN: logistic regression on a handful of labelled features per class."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_ssl.answers import best_answer, count_right
from lit_ssl.errors import InputError, listed
from lit_ssl.metrics.softmax_regression import fit_softmax_regression


def preprocess_rows(features: Tensor) -> Tensor:
    """Subtract from each row its own mean and divide it by its L2 norm.

    No statistics are shared between rows, so labelled and test features are treated alike. Applying
    it twice changes nothing. A constant row becomes zero.

    Args:
        features: ``[N, D]``, float.

    Returns:
        ``[N, D]`` in the input's type.

    Source: MSN, arXiv 2204.07141, appendix A.2 (its released evaluation code).
    """
    centred = features - features.mean(dim=1, keepdim=True)
    return centred / centred.norm(dim=1, keepdim=True).clamp(min=1e-12)


def draw_labelled(labels: Tensor, per_class: int, seed: int, allow_fewer: bool = False) -> Tensor:
    """Draw ``per_class`` examples of every class that occurs.

    Draws of one seed are nested: the examples for 1 per class are among those for 2 and 5.

    Args:
        labels: Classes, int64 ``[N]``; rows with −1 are never drawn.
        per_class: Examples per class, >= 1.
        seed: Seed of the draw; the result depends on nothing else.
        allow_fewer: Take all examples of a class that has fewer, instead of raising.

    Returns:
        Rising row numbers, int64 on the CPU.

    Raises:
        ValueError: If nothing is labelled, or a class has fewer than ``per_class`` examples.
    """
    if per_class < 1:
        raise InputError(f"per_class must be >= 1, got {per_class}")
    labels = labels.cpu()
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    shuffled = shuffled[labels[shuffled] >= 0]
    if len(shuffled) == 0:
        raise InputError("draw_labelled found no labelled row (all labels are −1 or none is given)")
    grouped = shuffled[labels[shuffled].argsort(stable=True)]
    classes, counts = labels[grouped].unique_consecutive(return_counts=True)
    short = counts < per_class
    if short.any() and not allow_fewer:
        few = zip(classes[short].tolist(), counts[short].tolist(), strict=True)
        found = [f"class {c} has {n}" for c, n in few]
        raise InputError(f"cannot draw {per_class} per class: {listed(found)}")
    first = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    rank = torch.arange(len(grouped)) - first
    return grouped[rank < per_class].sort().values


def fit_low_shot(features: Tensor, labels: Tensor, num_classes: int, l2: float = 0.0025) -> Tensor:
    """Fit the low-shot classifier on raw features of the labelled images.

    Rows go through [`preprocess_rows`][lit_ssl.metrics.preprocess_rows]; then multinomial logistic
    regression without intercept minimises ``mean cross-entropy + (l2 / n) / 2 * ||W||²`` in
    float64, n = number of labelled images. This equals scikit-learn's ``LogisticRegression(C=1 /
    l2, fit_intercept=False)``.

    Args:
        features: ``[n, D]``, float.
        labels: Classes, int64 ``[n]``, each in ``[0, num_classes)``.
        num_classes: Number of classes C, >= 2.
        l2: Regularisation, > 0: 0.0025 for 1 to 5 images per class; 0.075 for 1 % of ImageNet.

    Returns:
        Weights, float64 ``[C, D]``, for [`predict_low_shot`][lit_ssl.metrics.predict_low_shot].

    Source: MSN, arXiv 2204.07141, appendix A.2.
    """
    rows = preprocess_rows(_double(features))
    return fit_softmax_regression(rows, labels.to(rows.device), num_classes, l2 / len(rows))


def predict_low_shot(weights: Tensor, features: Tensor) -> Tensor:
    """Classify raw features with the weights of [`fit_low_shot`][lit_ssl.metrics.fit_low_shot].

    Args:
        weights: ``[C, D]``, float64.
        features: ``[N, D]``, float.

    Returns:
        Classes, int64 ``[N]``; −2 where the scores are NaN or infinite.
    """
    return best_answer(_scores(weights, preprocess_rows(_double(features))))


def _scores(weights: Tensor, rows: Tensor) -> Tensor:
    return rows @ weights.to(rows.device).T


def low_shot_accuracies(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    query_labels: Tensor,
    num_classes: int,
    supports: list[Tensor],
    l2: float = 0.0025,
) -> list[float]:
    """Accuracy on the queries for each choice of labelled bank rows.

    Args:
        bank: Features to draw labelled images from, ``[N, D]``.
        bank_labels: int64 ``[N]``.
        queries: Features to classify, ``[Q, D]``; the arithmetic runs on their device.
        query_labels: int64 ``[Q]``.
        num_classes: Number of classes.
        supports: Row numbers into the bank, one tensor per draw
            ([`draw_labelled`][lit_ssl.metrics.draw_labelled]).
        l2: Regularisation of [`fit_low_shot`][lit_ssl.metrics.fit_low_shot].

    Returns:
        One accuracy in [0, 1] per draw; NaN where the features are NaN or infinite.
    """
    asked = preprocess_rows(_double(queries))
    answers = query_labels.to(asked.device)
    accuracies = []
    for rows in supports:
        few = bank[rows.to(bank.device)].to(queries.device)
        labels = bank_labels[rows.to(bank_labels.device)]
        scores = _scores(fit_low_shot(few, labels, num_classes, l2), asked)
        right = count_right(scores, answers)
        accuracies.append(right.item() / len(answers))
    return accuracies


def _double(features: Tensor) -> Tensor:
    # Apple's GPUs have no float64.
    return (features.cpu() if features.device.type == "mps" else features).double()
