"""The measurements of a report, on one kind of features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from lit_ssl.answers import count_right, ranked_answers
from lit_ssl.callbacks.evaluators.features import Features
from lit_ssl.callbacks.evaluators.low_shot import draw_supports, mean_and_std
from lit_ssl.callbacks.reports.kinds import Kind
from lit_ssl.callbacks.reports.labelled_sets import LabelledSet, rows_of
from lit_ssl.metrics import (
    fit_linear_probe,
    knn_predict,
    low_shot_accuracies,
    soft_nearest_neighbor,
    topk_accuracy,
)

Protocol = Literal["knn", "linear", "low_shot", "soft_nn"]
PROTOCOLS: tuple[Protocol, ...] = ("knn", "linear", "low_shot", "soft_nn")


@dataclass
class Measurements:
    """What to measure.

    Attributes:
        protocols: Some of :data:`PROTOCOLS`.
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

    def __call__(self, kind: Kind, classes: int, device: torch.device) -> dict[str, float]:
        """Measure one kind of features; values by the names of a report's fields."""
        rows = self._rows(kind)
        values: dict[str, float] = {}
        if kind.bank is not None and kind.queries is not None:
            bank, queries = _on(kind.bank, device), _on(kind.queries, device)
            if "knn" in self.protocols:
                values |= self._knn(bank, queries, classes)
            if "linear" in self.protocols:
                values |= _linear(bank, queries, classes)
            if "low_shot" in self.protocols:
                values |= self._low_shot(bank, queries, classes, rows)
        if kind.supports is not None and kind.asked is not None:
            # Lists are places in the bank; other supports know nothing of them.
            shared = rows if kind.supports is kind.bank else {}
            values |= self._soft_nn(kind.supports, _on(kind.asked, device), classes, shared)
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

    def _knn(self, bank: Features, queries: Features, classes: int) -> dict[str, float]:
        ranked = knn_predict(
            bank=bank.features, bank_labels=bank.labels, queries=queries.features,
            num_classes=classes, k=self.k, temperature=self.temperature,
        )  # fmt: skip
        return {"knn_acc1": topk_accuracy(ranked, queries.labels)}

    def _low_shot(
        self, bank: Features, queries: Features, classes: int, rows: Mapping[str, list[Tensor]]
    ) -> dict[str, float]:
        values: dict[str, float] = {}
        shots = {str(n): (draw_supports(bank.labels, n, self.draws), self.l2) for n in self.shots}
        sets = {name: (draws, self.sets[name].l2) for name, draws in rows.items()}
        for name, (draws, l2) in {**shots, **sets}.items():
            accuracies = low_shot_accuracies(
                bank=bank.features, bank_labels=bank.labels, queries=queries.features,
                query_labels=queries.labels, num_classes=classes, supports=draws, l2=l2,
            )  # fmt: skip
            values |= _summary(f"lowshot_{name}", accuracies)
        return values

    def _soft_nn(
        self, supports: Features, asked: Features, classes: int, rows: Mapping[str, list[Tensor]]
    ) -> dict[str, float]:
        top = 5 if classes >= 10 else 1

        def ranked(chosen: Features) -> Tensor:
            probs = soft_nearest_neighbor(
                asked.features, chosen.features, chosen.labels, self.soft_nn_temperature, classes
            )
            return ranked_answers(probs, top)

        best = ranked(supports)
        values = {f"soft_nn_acc{n}": topk_accuracy(best, asked.labels, n) for n in sorted({1, top})}
        shots = {str(n): draw_supports(supports.labels, n, self.draws) for n in self.shots}
        for name, draws in {**shots, **rows}.items():
            picked = [Features(supports.features[r], supports.labels[r]) for r in draws]
            accuracies = [topk_accuracy(ranked(few), asked.labels) for few in picked]
            values |= _summary(f"soft_nn_{name}", accuracies)
        return values


def _linear(bank: Features, queries: Features, classes: int) -> dict[str, float]:
    probe = fit_linear_probe(bank.features, bank.labels, classes)
    right = count_right(probe.scores(queries.features).cpu(), queries.labels)
    return {"linear_acc1": right.item() / len(queries.labels), "linear_l2": probe.penalty}


def _summary(name: str, accuracies: Sequence[float]) -> dict[str, float]:
    mean, std = mean_and_std(accuracies)
    return {f"{name}_acc1": mean, f"{name}_std": std}


def _on(features: Features, device: torch.device) -> Features:
    """Features on the device, where the arithmetic runs; labels stay on the host."""
    return Features(features.features.to(device), features.labels)
