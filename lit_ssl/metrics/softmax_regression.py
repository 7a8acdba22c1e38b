"""Multinomial logistic regression without intercept, solved to a tight tolerance by Newton-CG.

Low-shot and linear evaluation differ only in preprocessing and in how they choose the penalty; both
solve this problem: minimise ``mean cross-entropy + penalty / 2 * ||W||²`` over ``W [C, D]``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from lit_ssl.errors import InputError

_BLOCK_ROWS = 65_536
_CACHED_BYTES, _FEWEST_ROWS = 2**20, 64  # of a block of probabilities
_COARSE_TOLERANCE = 1e-6  # of a gradient in float32, as good as for any start
_TIGHTEST = 30


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
    """Make sure that the arguments make a regression.

    Args:
        features: ``[N, D]``, N > 0.
        labels: ``[N]``, in [0, ``num_classes``).
        num_classes: at least two.
        penalty: of the squared L2 norm of the weights, > 0.

    Raises:
        ValueError: If something is not so.
    """
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
    conjugate-gradient steps suffice. float64 only refines what float32 has found, and only
    objective and gradient are computed in it: errors of a step are mended by the next one. Where
    float32 cannot find steps that lead on (features of very unequal sizes, tiny penalties), they
    are computed in float64, too.

    Args:
        features: ``[N, R]`` in principal coordinates (``principal_basis``).
        labels: int64 ``[N]``.
        penalty: Weight of ``||W||² / 2``, > 0.
        start: First weights ``[C, R]``.
        gradient_tolerance: Largest absolute entry of the gradient at the solution.
        max_iterations: Newton steps before giving up with a warning.

    Returns:
        Weights ``[C, R]``.
    """
    solve = partial(_newton, labels=labels, penalty=penalty, max_iterations=max_iterations)
    if features.dtype == torch.float64:
        narrow = features.float()
        hasty = partial(solve, narrow=narrow, is_hasty=True)
        coarse = hasty(narrow, start=start.float(), gradient_tolerance=_COARSE_TOLERANCE)
        # where float32 has lost its way (huge features), start where the caller does
        start = coarse.weights.double() if bool(coarse.weights.isfinite().all()) else start
        fine = hasty(features, start=start, gradient_tolerance=gradient_tolerance)
        if fine.gradient <= gradient_tolerance:
            return fine.weights
        start = fine.weights
    end = solve(features, narrow=features, start=start, gradient_tolerance=gradient_tolerance)
    if not end.is_done:
        warnings.warn(
            f"softmax regression stopped after {max_iterations} Newton steps with gradient "
            f"{end.gradient:.1e} > {gradient_tolerance:.1e}; raise the penalty ({penalty:g})",
            stacklevel=2,
        )
    return end.weights


class _End(NamedTuple):
    weights: Tensor
    gradient: float  # its largest entry
    is_done: bool


def _newton(
    features: Tensor,
    narrow: Tensor,
    labels: Tensor,
    penalty: float,
    start: Tensor,
    gradient_tolerance: float,
    max_iterations: int,
    is_hasty: bool = False,
) -> _End:
    """Objective and gradient from ``features``, Hessian products from ``narrow``, the same rows.

    If hasty, it ends as soon as a step brings nothing: the objective falls by no more than rounding
    and the gradient by less than half.
    """
    problem = _Problem(features, labels, penalty)
    curvature = narrow.square().mean(dim=0)
    weights = start
    here = problem.at(weights)
    for _ in range(max_iterations):
        largest = here.gradient.abs().max()
        if largest <= gradient_tolerance:
            return _End(weights, largest.item(), is_done=True)
        probabilities = here.probabilities.to(narrow.dtype)
        spread = (probabilities * (1 - probabilities)).mean(dim=0)
        step = _conjugate_gradient(
            partial(_hessian_product, narrow, probabilities, penalty),
            here.gradient.to(narrow.dtype),
            spread[:, None] * curvature + penalty,
        ).to(weights.dtype)
        there = _fall(problem, weights, here, step)
        if there is None:  # the objective cannot fall further in this precision
            return _End(weights, largest.item(), is_done=True)
        before, (weights, here) = here, there
        if is_hasty and before.value - here.value <= _rounding(before):
            smaller = here.gradient.abs().max()
            if not smaller <= largest / 2:
                return _End(weights, smaller.item(), is_done=False)
    return _End(weights, here.gradient.abs().max().item(), is_done=False)


class _Point(NamedTuple):
    value: Tensor
    gradient: Tensor  # [C, R]
    probabilities: Tensor  # [N, C]


class _Problem:
    """The objective and its gradient. Only the probabilities ``[N, C]`` are kept whole."""

    def __init__(self, features: Tensor, labels: Tensor, penalty: float) -> None:
        self.features = features
        self.labels = labels
        self.penalty = penalty

    def at(self, weights: Tensor) -> _Point:
        """Objective, gradient and probabilities."""
        rows, classes = len(self.labels), len(weights)
        probabilities = self.features.new_empty(rows, classes)
        loss = self.features.new_zeros(())
        gradient = torch.zeros_like(weights)
        for block in _blocks(self.features, classes):
            features, labels = self.features[block], self.labels[block, None]
            logs = (features @ weights.T).log_softmax(dim=1)
            loss -= logs.gather(1, labels).sum()
            part = torch.exp(logs, out=probabilities[block])
            residual = part.scatter_add(1, labels, -torch.ones_like(part[:, :1]))
            gradient.addmm_(residual.T, features)
        value = loss / rows + self.penalty / 2 * weights.square().sum()
        return _Point(value, gradient.div_(rows).add_(weights, alpha=self.penalty), probabilities)


def _hessian_product(
    features: Tensor, probabilities: Tensor, penalty: float, direction: Tensor
) -> Tensor:
    """Product of the Hessian at these probabilities with a direction ``[C, R]``."""
    product = torch.zeros_like(direction)
    for block in _blocks(features, len(direction)):
        part = probabilities[block]
        change = (features[block] @ direction.T).mul_(part)
        change.addcmul_(part, change.sum(dim=1, keepdim=True), value=-1)
        product.addmm_(change.T, features[block])
    return product.div_(len(features)).add_(direction, alpha=penalty)


def _blocks(features: Tensor, classes: int) -> list[slice]:
    """Rows that are worked on together, to bound the memory."""
    rows = _BLOCK_ROWS
    if features.device.type == "cpu":  # what goes through several operations stays in the cache
        rows = max(_CACHED_BYTES // (classes * features.element_size()), _FEWEST_ROWS)
    return [slice(first, first + rows) for first in range(0, len(features), rows)]


def _conjugate_gradient(
    product: Callable[[Tensor], Tensor], target: Tensor, diagonal: Tensor, max_steps: int = 250
) -> Tensor:
    """Solve ``H x = target`` loosely far from the optimum and ever tighter near it."""
    size = target.norm()
    # A relative residual of sqrt(|g|) gives superlinear convergence of the outer Newton loop; below
    # some rounding errors of the type no residual can be trusted.
    enough = size * size.sqrt().clamp(max=0.1, min=_TIGHTEST * torch.finfo(target.dtype).eps)
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


def _fall(
    problem: _Problem, weights: Tensor, here: _Point, step: Tensor
) -> tuple[Tensor, _Point] | None:
    """Halve the step until the objective falls enough (Armijo rule); None if it never does."""
    slope = (here.gradient * step).sum()
    rounding = _rounding(here)
    length = 1.0
    while length > 1e-6:
        there = weights - length * step
        point = problem.at(there)
        if point.value <= here.value - 1e-4 * length * slope + rounding:
            return there, point
        length /= 2
    return None


def _rounding(here: _Point) -> Tensor:
    """Error of the objective: near the optimum the true decrease is below it."""
    return 10 * torch.finfo(here.value.dtype).eps * here.value.abs().clamp(min=1)
