"""Multinomial logistic regression without intercept, solved to a tight tolerance by Newton-CG.

Low-shot and linear evaluation differ only in preprocessing and in how they choose the penalty; both
solve this problem: minimise ``mean cross-entropy + penalty / 2 * ||W||²`` over ``W [C, D]``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_ssl.errors import InputError

_BLOCK_ROWS = 65_536


def fit_softmax_regression(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    penalty: float,
    gradient_tolerance: float = 1e-10,
) -> Tensor:
    """Solve one L2-penalised multinomial logistic regression without intercept.

    The optimum lies in the span of the feature rows, so the problem is first written in an
    orthonormal basis of that span (at most ``min(N, D)`` coordinates). This is exact, and fast when
    there are few rows.

    Args:
        features: ``[N, D]``, float32 or float64; the arithmetic stays in this type.
        labels: Classes, int64 ``[N]``, each in ``[0, num_classes)``.
        num_classes: Number of classes C, >= 2.
        penalty: Weight of ``||W||² / 2``, > 0.
        gradient_tolerance: Largest absolute entry of the gradient at the solution, > 0.

    Returns:
        Weights ``[C, D]``; predict with ``(features @ weights.T).argmax(1)``. All are NaN where a
        feature is NaN or infinite.

    Raises:
        ValueError: On an empty set, mismatched shapes or values outside their range.
    """
    check_problem(features, labels, num_classes, penalty)
    if not bool(features.isfinite().all()):
        return features.new_full((num_classes, features.shape[1]), torch.nan)
    basis = principal_basis(features)
    start = features.new_zeros(num_classes, basis.shape[1])
    weights = newton_softmax(features @ basis, labels, penalty, start, gradient_tolerance)
    return weights @ basis.T


def check_problem(features: Tensor, labels: Tensor, num_classes: int, penalty: float) -> None:
    """Raise ValueError with one clear message if the arguments do not make a regression."""
    if features.ndim != 2 or len(features) == 0 or labels.shape != features.shape[:1]:
        raise InputError(
            "expected features [N, D] with N > 0 and one label per row, got "
            f"{list(features.shape)} and {list(labels.shape)}"
        )
    low, high = int(labels.min()), int(labels.max())
    if num_classes < 2 or low < 0 or high >= num_classes:
        raise InputError(
            f"labels run from {low} to {high} with num_classes={num_classes}, expected at least "
            "two classes and labels from 0 to num_classes − 1; drop rows without a label (−1) first"
        )
    if penalty <= 0:
        raise InputError(f"the L2 penalty must be > 0, got {penalty}")


def principal_basis(features: Tensor) -> Tensor:
    """Orthonormal basis ``[D, R]`` of a space that holds all rows, along their principal axes.

    Args:
        features: ``[N, D]``, float.

    Returns:
        The basis, R = min(N, D): ``features @ basis @ basis.T`` equals ``features``.
    """
    rows, width = features.shape
    if rows < width:
        # Householder QR gives orthonormal columns also when rows are linearly dependent.
        span = torch.linalg.qr(features.T).Q
        return span @ principal_basis(features @ span)
    return torch.linalg.eigh(features.T @ features).eigenvectors


def newton_softmax(
    features: Tensor,
    labels: Tensor,
    penalty: float,
    start: Tensor,
    gradient_tolerance: float,
    max_iterations: int = 100,
) -> Tensor:
    """Damped Newton method with conjugate gradients for the Newton step.

    The objective is strictly convex for ``penalty > 0``, so it converges from any start. With
    features along their principal axes the diagonal preconditioner is nearly exact and a few
    conjugate-gradient steps suffice.

    Args:
        features: ``[N, R]`` in principal coordinates (:func:`principal_basis`).
        labels: int64 ``[N]``.
        penalty: Weight of ``||W||² / 2``, > 0.
        start: First weights ``[C, R]``.
        gradient_tolerance: Largest absolute entry of the gradient at the solution.
        max_iterations: Newton steps before giving up with a warning.

    Returns:
        Weights ``[C, R]``.
    """
    problem = _Problem(features, labels, penalty)
    curvature = features.square().mean(dim=0)
    weights = start
    for _ in range(max_iterations):
        gradient, spread, hessian = problem.linearise(weights)
        if gradient.abs().max() <= gradient_tolerance:
            return weights
        diagonal = spread[:, None] * curvature + penalty
        step = _conjugate_gradient(hessian, gradient, diagonal)
        length = _step_length(problem, weights, step, (gradient * step).sum())
        if length == 0:  # the objective cannot fall further in this precision
            return weights
        weights = weights - length * step
    warnings.warn(
        f"softmax regression stopped after {max_iterations} Newton steps with gradient "
        f"{gradient.abs().max():.1e} > {gradient_tolerance:.1e}; raise the penalty ({penalty:g})",
        stacklevel=2,
    )
    return weights


class _Problem:
    """The objective and its derivatives, in blocks of rows to bound the memory.

    Only the probabilities ``[N, C]`` are kept whole.
    """

    def __init__(self, features: Tensor, labels: Tensor, penalty: float) -> None:
        self.features = features
        self.labels = labels
        self.penalty = penalty
        self.blocks = [slice(n, n + _BLOCK_ROWS) for n in range(0, len(features), _BLOCK_ROWS)]

    def value(self, weights: Tensor) -> Tensor:
        """Objective at ``weights``."""
        loss = sum(
            F.cross_entropy(self.features[b] @ weights.T, self.labels[b], reduction="sum")
            for b in self.blocks
        )
        return loss / len(self.labels) + self.penalty / 2 * weights.square().sum()

    def linearise(self, weights: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        """Gradient, mean of p (1 − p) per class, and the product with the Hessian."""
        rows = len(self.labels)
        probabilities = torch.cat(
            [(self.features[b] @ weights.T).softmax(dim=1) for b in self.blocks]
        )
        gradient = self.penalty * weights
        spread = torch.zeros_like(weights[:, 0])
        for b in self.blocks:
            part = probabilities[b]
            residual = part - F.one_hot(self.labels[b], len(weights)).to(part.dtype)
            gradient = gradient + residual.T @ self.features[b] / rows
            spread = spread + (part * (1 - part)).sum(dim=0) / rows

        def hessian(direction: Tensor) -> Tensor:
            product = self.penalty * direction
            for b in self.blocks:
                change = probabilities[b] * (self.features[b] @ direction.T)
                change = change - probabilities[b] * change.sum(dim=1, keepdim=True)
                product = product + change.T @ self.features[b] / rows
            return product

        return gradient, spread, hessian


def _conjugate_gradient(
    product: Callable[[Tensor], Tensor], target: Tensor, diagonal: Tensor, max_steps: int = 250
) -> Tensor:
    """Solve ``H x = target`` loosely far from the optimum and ever tighter near it."""
    size = target.norm()
    # A relative residual of sqrt(|g|) gives superlinear convergence of the outer Newton loop.
    enough = size * size.sqrt().clamp(max=0.1)
    solution = torch.zeros_like(target)
    residual = target.clone()
    scaled = residual / diagonal
    direction = scaled
    product_old = (residual * scaled).sum()
    for _ in range(max_steps):
        image = product(direction)
        length = product_old / (direction * image).sum()
        solution = solution + length * direction
        residual = residual - length * image
        if residual.norm() <= enough:
            break
        scaled = residual / diagonal
        product_new = (residual * scaled).sum()
        direction = scaled + product_new / product_old * direction
        product_old = product_new
    return solution


def _step_length(problem: _Problem, weights: Tensor, step: Tensor, slope: Tensor) -> float:
    """Halve the step until the objective falls enough (Armijo rule); 0 if it never does."""
    here = problem.value(weights)
    # Near the optimum the true decrease is below the rounding error of the objective.
    rounding = 10 * torch.finfo(weights.dtype).eps * here.abs().clamp(min=1)
    length = 1.0
    while length > 1e-6:
        if problem.value(weights - length * step) <= here - 1e-4 * length * slope + rounding:
            return length
        length /= 2
    return 0.0
