"""DFR (arXiv 2204.02937): refit the last layer of a trained classifier on balanced groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from lit_ssl.contracts.data import bank_loader, data_source
from lit_ssl.errors import InputError, by_name
from lit_ssl.groups.cells import group_counts
from lit_ssl.groups.weights import subsample_weights
from lit_ssl.metrics import fit_linear_probe
from lit_ssl.trainer.passes import on_rank_zero, predict_rows
from lit_ssl.trainer.selection import check_selection

__all__ = ["LastLayerRefit"]


class LastLayerRefit(pl.Callback):
    """Refits the last layer before a test, on equally many rows of each group.

    The backbone stays as it is. The layer is the mean of several logistic regressions, each on a
    random subset of the labelled rows with equally many of each group; the L2 penalty of each is
    chosen on a fifth of its subset. The module in memory has the new layer from then on.

    Args:
        rows: whose rows to fit: ``val``, as published, or ``train``: those of known group.
        subsets: number of random subsets, >= 1.
        layer: name of the module's linear layer on ``forward(inputs)``.

    Raises:
        ValueError: for other values, or if a group has rows but none of them is known to be in it.

    Source: arXiv 2204.02937. There the penalty is L1 and chosen by the worst group on half of the
    rows; here it is L2.
    """

    def __init__(
        self,
        rows: Literal["train", "val"] = "val",
        subsets: int = 10,
        layer: str = "classifier",
    ) -> None:
        if rows not in ("train", "val") or subsets < 1:
            raise InputError(
                f"LastLayerRefit needs rows 'train' or 'val' and subsets >= 1, got {rows!r} and "
                f"{subsets}"
            )
        self.rows = rows
        self.subsets = subsets
        self.layer = layer

    @property
    def uses_training_groups(self) -> bool:
        """Whether group labels of training rows are used, for the label budget."""
        return self.rows == "train"

    @by_name
    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refit the layer."""
        layer = getattr(pl_module, self.layer, None)
        if not isinstance(layer, nn.Linear) or layer.bias is None:
            raise InputError(
                f"{type(pl_module).__name__}.{self.layer} is no linear layer with "
                "a bias; name it with layer"
            )
        data = data_source(trainer)
        data.setup("fit")
        if self.rows == "val":
            check_selection(data, "the last layer", "fit it on those of known group: rows 'train'")
        features, labels, groups = self._collect(trainer, pl_module, data)
        names = data.group_names
        self._check(groups, labels.numpy(), names, data.num_attributes)
        weight, bias, used = on_rank_zero(
            trainer, lambda: self._fit(features, labels, groups, len(names), layer.out_features)
        )
        with torch.no_grad():
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
        rank_zero_info(
            f"refitted the last layer on {self.subsets} subsets of {used:,} {self.rows} rows"
        )

    def _collect(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, data: Any
    ) -> tuple[Tensor, Tensor, np.ndarray]:
        """Features ``[N, D]``, classes and groups ``[N]`` (−1 unknown), of all processes."""
        is_bank = self.rows == "train"
        loader = bank_loader(trainer) if is_bank else data.val_dataloader()
        labels = torch.from_numpy(data.labels(self.rows))
        features = predict_rows(trainer, pl_module, loader, len(labels))
        return features, labels, np.where(data.known(self.rows), data.group_array(self.rows), -1)

    def _check(
        self, groups: np.ndarray, labels: np.ndarray, names: Sequence[str], num_attributes: int
    ) -> None:
        """Refuse a group whose rows are unknown; warn of one that has none."""
        empty = np.flatnonzero(group_counts(groups, len(names)) == 0)
        shown = [names[int(group)] for group in empty]
        if len(empty) == len(names) or np.isin(empty // num_attributes, labels[groups < 0]).any():
            raise InputError(
                f"no {self.rows} row is known to be in the group "
                f"{' or '.join(shown)}: label some, or choose other rows"
            )
        if len(empty):
            rank_zero_warn(
                f"no {self.rows} row is in the group {' or '.join(shown)}: the last "
                "layer is refitted on equally many rows of the others"
            )

    def _fit(
        self, features: Tensor, labels: Tensor, groups: np.ndarray, num_groups: int, classes: int
    ) -> tuple[Tensor, Tensor, int]:
        weights, biases, used = [], [], 0
        for seed in range(self.subsets):
            chosen = torch.from_numpy(np.flatnonzero(subsample_weights(groups, num_groups, seed)))
            used = len(chosen)
            probe = fit_linear_probe(features[chosen], labels[chosen], classes, seed=seed)
            weight, bias = unstandardise(probe.weights, probe.mean, probe.scale)
            weights.append(weight)
            biases.append(bias)
        return torch.stack(weights).mean(dim=0), torch.stack(biases).mean(dim=0), used


def unstandardise(weights: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias on features as they are, of a regression on standardised ones.

    Args:
        weights: ``[C, D + 1]``, the last column is the intercept.
        mean: ``[D]``.
        scale: ``[D]``.

    Returns:
        ``[C, D]`` and ``[C]``.
    """
    weight = weights[:, :-1] / scale
    return weight, weights[:, -1] - weight @ mean
