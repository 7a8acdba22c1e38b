"""How many samples a step of the optimizer sees, said when a fit starts."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from lit_ssl.errors import InputError

__all__ = ["GlobalBatch"]


class GlobalBatch(pl.Callback):
    """Says the samples of an optimizer step, and warns if the recipe meant another number.

    Batch per device x devices x accumulated batches = global batch, at the start of a fit and
    wherever a callback changes the accumulation. Learning rates are those of the recipe and are
    never scaled. ``lit-ssl`` adds it, with ``global_batch`` of the configuration.

    Args:
        recipe: samples of a step that learning rates were chosen for; None: not known.

    Raises:
        InputError: for a number below 1.
    """

    def __init__(self, recipe: int | None = None) -> None:
        if recipe is not None and recipe < 1:
            raise InputError(f"global_batch must be at least 1, not {recipe}")
        self.recipe = recipe
        self._said: tuple[int, ...] = ()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say it anew in each fit."""
        self._said = ()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say it, if it is not as it was.

        ``GradientAccumulationScheduler`` sets its number in this hook, too: give it before this.
        """
        size = _batch_size(trainer)
        if size is None:
            if self.recipe is not None and not self._said:
                rank_zero_warn(
                    f"the recipe's global batch is {self.recipe:,}; whether this run's is, cannot "
                    "be known, since its training batches have no fixed size"
                )
                self._said = (0,)
            return
        factors = (size, trainer.world_size, trainer.accumulate_grad_batches)
        if factors == self._said:
            return
        self._said = factors
        total = size * factors[1] * factors[2]
        line = f"global batch: {size} per device x {_devices(factors[1])}"
        line += f" x {factors[2]} accumulated = {total:,}"
        if self.recipe in (None, total):
            rank_zero_info(line)
            return
        rank_zero_warn(
            f"{line}, and the recipe's is {self.recipe:,}: set the batch size of the data or "
            "trainer.accumulate_grad_batches, or scale the learning rates as the recipe says and "
            f"give --global_batch {total}"
        )


def _devices(count: int) -> str:
    return f"{count} device" + "s" * (count > 1)


def _batch_size(trainer: pl.Trainer) -> int | None:
    """Samples of a training batch on this device; None where nothing says it."""
    loader: Any = trainer.train_dataloader
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    sampler, inner = getattr(loader, "batch_sampler", None), getattr(data, "dataset", None)
    for part in (loader, sampler, data, inner):  # PAWS: of the unlabelled images
        size = getattr(part, "batch_size", None)
        if isinstance(size, int) and size > 0:
            return size
    return None
