"""Accuracy by group, and what predicted groups are worth, as torchmetrics metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from lit_ssl.answers import NO_ANSWER, best_answer
from lit_ssl.errors import InputError

__all__ = ["GroupAccuracy", "GroupScores", "PredictorQuality", "PredictorScores"]


class GroupScores(NamedTuple):
    """Accuracies in [0, 1].

    Attributes:
        per_group: float64 ``[G]``, NaN for a group without samples, or with a sample whose logits
            are NaN or infinite; all accuracies of which it is a part then are NaN.
        worst: lowest of them, among groups with at least ``min_count`` samples; NaN without any.
        worst_group: its index; −1 without any.
        average: over all samples with a label, also those of no known group; NaN without any.
        adjusted: mean of the groups' accuracies, weighted as the training set is made up; NaN
            without weights.
        sizes: int64 ``[G]``, samples of each group.
    """

    per_group: Tensor
    worst: Tensor
    worst_group: Tensor
    average: Tensor
    adjusted: Tensor
    sizes: Tensor


class GroupAccuracy(Metric):
    """Accuracy of each group, of the worst one and on average; groups may overlap.

    The state is counts, summed over batches and processes.

    Args:
        num_groups: G >= 1.
        weights: sizes of the training groups ``[G]``, for the adjusted average; None: without.
        min_count: samples that a group needs to be the worst, >= 1.
        kwargs: passed to ``torchmetrics.Metric``.

    Raises:
        ValueError: if a value lies outside its range.

    Source: the worst group as in arXiv 1911.08731; the adjusted average as for Waterbirds in its
    released code and in WILDS (arXiv 2012.07421).

    Examples:
        >>> metric = GroupAccuracy(2, weights=[3, 1])
        >>> metric.update(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0]), torch.tensor([0, 0, 1]))
        >>> scores = metric.compute()
        >>> scores.worst.item(), scores.worst_group.item(), scores.adjusted.item()
        (0.0, 1, 0.75)
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    correct: Tensor
    count: Tensor
    total: Tensor
    lost: Tensor

    def __init__(
        self,
        num_groups: int,
        weights: Sequence[float] | np.ndarray | Tensor | None = None,
        min_count: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        given = None if weights is None else torch.as_tensor(weights, dtype=torch.float64)
        if num_groups < 1 or min_count < 1 or (given is not None and given.shape != (num_groups,)):
            raise InputError(
                "GroupAccuracy needs num_groups >= 1, min_count >= 1 and one weight per group, got "
                f"{num_groups}, {min_count} and {None if given is None else given.tolist()}"
            )
        self.num_groups = num_groups
        self.min_count = min_count
        self.weights = given
        zeros = torch.zeros(num_groups, dtype=torch.int64)
        self.add_state("correct", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("count", zeros.clone(), dist_reduce_fx="sum")
        # right ones, all
        self.add_state("total", torch.zeros(2, dtype=torch.int64), dist_reduce_fx="sum")
        # samples whose logits are no numbers, of each group and of all
        self.add_state("lost", torch.zeros(num_groups + 1, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, groups: Tensor) -> None:
        """Add a batch.

        Args:
            preds: logits ``[B, C]``, or classes, integers ``[B]``.
            target: classes, integers ``[B]``; −1 where unknown: does not count.
            groups: integers ``[B]``, −1 where unknown; or which groups each sample is in, bool
                ``[B, G]``.

        Raises:
            ValueError: if shapes do not fit.
        """
        if preds.ndim == 2:
            preds = best_answer(preds)
        fit = groups.shape in (target.shape, (*target.shape, self.num_groups))
        if preds.shape != target.shape or target.ndim != 1 or not fit:
            raise InputError(
                f"expected preds [B] or [B, C], target [B] and groups [B] or [B, {self.num_groups}]"
                f", got {list(preds.shape)}, {list(target.shape)} and {list(groups.shape)}"
            )
        if groups.ndim == 1:
            groups = groups[:, None] == torch.arange(self.num_groups, device=groups.device)
        known = target != -1
        right = known & (preds == target)
        self.correct = self.correct + (groups.bool() & right[:, None]).sum(dim=0)
        self.count = self.count + (groups.bool() & known[:, None]).sum(dim=0)
        self.total = self.total + torch.stack([right.sum(), known.sum()])
        lost = known & (preds == NO_ANSWER)
        of_groups = (groups.bool() & lost[:, None]).sum(dim=0)
        self.lost = self.lost + torch.cat([of_groups, lost.sum()[None]])

    def compute(self) -> GroupScores:
        """Scores over all processes, on the CPU."""
        correct, count = self.correct.cpu().double(), self.count.cpu()
        lost = self.lost.cpu() > 0
        per_group = (correct / count).masked_fill(lost[:-1], torch.nan)  # 0 / 0 is NaN
        enough = count >= self.min_count
        lowest = torch.where(enough, per_group, torch.inf).min(dim=0)
        found = bool(enough.any())
        nan = torch.tensor(torch.nan, dtype=torch.float64)
        adjusted = nan
        if self.weights is not None and self.weights[count > 0].sum() > 0:
            weights = torch.where(count > 0, self.weights, 0.0)
            adjusted = (weights * per_group.where(count > 0, 0)).sum() / weights.sum()
        right, known = self.total.cpu().double()
        return GroupScores(
            per_group=per_group,
            worst=lowest.values if found else nan,
            worst_group=lowest.indices if found else torch.tensor(-1),
            average=(right / known).masked_fill(lost[-1], torch.nan),
            adjusted=adjusted,
            sizes=count,
        )


class PredictorScores(NamedTuple):
    """Quality of predicted attributes; float64, NaN where there is nothing to divide by.

    All are NaN where the logits of a sample are NaN or infinite.

    Attributes:
        accuracy: of the attribute, over all samples. It says little: see ``recall``.
        recall: ``[G]``, share of the members of each cell (y, a) that are predicted to be in it.
        precision: ``[G]``, share of those predicted to be in each cell that are.
        tv_bound: ``[G]``, ``1 − min(precision, recall)``: by so much at most a loss in [0, 1] can
            differ between the cell and what is predicted to be it. 1 where one of them is empty.
        worst_recall: lowest recall of a cell with members; NaN without any.
        sizes: int64 ``[G]``, members of each cell.
        predicted: int64 ``[G]``, samples predicted to be in each.
    """

    accuracy: Tensor
    recall: Tensor
    precision: Tensor
    tv_bound: Tensor
    worst_recall: Tensor
    sizes: Tensor
    predicted: Tensor


class PredictorQuality(Metric):
    """Precision and recall of predicted attributes, per cell g = (y, a) of class and attribute.

    The class is known, so a sample of class y is predicted to be in one of the cells of y.

    Args:
        num_classes: C >= 1.
        num_attributes: A >= 1.
        kwargs: passed to ``torchmetrics.Metric``.

    Raises:
        ValueError: if a number is below 1.

    Examples:
        >>> quality = PredictorQuality(1, 2)
        >>> truth, guess = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1])
        >>> quality.update(guess, torch.zeros(4, dtype=torch.int64), truth)
        >>> quality.compute().precision
        tensor([1.0000, 0.5000], dtype=torch.float64)
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    confusion: Tensor
    lost: Tensor

    def __init__(self, num_classes: int, num_attributes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_classes < 1 or num_attributes < 1:
            raise InputError(
                "PredictorQuality needs num_classes >= 1 and num_attributes >= 1, got "
                f"{num_classes} and {num_attributes}"
            )
        self.num_classes = num_classes
        self.num_attributes = num_attributes
        # class, true attribute, predicted attribute
        empty = torch.zeros(num_classes, num_attributes, num_attributes, dtype=torch.int64)
        self.add_state("confusion", empty, dist_reduce_fx="sum")
        self.add_state("lost", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds: Tensor, labels: Tensor, attributes: Tensor) -> None:
        """Add a batch.

        Args:
            preds: predicted attributes, integers ``[B]``, or logits ``[B, A]``.
            labels: classes, integers ``[B]``.
            attributes: true attributes, integers ``[B]``; −1 where unknown: does not count.

        Raises:
            ValueError: if shapes do not fit.
        """
        if preds.ndim == 2:
            preds = best_answer(preds)
        if not preds.shape == labels.shape == attributes.shape or preds.ndim != 1:
            raise InputError(
                "expected preds [B] or [B, A], labels [B] and attributes [B], got "
                f"{list(preds.shape)}, {list(labels.shape)} and {list(attributes.shape)}"
            )
        known = (attributes >= 0) & (labels >= 0)
        self.lost = self.lost + (known & (preds == NO_ANSWER)).sum()
        known &= preds != NO_ANSWER
        cells = (labels * self.num_attributes + attributes) * self.num_attributes + preds
        # The last bin takes the unknown ones: no size that depends on the data.
        size = self.confusion.numel()
        counts = torch.zeros(size + 1, dtype=torch.int64, device=preds.device)
        counts.scatter_add_(0, torch.where(known, cells, size), torch.ones_like(cells))
        self.confusion = self.confusion + counts[:-1].view_as(self.confusion)

    def compute(self) -> PredictorScores:
        """Scores over all processes, on the CPU."""
        confusion = self.confusion.cpu()
        hits = confusion.diagonal(dim1=1, dim2=2).flatten().double()
        count, predicted = confusion.sum(dim=2).flatten(), confusion.sum(dim=1).flatten()
        if self.lost > 0:
            hits = hits + torch.nan
        recall, precision = hits / count, hits / predicted
        shares = ((precision, predicted), (recall, count))  # with what they are shares of
        lowest = torch.where(count > 0, recall, torch.inf).min()
        return PredictorScores(
            accuracy=hits.sum() / count.sum(),
            recall=recall,
            precision=precision,
            tv_bound=1 - torch.minimum(*(x.where(n > 0, 0) for x, n in shares)),
            worst_recall=torch.where(lowest.isfinite(), lowest, torch.nan),
            sizes=count,
            predicted=predicted,
        )
