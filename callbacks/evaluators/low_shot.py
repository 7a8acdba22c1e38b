"""Low-shot accuracy during training."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, tensor

from lit_ssl.callbacks.evaluators.base import RepresentationEvaluator
from lit_ssl.callbacks.evaluators.features import Split
from lit_ssl.contracts.data import num_classes_of
from lit_ssl.errors import InputError
from lit_ssl.metrics import ShardedFeatures, draw_labelled, low_shot_accuracies
from lit_ssl.trainer.passes import on_rank_zero
from lit_ssl.trainer.run import is_fast_dev_run


class LowShotEvaluator(RepresentationEvaluator):
    """Accuracy of logistic regression on a few labelled images per class (MSN's protocol).

    The labelled images are drawn from the bank; the draws stay the same for the whole run and are
    nested (1 per class is part of 2 per class). For each number n of images per class it logs
    ``val/lowshot_n_acc1`` (mean over the draws, in [0, 1]) and ``val/lowshot_n_std`` (sample
    standard deviation), and the same under ``test/``.

    Args:
        shots: Labelled images per class, each >= 1.
        draws: Random draws to average over, >= 1; seeded 0, 1, ….
        l2: Regularisation x of [`fit_low_shot`][lit_ssl.metrics.fit_low_shot], > 0.
        every_n_epochs: During fit, evaluate after every n-th epoch and at its end, >= 1.
        feature_method: Method of the module that maps images ``[B, C, H, W]`` to ``[B, D]``. MSN's
            published numbers use its ``features`` (before the final norm).
        num_classes: Number of classes; None takes the data module's.

    Raises:
        ValueError: If a value lies outside its range.

    Source: MSN, arXiv 2204.07141, appendix A.2. The paper uses fixed lists of ImageNet images
    instead of random draws: for its protocol make the bank such a list (``subset`` of the data
    module), give its images per class as ``shots`` and ``draws: 1``, and average over the lists.
    """

    family: ClassVar[str] = "lowshot"

    def __init__(
        self,
        shots: Sequence[int] = (1, 2, 5),
        draws: int = 3,
        l2: float = 0.0025,
        every_n_epochs: int = 1,
        feature_method: str = "forward",
        num_classes: int | None = None,
    ) -> None:
        super().__init__(every_n_epochs, feature_method, num_classes)
        if not shots or min(shots) < 1 or draws < 1 or l2 <= 0:
            raise InputError(
                "LowShotEvaluator needs shots >= 1, draws >= 1 and l2 > 0, got "
                f"shots={list(shots)}, draws={draws}, l2={l2}"
            )
        self.shots = tuple(shots)
        self.draws = draws
        self.l2 = l2

    def evaluate(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: Split
    ) -> dict[str, float]:
        """Low-shot accuracies on a split; see the class."""
        bank = self.sharded(trainer, pl_module, "bank")
        queries = self.sharded(trainer, pl_module, split)
        classes = num_classes_of(trainer, self.num_classes)
        if not is_fast_dev_run(trainer):
            warn_about_short_classes(bank.labels, max(self.shots))
        asked = queries.on_rank_zero()
        values: dict[str, float] = {}
        for n in self.shots:
            supports = [picked_features(bank, r) for r in draw_supports(bank.labels, n, self.draws)]
            compute = partial(
                accuracies_of_supports, supports, asked, queries.labels, classes, self.l2,
                pl_module.device,
            )  # fmt: skip
            mean, std = mean_and_std(on_rank_zero(trainer, compute))
            values |= {f"lowshot_{n}_acc1": mean, f"lowshot_{n}_std": std}
        return values


def picked_features(bank: ShardedFeatures, rows: Tensor) -> tuple[Tensor | None, Tensor]:
    """Some rows of a bank (on process 0, else None) and their labels. A collective.

    Args:
        bank: features of which each process holds its own rows.
        rows: rows of the whole bank, int64 ``[M]``, the same on every process.

    Returns:
        Features ``[M, D]``, or None on all processes but the first, and labels int64 ``[M]``.
    """
    few = bank.pick(rows)
    return few.on_rank_zero(), few.labels


def accuracies_of_supports(
    supports: Sequence[tuple[Tensor | None, Tensor]],
    queries: Tensor | None,
    query_labels: Tensor,
    num_classes: int,
    l2: float,
    device: torch.device,
) -> list[float]:
    """Accuracy on the queries for each choice of labelled images, on the process that has them.

    Args:
        supports: Features ``[n, D]`` and labels of each choice (``picked_features``).
        queries: ``[Q, D]``.
        query_labels: int64 ``[Q]``.
        num_classes: Number of classes.
        l2: Regularisation.
        device: Where to compute.
    """
    assert queries is not None
    on_device = queries.to(device)
    found = []
    for features, labels in supports:
        assert features is not None
        found += low_shot_accuracies(
            bank=features,
            bank_labels=labels,
            queries=on_device,
            query_labels=query_labels,
            num_classes=num_classes,
            supports=[torch.arange(len(labels))],
            l2=l2,
        )
    return found


def draw_supports(labels: Tensor, per_class: int, draws: int) -> list[Tensor]:
    """Rows of the labelled images of each draw; all of a class where it has too few.

    Args:
        labels: int64 ``[N]``.
        per_class: images of each class in a draw.
        draws: how many draws; their seeds count from 0.
    """
    return [draw_labelled(labels, per_class, seed, allow_fewer=True) for seed in range(draws)]


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for one value).

    Args:
        values: at least one.
    """
    column = tensor(values)
    return column.mean().item(), column.std().item() if len(values) > 1 else 0.0


def warn_about_short_classes(labels: Tensor, per_class: int, of: str = "bank") -> None:
    """Warn, once per text, if a class has fewer labelled images than the protocol draws.

    Args:
        labels: int64 ``[N]``, none unknown. Classes without any image are not counted.
        per_class: images of each class that the protocol draws.
        of: what the labels belong to, for the warning.
    """
    counts = labels.bincount()
    short = ((counts > 0) & (counts < per_class)).sum().item()
    if short:
        rank_zero_warn(
            f"{short} classes of the {of} have fewer than {per_class} labelled images; all "
            "of theirs are used, so the numbers are not exact n-shot results"
        )
