"""A training loader that continues in the middle of an epoch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import DataLoader

from lit_ssl.datamodules.loading.from_checkpoint import DataFromCheckpoint
from lit_ssl.datamodules.loading.samplers import EpochSampler

__all__ = ["ResumableDataLoader", "ResumingData", "RowsLoader", "Targets"]

_POSITION = ("epoch", "order_epoch", "batches")  # what a state has beside that of the order
_OF_ALL_EPOCHS = ("seed", "samples", "batch_size", "processes")
Targets = Callable[[], tuple[np.ndarray, ...]]


class RowsLoader(DataLoader):
    """``DataLoader`` whose workers send (inputs, rows); the main process adds what belongs to rows.

    Workers that stay alive keep the data set of their first epoch; what belongs to a row may
    change, so it never passes through them.

    Args:
        args: Arguments of ``torch.utils.data.DataLoader``.
        targets: Returns the arrays ``[N, ...]`` to put in the place of the rows, by row; asked once
            per pass. None leaves batches as they are.
        kwargs: Keyword arguments of ``torch.utils.data.DataLoader``.
    """

    def __init__(self, *args: Any, targets: Targets | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.targets = targets

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        batches = super().__iter__()
        return batches if self.targets is None else self._with_targets(batches, self.targets)

    def _with_targets(self, batches: Iterator[Any], targets: Targets) -> Iterator[Any]:
        pin = self.pin_memory and torch.cuda.is_available()
        arrays = [torch.from_numpy(array) for array in targets()]
        for inputs, rows in batches:
            found = [array[rows] for array in arrays]
            yield (inputs, *([tensor.pin_memory() for tensor in found] if pin else found))


class ResumableDataLoader(RowsLoader):
    """Loader over an ``EpochSampler`` whose position is part of Lightning's checkpoints.

    Lightning stores ``state_dict()`` of the training loader with its loops and hands it back when
    it resumes. The state is an epoch and the number of batches done in it: a state from the end of
    an epoch starts the next one at its beginning. Batches that were already used are not read
    again.

    Args:
        args: Arguments of ``RowsLoader``.
        processed: Function that returns how many batches of this epoch the training loop has
            finished. A batch that was fetched but not finished (an error inside the training step)
            is then given again after resuming. None: every batch that was fetched counts as done.
        kwargs: Keyword arguments of ``RowsLoader``.
    """

    def __init__(
        self, *args: Any, processed: Callable[[], int | None] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._processed = processed
        self._resume: dict[str, int] | None = None
        self._has_begun = False
        self._shift = 0  # Lightning's number of the epoch minus ours
        self._epoch = self._order_epoch = self._batches = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # Lightning calls iter() before it tells the sampler the epoch. Workers start to read at
        # once, so everything waits for the first next().
        return self._iterate()

    def _iterate(self) -> Iterator[Any]:
        sampler = self.sampler
        if not isinstance(sampler, EpochSampler):  # Trainer(overfit_batches=...) takes it away
            self._resume = None
            yield from islice(super().__iter__(), self._finished_batches() or 0, None)
            return
        resume = self._resume
        if resume is not None and resume["epoch"] != sampler.epoch and self._finished_batches():
            # Resumed at the end of an epoch, Trainer(max_steps=...) asks once more for that epoch.
            return
        self._resume, self._has_begun = None, True
        self._epoch, self._batches = sampler.epoch, 0
        self._order_epoch = sampler.epoch - self._shift
        in_the_middle = False
        if resume is not None:
            in_the_middle = resume["epoch"] == sampler.epoch
            self._batches = resume["batches"] if in_the_middle else 0
            self._order_epoch = resume["order_epoch"] + (not in_the_middle)
            # After such a request Lightning counts that epoch twice.
            self._shift = sampler.epoch - self._order_epoch
        sampler.start_at(self._order_epoch, self._batches * (self.batch_size or 1))
        if resume is not None:
            self._check_order(resume, in_the_middle and self._batches > 0)
        for batch in super().__iter__():
            self._batches += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the position in the epoch and what the order of the epoch depends on.

        Returns:
            Plain integers, so that the checkpoint loads with ``weights_only=True``.
        """
        if self._resume is not None:
            return dict(self._resume)
        finished = self._finished_batches()
        coming = self._coming_epoch()  # of a loader made anew, between two epochs
        return {
            "epoch": self._epoch if coming is None else coming,
            "order_epoch": self._order_epoch if coming is None else coming,
            "batches": self._batches if finished is None else min(self._batches, finished),
            **self._order(),
        }

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continue at a stored position as soon as that epoch is iterated.

        If seed, number of samples, batch size or number of processes have changed by then, the
        number of batches is kept, and a warning says that they are not the missing ones; at the
        end of an epoch, that the next ones are others.

        Args:
            state_dict: What ``state_dict()`` returned.
        """
        self._resume = dict(state_dict)

    def _coming_epoch(self) -> int | None:
        if self._has_begun or not isinstance(self.sampler, EpochSampler):
            return None
        return self.sampler.epoch

    def _finished_batches(self) -> int | None:
        return None if self._processed is None else self._processed()

    def _check_order(self, saved: dict[str, int], in_the_middle: bool) -> None:
        now = self._order()
        if in_the_middle:
            # What only one of them depends on counts too: another sampler has another order.
            keys = [key for key in {**now, **saved} if key not in _POSITION]
        else:  # weights may be others in each epoch
            keys = [key for key in _OF_ALL_EPOCHS if key in saved and key in now]
        pairs = [(key, saved.get(key, 0), now.get(key, 0)) for key in keys]
        changed = [f"{key} {was} -> {value}" for key, was, value in pairs if was != value]
        if not changed:
            return
        listed = ", ".join(changed)
        what = (
            "The checkpoint is from the middle of an epoch and the order of the samples has"
            f" changed since ({listed}): some samples of this epoch come twice and some not at all"
            if in_the_middle
            else f"The order of the samples has changed since the checkpoint ({listed}): the"
            " epochs from here on are others than those of the run that wrote it"
        )
        warnings.warn(f"{what}. Keep these values to continue exactly", stacklevel=2)

    def _order(self) -> dict[str, int]:
        sampler = self.sampler
        if not isinstance(sampler, EpochSampler):
            return {}
        return {
            "seed": sampler.seed,
            "samples": sampler.dataset_size,
            "batch_size": self.batch_size or 1,
            "processes": sampler.num_replicas,
            **sampler.depends_on(),
        }


class ResumingData(DataFromCheckpoint):
    """Part of a data module whose training loaders continue in the middle of an epoch.

    Lightning restores loaders by itself, but not if a module has asked for
    ``trainer.estimated_stepping_batches`` in ``configure_optimizers``, which makes them too early.
    """

    trainer: pl.Trainer | None
    _waiting: list[dict[str, int]] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the positions of the training loaders, for the checkpoint."""
        return {"loaders": [loader.state_dict() for loader in self._running_loaders()]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let the training continue at stored positions.

        Args:
            state_dict: what ``state_dict`` returned; it counts only in a fit.
        """
        if self.trainer is None or self.trainer.state.fn != "fit":
            return
        self._waiting = state_dict["loaders"]
        if loaders := self._running_loaders():
            self.resume(loaders)

    def resume(self, loaders: list[ResumableDataLoader]) -> None:
        """Hand the positions that were loaded, if any, to training loaders.

        Args:
            loaders: In the order of ``trainer.train_dataloader``.
        """
        for loader, state in zip(loaders, self._waiting or [], strict=False):
            loader.load_state_dict(state)
        self._waiting = None

    def _running_loaders(self) -> list[ResumableDataLoader]:
        running = None if self.trainer is None else self.trainer.train_dataloader
        loaders = running.values() if isinstance(running, dict) else [running]
        return [loader for loader in loaders if isinstance(loader, ResumableDataLoader)]
