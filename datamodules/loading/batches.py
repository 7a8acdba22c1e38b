"""Data sets that hand finished batches to the loader: views, raw or evaluation images, tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate, get_worker_info

from lit_ssl.datamodules.reading.skip_corrupt import ImageReader
from lit_ssl.seeding import sample_seeds

__all__ = [
    "BatchSet",
    "EvaluationSet",
    "RawImages",
    "RawSet",
    "Served",
    "ViewSet",
    "as_is",
    "split_keys",
]

Key = tuple[int, int] | int


class Reader(Protocol):
    """Inputs of one split, one by one or several at once, such as an ``ImageReader``."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[Tensor, int]:
        """Return one input and its row, which is another than asked for where it is skipped.

        Args:
            index: row in the split.
        """

    def read_batch(self, rows: np.ndarray) -> Tensor | None:
        """Return several inputs at once, else None: they are to be read one by one.

        Args:
            rows: in the split, int64 ``[B]``.
        """


class RawImages(NamedTuple):
    """Undistorted training images whose views are made on the device.

    Sizes and seeds are NumPy arrays, which Lightning leaves on the CPU: that is where the
    parameters of the views are drawn, and fetching them back from the device would stall it.

    Attributes:
        images: uint8 ``[B, C, H, W]``; smaller images lie in the upper left corner, the rest is 0.
        sizes: int64 ``[B, 2]``, true height and width of each image; None if all fill the tensor.
        seeds: int64 ``[B]``, one seed per sample and epoch.
    """

    images: Tensor
    sizes: np.ndarray | None
    seeds: np.ndarray


def as_is(batch: Any) -> Any:
    """Return the batch: the data sets here collate themselves.

    Args:
        batch: of any form.
    """
    return batch


def split_keys(keys: Sequence[Key]) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and seeds; plain rows (from a foreign sampler) get the seed of epoch 0.

    Args:
        keys: pairs of row and seed, or rows only; all of one kind.

    Returns:
        int64 ``[B]`` each.
    """
    if keys and isinstance(keys[0], tuple):
        pairs = np.asarray(keys, dtype=np.int64)
        return pairs[:, 0], pairs[:, 1]
    rows = np.asarray(keys, dtype=np.int64)
    return rows, sample_seeds(0, 0, rows)


class Served(Dataset):
    """Base of the data sets here: the loader fetches whole batches through ``__getitems__``.

    A batch is (inputs, rows): rows int64 ``[B]``, by which the loader adds the columns.

    Args:
        reader: the inputs of the split, such as a ``Reader``.
    """

    def __init__(self, reader: Any) -> None:
        self.reader = reader

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, key: Key) -> Any:
        """Return a batch of one."""
        return self.__getitems__([key])

    def __getitems__(self, keys: Sequence[Key]) -> Any:
        """Return a batch; keys are rows or pairs (row, seed)."""
        raise NotImplementedError


class BatchSet(Served):
    """Inputs that are read a batch at a time.

    Args:
        reader: Has a length, and a method ``read_batch``: rows int64 ``[B]`` → inputs.
    """

    def __getitems__(self, keys: Sequence[Key]) -> tuple[Any, Tensor]:
        """Return (inputs, rows)."""
        rows, _ = split_keys(keys)
        return self.reader.read_batch(rows), torch.from_numpy(rows)


class ViewSet(Served):
    """Views made in the workers.

    Args:
        reader: Images, or other inputs, of the training split.
        recipe: ``MultiCrop`` or ``SingleView``: maps (uint8 ``[C, H, W]``, seed) to uint8 views; or
            what does so with inputs of another kind.
    """

    def __init__(self, reader: Reader, recipe: Callable[[Tensor, int], Any]) -> None:
        super().__init__(reader)
        self.recipe = recipe

    def __getitems__(self, keys: Sequence[Key]) -> Any:
        """Return (views, rows): views is one uint8 tensor ``[B, …]`` or a list of them."""
        samples = []
        for index, seed in zip(*split_keys(keys), strict=True):
            image, row = self.reader.read(int(index))
            samples.append((self.recipe(image, int(seed)), row))
        return default_collate(samples)


class RawSet(Served):
    """Undistorted training images for views on the device.

    Args:
        reader: Images of the training split.
        canvas: Side of the square on which images of different sizes travel; larger ones are
            shrunk.
    """

    def __init__(self, reader: ImageReader, canvas: int) -> None:
        super().__init__(reader)
        self.canvas = canvas

    def __getitems__(self, keys: Sequence[Key]) -> tuple[RawImages, Tensor]:
        """Return (RawImages, rows)."""
        indices, seeds = split_keys(keys)
        images = self.reader.read_batch(indices)
        if images is not None:
            return RawImages(images, None, seeds), torch.from_numpy(indices)
        canvas = torch.zeros(len(indices), 3, self.canvas, self.canvas, dtype=torch.uint8)
        if get_worker_info() is not None:
            # while it is empty, else the full tensor is copied on its way out
            canvas.share_memory_()
        sizes = np.empty((len(indices), 2), dtype=np.int64)
        rows = torch.empty(len(indices), dtype=torch.int64)
        for place, index in enumerate(indices):
            image, rows[place] = self.reader.read(int(index), self.canvas)
            height, width = sizes[place] = image.shape[-2:]
            canvas[place, :, :height, :width] = image
        return RawImages(canvas, sizes, seeds), rows


class EvaluationSet(Served):
    """Images with the evaluation transform.

    Args:
        reader: Images, or other inputs, of one split.
        transform: Maps uint8 ``[…, C, H, W]`` to ``[…, C, size, size]``; or inputs of another
            kind to those of one size.
    """

    def __init__(self, reader: Reader, transform: Callable[[Tensor], Tensor]) -> None:
        super().__init__(reader)
        self.transform = transform

    def __getitems__(self, keys: Sequence[Key]) -> Any:
        """Return (images ``[B, C, size, size]``, rows)."""
        indices, _ = split_keys(keys)
        images = self.reader.read_batch(indices)
        if images is not None:
            return self.transform(images), torch.from_numpy(indices)
        samples = [self.reader.read(int(index)) for index in indices]
        return default_collate([(self.transform(image), row) for image, row in samples])
