"""The kinds of features that a report compares: trained, untrained, raw pixels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor

from lit_ssl.callbacks.evaluators.base import labelled_only
from lit_ssl.callbacks.evaluators.features import RefusedPassError, Split, collect_features
from lit_ssl.contracts.modules import feature_function
from lit_ssl.distributed import is_distributed
from lit_ssl.metrics import ShardedFeatures

_MAX_PIXEL_BYTES = 2 * 2**30

# Features of a split by one method of the module.
Source = Callable[[Split, str], ShardedFeatures]


class Asked(NamedTuple):
    """What a report needs of each kind of features.

    Attributes:
        bank: Whether the bank is needed.
        queries: The evaluated split.
        supports: The split with the supports of soft nearest neighbours; None: they are not asked.
        method: Method of the module for k-NN, linear and low-shot.
        embedding: Method of the module for soft nearest neighbours.
    """

    bank: bool
    queries: Split
    supports: Split | None
    method: str
    embedding: str


class Kind(NamedTuple):
    """Features of one kind; all samples have a label.

    Attributes:
        bank: Of the training images.
        queries: Of the evaluated split.
        supports: Of the labelled images, for soft nearest neighbours.
        asked: Of the evaluated split, for soft nearest neighbours.
        bank_labels: Of all images of the bank, −1 where unknown.
        supports_are_bank: Whether the supports are the bank, by the same method of the module.
    """

    bank: ShardedFeatures | None
    queries: ShardedFeatures | None
    supports: ShardedFeatures | None
    asked: ShardedFeatures | None
    bank_labels: Tensor | None
    supports_are_bank: bool


class TooManyPixelsError(RefusedPassError):
    """Raw pixels would take too much memory."""


def collect_kind(asked: Asked, source: Source, classes: int) -> Kind:
    """All features of one kind; a split is passed through the network once per method.

    Args:
        asked: What is needed.
        source: Gives it.
        classes: Number of classes.
    """
    raw: dict[tuple[Split, str], ShardedFeatures] = {}
    labelled: dict[tuple[Split, str], ShardedFeatures] = {}

    def known(split: Split, method: str) -> ShardedFeatures:
        key = split, method
        if key not in labelled:
            raw[key] = source(split, method)
            labelled[key] = labelled_only(raw[key], classes, split)
        return labelled[key]

    bank = queries = supports = answers = labels = None
    if asked.bank:
        bank, queries = known("bank", asked.method), known(asked.queries, asked.method)
        labels = raw["bank", asked.method].labels
    if asked.supports is not None:
        supports = known(asked.supports, asked.embedding)
        answers = known(asked.queries, asked.embedding)
    are_bank = asked.bank and (asked.supports, asked.embedding) == ("bank", asked.method)
    return Kind(bank, queries, supports, answers, labels, are_bank)


def network_source(trainer: pl.Trainer, module: pl.LightningModule) -> Source:
    """Features of a module beside the one that is evaluated.

    Args:
        trainer: the running trainer.
        module: another module, of which the trainer knows nothing.

    Returns:
        Split and name of a feature method → features, of which each process holds its rows.
    """

    def source(split: Split, method: str) -> ShardedFeatures:
        return collect_features(trainer, module, split, feature_function(module, method))

    return source


def pixel_source(trainer: pl.Trainer, pl_module: pl.LightningModule, rows: int) -> Source:
    """Flattened normalised images, whatever the method.

    Args:
        trainer: The running trainer.
        pl_module: The module, which is not asked.
        rows: How many of them are kept at once.
    """
    found: dict[Split, ShardedFeatures] = {}

    def source(split: Split, method: str) -> ShardedFeatures:
        if split not in found:
            found[split] = collect_features(trainer, pl_module, split, partial(_pixels, rows))
        return found[split]

    return source


def _pixels(rows: int, images: Tensor) -> Tensor:
    flat = images.flatten(1)
    size = 4 * rows * flat.shape[1]
    if size > _MAX_PIXEL_BYTES:
        raise TooManyPixelsError(
            f"{rows:,} images of {flat.shape[1]:,} values would take {size / 2**30:.0f} GiB"
        )
    return flat


def on_device(
    module: pl.LightningModule | None, trainer: pl.Trainer, device: torch.device
) -> pl.LightningModule:
    """Move a copy to the device, in the trainer's precision, with rank zero's weights.

    Args:
        module: the copy, changed in place; never None.
        trainer: the running trainer.
        device: where to.
    """
    assert module is not None
    module = trainer.precision_plugin.convert_module(module.to(device))  # type: ignore[assignment]
    if is_distributed():
        for value in module.state_dict().values():
            torch.distributed.broadcast(value, src=0)
    return module
