"""Frozen features of a whole split, computed once and shared by all evaluators."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, RandomSampler

from lit_ssl.contracts.batches import describe, split_batch
from lit_ssl.contracts.data import bank_loader, clips_per_video, data_source
from lit_ssl.contracts.modules import FeatureFunction, feature_function
from lit_ssl.distributed import gather_rows, is_distributed
from lit_ssl.errors import InputError
from lit_ssl.trainer.passes import evaluate_batches
from lit_ssl.trainer.private import loaders_of
from lit_ssl.trainer.run import is_fast_dev_run

Split = Literal["bank", "support", "val", "test"]


class Features(NamedTuple):
    """Features of a split, the same on every process.

    Attributes:
        features: float32 ``[N, D]``, on the CPU.
        labels: int64 ``[N]``, on the CPU; −1 where unknown.
    """

    features: Tensor
    labels: Tensor


_cache: WeakKeyDictionary[pl.Trainer, dict[tuple[Any, ...], Features]] = WeakKeyDictionary()


def extract_features(
    trainer: pl.Trainer,
    pl_module: pl.LightningModule,
    split: Split,
    feature_method: str = "forward",
) -> Features:
    """Features of a split under the current weights; repeated calls in one evaluation are free.

    Call it on every process, from evaluation hooks of a callback that clears the cache as
    :class:`~lit_ssl.callbacks.evaluators.base.RepresentationEvaluator` does.

    Args:
        trainer: The running trainer.
        pl_module: The module to evaluate.
        split: ``bank`` (``bank_dataloader()``), ``support`` (``support_dataloader()``), ``val`` or
            ``test`` (the trainer's first loader).
        feature_method: Method of the module that maps images to features.

    Returns:
        All samples of the split, each once, in the order of the data set.

    Raises:
        AttributeError: If the module or the data module lacks a method.
        ValueError: If a batch has no labels, or features are not ``[B, D]``.
    """
    entries = _cache.setdefault(trainer, {})
    key = (trainer.state.fn, trainer.global_step, split, feature_method)
    if key not in entries:
        function = feature_function(pl_module, feature_method)
        entries[key] = collect_features(trainer, pl_module, split, function)
    return entries[key]


def clear_features(trainer: pl.Trainer) -> None:
    """Forget the features of earlier evaluations and free their memory."""
    _cache.pop(trainer, None)


def collect_features(
    trainer: pl.Trainer, module: nn.Module, split: Split, function: FeatureFunction
) -> Features:
    """Apply a function to all images of a split, without touching any state of the training.

    Args:
        trainer: The running trainer.
        module: The module that ``function`` evaluates.
        split: Which split.
        function: Images ``[B, C, H, W]`` to features ``[B, D]``.

    Returns:
        All samples of the split, each once, in the order of the data set.
    """

    def features_of(batch: Any, served: Any) -> Features:
        images, labels = split_batch(batch)
        if labels is None or not isinstance(images, Tensor):
            raise InputError(
                f"needs labelled {split} batches (images, labels) with images [B, C, H, W], got "
                f"{describe(served)}; use −1 for unknown labels"
            )
        rows = function(images)
        if not isinstance(rows, Tensor) or rows.ndim != 2 or len(rows) != len(labels):
            raise InputError(
                f"expected features [{len(labels)}, D] for {describe(images)}, got "
                f"{describe(rows)}; name another method with feature_method, or pool first"
            )
        return Features(rows.float(), labels.long())

    with isolate_rng():
        loader, limit = _loader(trainer, split)
    parts = evaluate_batches(trainer, module, features_of, loader, limit)
    if not parts:
        raise InputError(f"the {split} loader is empty on this process")
    joined = (torch.cat(column) for column in zip(*parts, strict=True))
    # Clips of a video follow each other; of a training video there is one.
    each = clips_per_video(trainer) if split in ("val", "test") else 1
    return _gather(Features(*joined), loader, each)


def _gather(local: Features, loader: Iterable[Any], each: int) -> Features:
    features = torch.cat(gather_rows(local.features))
    labels = torch.cat(gather_rows(local.labels))
    if not is_distributed():
        return Features(features, labels)
    places = sample_places(loader, len(local.labels), each)
    if places is None:
        return Features(features, labels)
    # Distributed samplers repeat samples to give every process equally many: the place in the data
    # set tells the copies apart from real samples and restores the order.
    place = torch.cat(gather_rows(places.to(local.labels.device)))
    order = place.argsort(stable=True)
    first = torch.ones(len(order), dtype=torch.bool)
    first[1:] = place[order][1:] != place[order][:-1]
    return Features(features[order[first]], labels[order[first]])


def sample_places(loader: Iterable[Any], samples: int, each: int = 1) -> Tensor | None:
    """Places in the data set of the first samples of this process, if known: int64 ``[samples]``.

    Args:
        loader: Of this process.
        samples: How many.
        each: So many in a row are of one row of the data set.
    """
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return None
    if isinstance(loader.sampler, RandomSampler):
        raise InputError(
            f"the evaluation loader over {type(loader.dataset).__name__} draws a new random order "
            "on each process: serve bank_dataloader() in order (shuffle=False)"
        )
    if loader.batch_sampler is None:
        return None
    rows = list(islice(chain.from_iterable(loader.batch_sampler), samples // each))
    return (torch.tensor(rows)[:, None] * each + torch.arange(each)).flatten()


def _loader(trainer: pl.Trainer, split: Split) -> tuple[Iterable[Any], int | None]:
    """The loader of a split and how many batches of it to use (None: all)."""
    if split in ("bank", "support"):
        # A debugging run touches as few batches of these as of everything else.
        few = int(trainer.limit_val_batches) if is_fast_dev_run(trainer) else None
        if split == "support":
            return data_source(trainer).support_dataloader(), few
        return bank_loader(trainer), few
    if split == "test":
        loop = trainer.test_loop
    elif trainer.state.fn == "validate":
        loop = trainer.validate_loop
    else:
        loop = trainer.fit_loop.epoch_loop.val_loop
    loaders = loaders_of(loop)
    if loaders is None:
        raise RuntimeError(f"the trainer has no {split} loader at this point")
    limit = loop.max_batches[0]
    return loaders[0], None if limit == float("inf") else int(limit)
