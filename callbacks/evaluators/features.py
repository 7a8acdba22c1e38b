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
from lit_ssl.distributed import gather_rows, gather_stack, is_distributed, process_rank
from lit_ssl.errors import InputError
from lit_ssl.metrics import ShardedFeatures
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


_cache: WeakKeyDictionary[pl.Trainer, dict[tuple[Any, ...], ShardedFeatures]] = WeakKeyDictionary()


class RefusedPassError(Exception):
    """What a feature function raises to end the pass; it is then raised on every process."""


def extract_features(
    trainer: pl.Trainer,
    pl_module: pl.LightningModule,
    split: Split,
    feature_method: str = "forward",
) -> Features:
    """Features of a split under the current weights; repeated calls in one evaluation are free.

    Every process gets all rows, which takes the memory of all of them on each:
    [`shard_features`][lit_ssl.callbacks.shard_features] gives each process its own.

    Call it on every process, from evaluation hooks of a callback that clears the cache as
    [`RepresentationEvaluator`][lit_ssl.callbacks.RepresentationEvaluator] does.

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
    shards = shard_features(trainer, pl_module, split, feature_method)
    return Features(shards.everywhere(), shards.labels)


def shard_features(
    trainer: pl.Trainer,
    pl_module: pl.LightningModule,
    split: Split,
    feature_method: str = "forward",
) -> ShardedFeatures:
    """Features of a split, of which each process holds its own rows.

    As [`extract_features`][lit_ssl.callbacks.extract_features], with which it shares the pass
    through the network.

    Args:
        trainer: the running trainer.
        pl_module: the module to evaluate.
        split: ``bank``, ``support``, ``val`` or ``test``.
        feature_method: method of the module that maps images to features.
    """
    entries = _cache.setdefault(trainer, {})
    key = (trainer.state.fn, trainer.global_step, split, feature_method)
    if key not in entries:
        function = feature_function(pl_module, feature_method)
        entries[key] = collect_features(trainer, pl_module, split, function)
    return entries[key]


def clear_features(trainer: pl.Trainer) -> None:
    """Forget the features of earlier evaluations and free their memory.

    Args:
        trainer: whose features are forgotten.
    """
    _cache.pop(trainer, None)


def collect_features(
    trainer: pl.Trainer, module: nn.Module, split: Split, function: FeatureFunction
) -> ShardedFeatures:
    """Apply a function to all images of a split, without touching any state of the training.

    Args:
        trainer: The running trainer.
        module: The module that ``function`` evaluates.
        split: Which split.
        function: Images ``[B, C, H, W]`` to features ``[B, D]``.

    Returns:
        All samples of the split, each once, in the order of the data set; each process holds those
        that its loader has served.

    Raises:
        InputError: for batches without labels, features that are not ``[B, D]``, or an
            empty loader.
        RefusedPassError: where the pass was refused on any process.
    """
    with isolate_rng():
        loader, limit = split_loader(trainer, split)
    # Clips of a video follow each other; of a training video there is one.
    each = clips_per_video(trainer) if split in ("val", "test") else 1
    kept = _KeptRows(most_samples(loader, limit) * each)

    def keep(batch: Any, served: Any) -> None:
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
        kept.add(rows, labels)

    refused = None
    try:
        evaluate_batches(trainer, module, keep, loader, limit)
    except RefusedPassError as error:
        refused = error
    device = trainer.strategy.root_device
    features, labels = kept.rows()
    state = torch.tensor([len(features), features.shape[1], refused is not None], device=device)
    counts, widths, were_refused = gather_stack(state).cpu().unbind(1)
    if were_refused.any():
        raise refused or RefusedPassError("another process has refused the pass")
    if not counts.any():
        raise InputError(f"the {split} loader is empty")
    if not len(features):  # a process that has no sample
        features = features.new_empty(0, int(widths.max()))
    places = sample_places(loader, len(labels), each) if is_distributed() else None
    return _numbered(features, labels, places, counts, device)


class _KeptRows:
    """Features and labels of batches, in one tensor each on the CPU, of which there is no second.

    Args:
        most: How many rows to expect; memory that is not written is not taken.
    """

    def __init__(self, most: int) -> None:
        self._features: Tensor | None = None
        self._labels = torch.empty(most, dtype=torch.int64)
        self._count = 0

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Keep the rows of a batch, ``[B, D]`` and ``[B]``."""
        if self._features is None:
            self._features = torch.empty(len(self._labels), features.shape[1])
        start, self._count = self._count, self._count + len(features)
        if self._count > len(self._labels):  # the loader did not say how many there are
            most = max(self._count, 2 * len(self._labels))
            self._features = _longer(self._features, start, most)
            self._labels = _longer(self._labels, start, most)
        self._features[start : self._count] = features
        self._labels[start : self._count] = labels

    def rows(self) -> tuple[Tensor, Tensor]:
        """Features ``[n, D]`` (``[0, 0]`` without a batch) and labels ``[n]``."""
        features = torch.empty(0, 0) if self._features is None else self._features
        return features[: self._count], self._labels[: self._count]


def _longer(rows: Tensor, count: int, most: int) -> Tensor:
    longer = rows.new_empty(most, *rows.shape[1:])
    longer[:count] = rows[:count]
    return longer


def most_samples(loader: Iterable[Any], limit: int | None) -> int:
    """How many samples this process may be served, 0 where the loader does not say.

    Args:
        loader: Of this process.
        limit: So many batches of it are used; None: all.
    """
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return 0
    try:
        batches = len(loader) if limit is None else min(limit, len(loader))
    except TypeError:  # a sampler without a length
        return 0
    return batches * (loader.batch_size or 0)


def _numbered(
    features: Tensor, labels: Tensor, places: Tensor | None, counts: Tensor, device: torch.device
) -> ShardedFeatures:
    """Rows of this process with their numbers among those of all."""
    every = torch.cat(gather_rows(labels.to(device)))
    own = torch.arange(len(labels)) + int(counts[: process_rank()].sum())  # in rows of all
    if not is_distributed() or not _all_known(places, device):
        return ShardedFeatures(features, torch.arange(len(labels)), own, every, device)
    # Distributed samplers repeat samples to give every process equally many: the place in the data
    # set tells the copies apart from real samples and restores the order.
    assert places is not None
    place = torch.cat(gather_rows(places.to(device)))
    order = place.argsort(stable=True)
    first = torch.ones(len(order), dtype=torch.bool)
    first[1:] = place[order][1:] != place[order][:-1]
    chosen = order[first]
    numbers = torch.full((len(order),), -1)
    numbers[chosen] = torch.arange(len(chosen))
    mine = numbers[own]
    held = (mine >= 0).nonzero().flatten()
    held = held[mine[held].argsort()]
    return ShardedFeatures(features, held, mine[held], every[chosen], device)


def _all_known(places: Tensor | None, device: torch.device) -> bool:
    known = torch.tensor([places is not None], device=device)
    return bool(gather_stack(known).all())


def sample_places(loader: Iterable[Any], samples: int, each: int = 1) -> Tensor | None:
    """Places in the data set of the first samples of this process, if known: int64 ``[samples]``.

    Args:
        loader: Of this process.
        samples: How many.
        each: So many in a row are of one row of the data set.

    Raises:
        InputError: for a loader in random order, which is another one on each process.
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
    return (torch.tensor(rows, dtype=torch.int64)[:, None] * each + torch.arange(each)).flatten()


def split_loader(trainer: pl.Trainer, split: Split) -> tuple[Iterable[Any], int | None]:
    """The loader of a split and how many batches of it to use (None: all).

    Args:
        trainer: The running trainer.
        split: Which split.

    Raises:
        RuntimeError: If the trainer has no such loader at this point.
    """
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
