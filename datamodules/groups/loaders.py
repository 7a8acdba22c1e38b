"""Loaders whose workers send rows, to which the main process adds labels and groups."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from lit_ssl.datamodules.loading.resumable import ResumableDataLoader
from lit_ssl.datamodules.loading.weighted import WeightedEpochSampler
from lit_ssl.datamodules.reading.skip_corrupt import ImageReader

__all__ = ["GroupLoader", "GroupTrainingLoader", "rows_for_labels"]

Targets = Callable[[], tuple[np.ndarray, ...]]


class GroupLoader(DataLoader):
    """Evaluation loader of (inputs, labels, groups).

    Its data set gives (inputs, rows). Workers that stay alive keep the data set of their first
    epoch; what belongs to a row may change, so it is added here.

    Args:
        args: Arguments of `torch.utils.data.DataLoader`.
        targets: Returns the arrays `[N, ...]` to add to a batch, by row; asked once per pass.
        kwargs: Keyword arguments of `torch.utils.data.DataLoader`.
    """

    def __init__(self, *args: Any, targets: Targets, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.targets = targets

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        return _attach(super().__iter__(), self.targets, self.pin_memory)


class GroupTrainingLoader(ResumableDataLoader):
    """Training loader of (inputs, labels, groups) over a `WeightedEpochSampler`.

    Args:
        args: Arguments of `ResumableDataLoader`.
        targets: As in `GroupLoader`.
        kwargs: Keyword arguments of `ResumableDataLoader`.
    """

    def __init__(self, *args: Any, targets: Targets, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.targets = targets

    def _iterate(self) -> Iterator[Any]:
        return _attach(super()._iterate(), self.targets, self.pin_memory)

    def _check_order(self, saved: dict[str, int]) -> None:
        if isinstance(self.sampler, WeightedEpochSampler):
            self.sampler.read_weights()
        super()._check_order({"sampling_weights": 0, **saved})

    def _order(self) -> dict[str, int]:
        order = super()._order()
        if isinstance(self.sampler, WeightedEpochSampler):
            order["sampling_weights"] = self.sampler.checksum
        return order


def _attach(batches: Iterable[Any], targets: Targets, pin: bool) -> Iterator[Any]:
    pin = pin and torch.cuda.is_available()
    arrays = [torch.from_numpy(array) for array in targets()]
    for inputs, rows in batches:
        found = [array[rows] for array in arrays]
        yield (inputs, *([tensor.pin_memory() for tensor in found] if pin else found))


def rows_for_labels(reader: ImageReader) -> ImageReader:
    """Return a reader of the same images that gives their rows in place of their labels.

    The row of an image that was skipped is that of the image in its place.
    """
    images = copy.copy(reader.images)
    images.labels = np.arange(len(reader), dtype=np.int64)
    numbered = copy.copy(reader)  # keeps the shared list of unreadable images
    numbered.images = images
    return numbered
