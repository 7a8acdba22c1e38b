"""Label-free watch over the two ways in which a representation collapses."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from lit_ssl.distributed import is_distributed
from lit_ssl.errors import InputError
from lit_ssl.metrics import (
    FeatureSums,
    assignment_entropy,
    feature_std_from_sums,
    rankme_from_gram,
)
from lit_ssl.trainer.run import logging_interval

_ADVICE = {
    "used_prototypes": (
        "few prototypes are in use: raise the weight of mean-entropy maximisation (5 without "
        "Sinkhorn), use more Sinkhorn iterations, fewer prototypes or a larger batch"
    ),
    "rankme": (
        "features span few dimensions: check that the target network moves slowly (EMA decay) and "
        "that weight decay and learning rate are not too high; strengthen the augmentation"
    ),
    "feature_std": (
        "features of all images point the same way: lower the learning rate, lengthen the warm-up, "
        "check that the target is sharpened and gets no gradient"
    ),
}


class CollapseMonitor(pl.Callback):
    """Logs measures of collapse from the training steps' own outputs and warns when one is bad.

    Over a window of steps it collects ``features`` and ``targets`` of the outputs of
    ``training_step`` (either may be missing) on the device; nothing waits for the device until the
    window is read. Then processes add up sums, of which the largest is ``[D, D]``, by one
    collective. Logged, over all processes:

    - ``monitor/used_prototypes``: prototypes that are some sample's favourite;
    - ``monitor/assignment_entropy``: entropy of the mean assignment in nats, at most log K;
    - ``monitor/rankme``: effective rank of the features, at most ``embed_dim``;
    - ``monitor/feature_std``: spread of normalised features, about 1 for directions spread evenly
      over the sphere, 0 for identical ones.

    A value below its threshold gives one warning that says what to do; the next warning about the
    same value comes only after it has recovered in between.

    Args:
        every_n_steps: Optimiser steps in a window, >= 1; None takes the trainer's
            ``log_every_n_steps``, 50 where that is 0.
        max_features: Features per process that are kept for the rank, >= 2: the latest of the
            window. The rank cannot exceed their number.
        min_used_prototypes: Warn below this share of min(K, samples in the window).
        min_rank: Warn below this share of min(D, features kept).
        min_feature_std: Warn below this spread.
        grace_steps: No warnings during the first n optimiser steps: an untrained network gives
            similar features for all images.

    Raises:
        ValueError: If a value lies outside its range.
    """

    def __init__(
        self,
        every_n_steps: int | None = None,
        max_features: int = 2048,
        min_used_prototypes: float = 0.1,
        min_rank: float = 0.05,
        min_feature_std: float = 0.05,
        grace_steps: int = 500,
    ) -> None:
        if (every_n_steps is not None and every_n_steps < 1) or max_features < 2 or grace_steps < 0:
            raise InputError(
                "CollapseMonitor needs every_n_steps >= 1, max_features >= 2 and grace_steps >= 0, "
                f"got {every_n_steps}, {max_features}, {grace_steps}"
            )
        self.every_n_steps = every_n_steps
        self.max_features = max_features
        self.grace_steps = grace_steps
        self.thresholds = {
            "used_prototypes": min_used_prototypes,
            "rankme": min_rank,
            "feature_std": min_feature_std,
        }
        self._bad: set[str] = set()
        self._last_step = 0
        self._reset()

    def _reset(self) -> None:
        self._features: deque[Tensor] = deque()
        self._mean: Tensor | None = None  # sum of targets [K] and, last, their number [1]
        self._used: Tensor | None = None  # 1 where a prototype was a favourite, [K]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start with an empty window."""
        self._reset()
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Add this step to the window; read the window when it is full."""
        if isinstance(outputs, dict):
            self._collect(outputs.get("features"), outputs.get("targets"))
        every = self.every_n_steps or logging_interval(trainer)
        step = trainer.global_step
        if step // every > self._last_step // every:
            values, limits = self._measure()
            if values:
                # tensors of the host: numbers would be uploaded, one by one
                logged = {f"monitor/{k}": torch.tensor(v) for k, v in values.items()}
                pl_module.log_dict(logged, batch_size=1)
            if step > self.grace_steps:
                self._warn(step, values, limits)
            self._reset()
            self._last_step = step

    @torch.no_grad()
    def _collect(self, features: Tensor | None, targets: Tensor | None) -> None:
        if features is not None:
            self._features.append(features.detach()[-self.max_features :])
            rows = sum(len(part) for part in self._features)
            while rows - len(self._features[0]) >= self.max_features:
                rows -= len(self._features.popleft())
        if targets is not None:
            targets = targets.detach().float()
            added = torch.cat([targets.sum(dim=0), targets.new_full((1,), len(targets))])
            self._mean = added if self._mean is None else self._mean + added
            if self._used is None:
                self._used = torch.zeros_like(targets[0])
            self._used.scatter_(0, targets.argmax(dim=1), 1.0)

    @torch.no_grad()
    def _measure(self) -> tuple[dict[str, float], dict[str, float]]:
        """Values of the window, and the largest value that each could reach in it.

        All processes add up their sums by one collective, and the host reads once.
        """
        sums = self._sums()
        if not sums:
            return {}, {}
        sizes = [part.numel() for part in sums.values()]
        total = torch.cat([part.double() for part in sums.values()])
        if is_distributed():
            torch.distributed.all_reduce(total)
        parts = dict(zip(sums, total.split(sizes), strict=True))
        values: dict[str, Tensor] = {}
        limits: dict[str, Tensor] = {}
        if "mean" in parts:
            mean, used = parts["mean"], parts["used"]
            known = mean.isfinite().all()  # else the favourites are no prototypes
            values["used_prototypes"] = torch.where(known, (used > 0).sum().double(), torch.nan)
            values["assignment_entropy"] = assignment_entropy(mean[:-1] / mean[-1])
            limits["used_prototypes"] = mean[-1].clamp(max=len(used))
        if "features" in parts:
            width = self._features[0].shape[1]
            features = FeatureSums.from_flat(parts["features"], width)
            values["rankme"] = rankme_from_gram(features.gram, features.rows)
            values["feature_std"] = feature_std_from_sums(features)
            limits["rankme"] = features.rows.clamp(max=width)
            limits["feature_std"] = torch.ones_like(features.rows)
        both = torch.stack([*values.values(), *limits.values()]).tolist()
        found, best = both[: len(values)], both[len(values) :]
        return dict(zip(values, found, strict=True)), dict(zip(limits, best, strict=True))

    def _sums(self) -> dict[str, Tensor]:
        """What the processes add up, each a vector."""
        sums: dict[str, Tensor] = {}
        if self._mean is not None and self._used is not None:
            sums |= {"mean": self._mean, "used": self._used}
        if self._features:
            rows = torch.cat(list(self._features))[-self.max_features :]
            sums["features"] = FeatureSums.of(rows).flat()
        return {name: part.cpu() if part.is_mps else part for name, part in sums.items()}

    def _warn(self, step: int, values: dict[str, float], limits: dict[str, float]) -> None:
        for name, share in self.thresholds.items():
            if name not in values:
                continue
            value, threshold = values[name], share * limits[name]
            if value >= threshold:
                self._bad.discard(name)
            elif name not in self._bad:
                self._bad.add(name)
                shown = "NaN" if math.isnan(value) else f"{value:.3g}"
                rank_zero_warn(
                    f"possible collapse at step {step}: monitor/{name} is {shown}, below "
                    f"{threshold:.3g} (best possible in this window: {limits[name]:g}); "
                    f"{_ADVICE[name]}"
                )
