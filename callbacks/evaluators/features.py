"""Frozen features of a whole split, computed once and shared by all evaluators."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, RandomSampler

from lit_ssl.callbacks.contract import (
    FeatureFunction,
    bank_loader,
    check_bank,
    data_source,
    describe,
    feature_function,
    has_supports,
    split_batch,
)
from lit_ssl.distributed import is_distributed, world_size
from lit_ssl.errors import InputError
from lit_ssl.trainer.private import before_batch_transfer, loaders_of
from lit_ssl.trainer.run import is_fast_dev_run

Split = Literal["bank", "support", "val", "test"]

# Rows that travel between processes at once: bounds the memory of the gather on the device.
_GATHER_ROWS = 16_384


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
    who: str = "extract_features",
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
        who: Name of the caller, for error messages.

    Returns:
        All samples of the split, each once, in the order of the data set.

    Raises:
        AttributeError: If the module or the data module lacks a method.
        ValueError: If a batch has no labels, or features are not ``[B, D]``.
    """
    entries = _cache.setdefault(trainer, {})
    key = (trainer.state.fn, trainer.global_step, split, feature_method)
    if key not in entries:
        function = feature_function(pl_module, feature_method, who)
        entries[key] = collect_features(trainer, pl_module, split, function, who)
    return entries[key]


def support_split(trainer: pl.Trainer, who: str) -> Split:
    """The split of the labelled images: ``support`` where the data module has it, else ``bank``.

    Args:
        trainer: A trainer that is running.
        who: Name of the callback, for the message.

    Raises:
        AttributeError: If the data module has neither ``support_dataloader()`` nor
            ``bank_dataloader()``.
    """
    if has_supports(trainer):
        return "support"
    check_bank(trainer, who)
    return "bank"


def clear_features(trainer: pl.Trainer) -> None:
    """Forget the features of earlier evaluations and free their memory."""
    _cache.pop(trainer, None)


@torch.no_grad()
def collect_features(
    trainer: pl.Trainer,
    module: nn.Module,
    split: Split,
    function: FeatureFunction,
    who: str = "collect_features",
) -> Features:
    """Apply a function to all images of a split, without touching any state of the training.

    Batches go through the trainer's own transfer, so that the data module normalises them; the
    module is in eval mode and every submodule gets its own mode back; random states are restored.

    Args:
        trainer: The running trainer.
        module: The module that ``function`` evaluates.
        split: Which split.
        function: Images ``[B, C, H, W]`` to features ``[B, D]``.
        who: Name of the caller, for error messages.

    Returns:
        All samples of the split, each once, in the order of the data set.
    """
    with isolate_rng(), evaluation_mode(module):
        loader, limit = _loader(trainer, split, who)
        features, labels = [], []
        for batch in islice(loader, limit):
            images, known = split_batch(_transfer(trainer, batch))
            if known is None or not isinstance(images, Tensor):
                raise InputError(
                    f"{who} needs labelled {split} batches (images, labels) with images "
                    f"[B, C, H, W], got {describe(batch)}; use −1 for unknown labels"
                )
            with trainer.precision_plugin.forward_context():
                rows = function(images)
            if not isinstance(rows, Tensor) or rows.ndim != 2 or len(rows) != len(known):
                raise InputError(
                    f"{who}: expected features [{len(known)}, D] for {describe(images)}, got "
                    f"{describe(rows)}; name another method with feature_method, or pool first"
                )
            features.append(rows.float())
            labels.append(known.long())
        if not features:
            raise InputError(f"{who}: the {split} loader is empty on this process")
        joined = Features(torch.cat(features), torch.cat(labels))
        return _gather(joined, loader)


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Eval mode inside the block; afterwards every submodule has the mode it had before."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def gather_rows(rows: Tensor) -> list[Tensor]:
    """Collect ``[n, ...]`` from all processes, n may differ; one CPU tensor per rank."""
    if not is_distributed():
        return [rows.cpu()]
    sizes = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(world_size())]
    torch.distributed.all_gather(sizes, torch.tensor([len(rows)], device=rows.device))
    counts = [int(size) for size in sizes]
    parts: list[list[Tensor]] = [[] for _ in counts]
    for start in range(0, max(counts), _GATHER_ROWS):
        stop = min(start + _GATHER_ROWS, max(counts))
        mine = rows[start:stop]
        padded = rows.new_zeros(stop - start, *rows.shape[1:])
        padded[: len(mine)] = mine
        received = [torch.empty_like(padded) for _ in counts]
        torch.distributed.all_gather(received, padded)
        for part, chunk, count in zip(parts, received, counts, strict=True):
            part.append(chunk[: max(0, count - start)].cpu())
    return [torch.cat(part) for part in parts]


def _gather(local: Features, loader: Iterable[Any]) -> Features:
    features = torch.cat(gather_rows(local.features))
    labels = torch.cat(gather_rows(local.labels))
    if not is_distributed():
        return Features(features, labels)
    places = _places(loader, len(local.labels))
    if places is None:
        return Features(features, labels)
    # Distributed samplers repeat samples to give every process equally many: the place in the data
    # set tells the copies apart from real samples and restores the order.
    place = torch.cat(gather_rows(places.to(local.labels.device)))
    order = place.argsort(stable=True)
    first = torch.ones(len(order), dtype=torch.bool)
    first[1:] = place[order][1:] != place[order][:-1]
    return Features(features[order[first]], labels[order[first]])


def _places(loader: Iterable[Any], rows: int) -> Tensor | None:
    """Places in the data set of the first ``rows`` samples of this process, if known."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return None
    if isinstance(loader.sampler, RandomSampler):
        raise InputError(
            f"the evaluation loader over {type(loader.dataset).__name__} draws a new random order "
            "on each process: serve bank_dataloader() in order (shuffle=False)"
        )
    if loader.batch_sampler is None:
        return None
    return torch.tensor(list(islice(chain.from_iterable(loader.batch_sampler), rows)))


def _loader(trainer: pl.Trainer, split: Split, who: str) -> tuple[Iterable[Any], int | None]:
    """The loader of a split and how many batches of it to use (None: all)."""
    if split in ("bank", "support"):
        # A debugging run touches as few batches of these as of everything else.
        few = int(trainer.limit_val_batches) if is_fast_dev_run(trainer) else None
        if split == "support":
            return data_source(trainer).support_dataloader(), few
        return bank_loader(trainer, who), few
    if split == "test":
        loop = trainer.test_loop
    elif trainer.state.fn == "validate":
        loop = trainer.validate_loop
    else:
        loop = trainer.fit_loop.epoch_loop.val_loop
    loaders = loaders_of(loop)
    if loaders is None:
        raise RuntimeError(f"{who}: the trainer has no {split} loader at this point")
    limit = loop.max_batches[0]
    return loaders[0], None if limit == float("inf") else int(limit)


def _transfer(trainer: pl.Trainer, batch: Any) -> Any:
    """Bring a batch to the device through the same hooks as the trainer's own loops."""
    batch = trainer.precision_plugin.convert_input(batch)
    batch = before_batch_transfer(trainer, batch)
    return trainer.strategy.batch_to_device(batch)
