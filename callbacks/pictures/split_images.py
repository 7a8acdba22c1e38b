"""Some images of a split, as the network gets them and as a person sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from lit_ssl.callbacks.evaluators.features import (
    Split,
    most_samples,
    sample_places,
    split_loader,
)
from lit_ssl.callbacks.pictures.view_grid import unnormalised
from lit_ssl.contracts.batches import describe, split_batch
from lit_ssl.contracts.data import clips_per_video, data_source
from lit_ssl.distributed import gather_rows, is_distributed
from lit_ssl.errors import InputError
from lit_ssl.trainer.passes import evaluate_batches

__all__ = ["SplitImages", "as_pictures", "spread_rows"]

Result = TypeVar("Result")


class SplitImages:
    """Reads single images of a split, by their rows as evaluators number them.

    It is made on every process; images may then be read on any.

    Args:
        trainer: The running trainer.
        split: Which split.

    Raises:
        InputError: If rows cannot be read out of turn, as those of a stream.
    """

    def __init__(self, trainer: pl.Trainer, split: Split) -> None:
        self.trainer = trainer
        self.split = split
        if clips_per_video(trainer) > 1:
            raise InputError(f"needs images, and the {split} split has clips of videos")
        with isolate_rng():
            loader, limit = split_loader(trainer, split)
            places = sample_places(loader, most_samples(loader, limit))
        if places is None:
            raise InputError(
                f"needs a {split} loader over a data set whose rows can be read one by one, got "
                f"{type(getattr(loader, 'dataset', loader)).__name__}"
            )
        assert isinstance(loader, DataLoader)
        self._loader = loader
        if is_distributed():  # samplers repeat rows to give every process equally many
            device = trainer.strategy.root_device
            places = torch.cat(gather_rows(places.to(device))).cpu().unique()
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def inputs(self, pl_module: pl.LightningModule, rows: Sequence[int]) -> Tensor:
        """Return images as the network gets them: normalised, on the device.

        Args:
            pl_module: The module.
            rows: In the split, at least one.

        Returns:
            Float ``[n, C, H, W]``.

        Raises:
            InputError: If what is served are no images of one size.
        """
        return torch.cat(self.apply(pl_module, rows, lambda images: images))

    def apply(
        self,
        pl_module: pl.LightningModule,
        rows: Sequence[int],
        function: Callable[[Tensor], Result],
    ) -> list[Result]:
        """Apply a function to images, in batches of the size that the loader has.

        Args:
            pl_module: The module, which is in evaluation mode meanwhile.
            rows: In the split, at least one.
            function: Of normalised images on the device, ``[B, C, H, W]``.

        Raises:
            InputError: If what is served are no images.
        """
        places = self._places[torch.as_tensor(rows, dtype=torch.int64)].tolist()
        size = self._loader.batch_size or 1
        parts = [places[start : start + size] for start in range(0, len(places), size)]
        return evaluate_batches(
            self.trainer,
            pl_module,
            lambda batch, served: function(self._images(batch, served)),
            map(self._read, parts),
        )

    def pictures(self, pl_module: pl.LightningModule, rows: Sequence[int]) -> list[Image.Image]:
        """Return images as a person sees them, cut as the network gets them.

        Args:
            pl_module: The module.
            rows: In the split.
        """
        return [] if not len(rows) else as_pictures(self.trainer, self.inputs(pl_module, rows))

    def _read(self, places: list[int]) -> Any:
        dataset: Any = self._loader.dataset
        whole = getattr(dataset, "__getitems__", None)
        items = whole(places) if callable(whole) else [dataset[place] for place in places]
        return self._loader.collate_fn(items)

    def _images(self, batch: Any, served: Any) -> Tensor:
        images = split_batch(batch)[0]
        if not isinstance(images, Tensor) or images.ndim != 4:
            raise InputError(
                f"needs images [B, C, H, W], got {describe(served)} in the {self.split} split"
            )
        return images


def as_pictures(trainer: pl.Trainer, images: Tensor) -> list[Image.Image]:
    """Bring normalised images back to what a person sees.

    Args:
        trainer: The running trainer, whose data know the mean and the standard deviation.
        images: ``[n, C, H, W]``; of other numbers of channels than 3 the first is shown.
    """
    shown = unnormalised(images.float().cpu(), data_source(trainer))
    if shown.shape[1] != 3:
        shown = shown[:, :1].expand(-1, 3, -1, -1)
    pixels = (shown * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(one) for one in pixels]


def spread_rows(labels: Tensor, count: int, seed: int) -> list[int]:
    """Draw some rows, of as many classes as possible, sorted by class.

    Args:
        labels: Int64 ``[N]``, −1 where unknown, N >= 1.
        count: How many; fewer where there are not so many rows.
        seed: Of the choice.

    Returns:
        Rows: first one of each class, in an order of the classes that is drawn, too, then a second.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    seen: dict[int, int] = {}
    turns = np.empty(len(order), dtype=np.int64)  # how many of its class come before
    for place, label in enumerate(labels.numpy()[order].tolist()):
        turns[place] = seen.get(label, 0)
        seen[label] = turns[place] + 1
    chosen = order[np.argsort(turns, kind="stable")[:count]]
    return sorted(chosen.tolist(), key=lambda row: (int(labels[row]), row))
