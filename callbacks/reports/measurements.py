"""The measurements of a report, on one kind of features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from lit_ssl.answers import count_right
from lit_ssl.callbacks.evaluators.low_shot import (
    accuracies_of_supports,
    draw_supports,
    mean_and_std,
    picked_features,
)
from lit_ssl.callbacks.reports.kinds import Kind
from lit_ssl.callbacks.reports.labelled_sets import LabelledSet, rows_of
from lit_ssl.metrics import (
    ShardedFeatures,
    fit_linear_probe,
    sharded_knn,
    sharded_soft_nn,
    topk_accuracy,
)

Once = Callable[[Callable[[], Any]], Any]
Protocol = Literal["knn", "linear", "low_shot", "soft_nn"]
PROTOCOLS: tuple[Protocol, ...] = ("knn", "linear", "low_shot", "soft_nn")


@dataclass
class Measurements:
    """What to measure.

    Attributes:
        protocols: Some of ``PROTOCOLS``.
        shots: Labelled images per class.
        draws: Random draws of them.
        k: Neighbours of k-NN.
        temperature: Of k-NN's vote.
        l2: Low-shot regularisation of the shots.
        soft_nn_temperature: Of soft nearest neighbours.
        sets: Further choices of labelled images.
        positions: Their places in the bank, one tensor per draw.
    """

    protocols: Sequence[Protocol]
    shots: Sequence[int]
    draws: int
    k: int
    temperature: float
    l2: float
    soft_nn_temperature: float
    sets: Mapping[str, LabelledSet]
    positions: dict[str, list[Tensor]] = field(default_factory=dict)

    def __call__(
        self, kind: Kind, classes: int, device: torch.device, once: Once
    ) -> dict[str, float]:
        """Measure one kind of features; a collective.

        Nearest neighbours are looked for by all processes, each among its own rows; regressions are
        fitted on process 0, which alone gets the rows for it.

        Args:
            kind: The features.
            classes: Number of classes.
            device: Where to compute.
            once: Computes something on process 0 and gives the result to all.

        Returns:
            Values by the names of a report's fields, the same on every process.
        """
        rows = self._rows(kind)
        values: dict[str, float] = {}
        if kind.bank is not None and kind.queries is not None:
            bank, queries = kind.bank, kind.queries
            if "knn" in self.protocols:
                ranked = sharded_knn(bank, queries, classes, self.k, self.temperature)
                values["knn_acc1"] = topk_accuracy(ranked, queries.labels)
            if "linear" in self.protocols:
                values |= _linear(bank, queries, classes, device, once)
            if "low_shot" in self.protocols:
                values |= self._low_shot(bank, queries, classes, device, rows, once)
        if kind.supports is not None and kind.asked is not None:
            # Lists are places in the bank; other supports know nothing of them.
            shared = rows if kind.supports_are_bank else {}
            values |= self._soft_nn(kind.supports, kind.asked, classes, shared)
        return values

    def _rows(self, kind: Kind) -> dict[str, list[Tensor]]:
        """Rows of the labelled bank of each set and draw."""
        labels = kind.bank_labels
        if labels is None:
            return {}
        return {
            name: [rows_of(places, labels, name) for places in draws]
            for name, draws in self.positions.items()
        }

    def _low_shot(
        self,
        bank: ShardedFeatures,
        queries: ShardedFeatures,
        classes: int,
        device: torch.device,
        rows: Mapping[str, list[Tensor]],
        once: Once,
    ) -> dict[str, float]:
        values: dict[str, float] = {}
        asked = queries.on_rank_zero()
        shots = {str(n): (draw_supports(bank.labels, n, self.draws), self.l2) for n in self.shots}
        sets = {name: (draws, self.sets[name].l2) for name, draws in rows.items()}
        for name, (draws, l2) in {**shots, **sets}.items():
            supports = [picked_features(bank, draw) for draw in draws]
            compute = partial(
                accuracies_of_supports, supports, asked, queries.labels, classes, l2, device
            )
            values |= _summary(f"lowshot_{name}", once(compute))
        return values

    def _soft_nn(
        self,
        supports: ShardedFeatures,
        asked: ShardedFeatures,
        classes: int,
        rows: Mapping[str, list[Tensor]],
    ) -> dict[str, float]:
        top = 5 if classes >= 10 else 1

        def ranked(chosen: ShardedFeatures) -> Tensor:
            return sharded_soft_nn(chosen, asked, classes, self.soft_nn_temperature, top)

        best = ranked(supports)
        values = {f"soft_nn_acc{n}": topk_accuracy(best, asked.labels, n) for n in sorted({1, top})}
        shots = {str(n): draw_supports(supports.labels, n, self.draws) for n in self.shots}
        for name, draws in {**shots, **rows}.items():
            accuracies = [topk_accuracy(ranked(supports.pick(r)), asked.labels) for r in draws]
            values |= _summary(f"soft_nn_{name}", accuracies)
        return values


def _linear(
    bank: ShardedFeatures,
    queries: ShardedFeatures,
    classes: int,
    device: torch.device,
    once: Once,
) -> dict[str, float]:
    rows, asked = bank.on_rank_zero(), queries.on_rank_zero()

    def compute() -> dict[str, float]:
        assert rows is not None
        assert asked is not None
        probe = fit_linear_probe(rows.to(device), bank.labels, classes)
        right = count_right(probe.scores(asked.to(device)).cpu(), queries.labels)
        return {"linear_acc1": right.item() / len(queries.labels), "linear_l2": probe.penalty}

    return once(compute)


def _summary(name: str, accuracies: Sequence[float]) -> dict[str, float]:
    mean, std = mean_and_std(accuracies)
    return {f"{name}_acc1": mean, f"{name}_std": std}
