"""A training loader that continues in the middle of an epoch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader

from lit_ssl.datamodules.samplers import EpochSampler

__all__ = ["ResumableDataLoader"]


class ResumableDataLoader(DataLoader):
    """`DataLoader` over an `EpochSampler` whose position is part of Lightning's checkpoints.

    Lightning stores `state_dict()` of the training loader with its loops and hands it back when it
    resumes in the middle of an epoch. The state is (epoch, batches done in it), so a state from the
    end of an epoch has no effect on the next one, and nothing is read that was already used.

    Args:
        args: Arguments of `torch.utils.data.DataLoader`.
        processed: Function that returns how many batches of this epoch the training loop has
            finished. A batch that was fetched but not finished (an error inside the training step)
            is then given again after resuming. None: every batch that was fetched counts as done.
        kwargs: Keyword arguments of `torch.utils.data.DataLoader`.
    """

    def __init__(
        self, *args: Any, processed: Callable[[], int | None] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._processed = processed
        self._resume: dict[str, int] | None = None
        self._epoch = 0
        self._batches = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # Lightning calls iter() before it tells the sampler the epoch. Workers start to read at
        # once, so everything waits for the first next().
        return self._iterate()

    def _iterate(self) -> Iterator[Any]:
        sampler = self.sampler
        if not isinstance(sampler, EpochSampler):  # Trainer(overfit_batches=...) takes it away
            yield from super().__iter__()
            return
        self._epoch, self._batches = sampler.epoch, 0
        if self._resume is not None and self._resume["epoch"] == sampler.epoch:
            self._batches = self._resume["batches"]
        self._resume = None
        sampler.start_at(self._batches * (self.batch_size or 1))
        for batch in super().__iter__():
            self._batches += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the position in the epoch and what the order of the epoch depends on.

        Returns:
            Plain integers, so that the checkpoint loads with `weights_only=True`.
        """
        if self._resume is not None:
            return dict(self._resume)
        batches = self._batches
        done = self._processed() if self._processed is not None else None
        if done is not None:
            batches = min(batches, done)
        return {"epoch": self._epoch, "batches": batches, **self._order()}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continue at a stored position as soon as that epoch is iterated.

        Warns if seed, number of samples, batch size or number of processes have changed: the number
        of batches is kept then, but they are not the ones that are missing.

        Args:
            state_dict: What `state_dict()` returned.
        """
        saved = {key: state_dict.get(key) for key in self._order()}
        changed = [
            f"{key} {saved[key]} -> {now}"
            for key, now in self._order().items()
            if saved[key] != now
        ]
        if changed and state_dict["batches"]:
            warnings.warn(
                "The checkpoint is from the middle of an epoch and the order of the samples has"
                f" changed since ({', '.join(changed)}): some samples of this epoch come twice and"
                " some not at all. Keep these values to continue exactly.",
                stacklevel=2,
            )
        self._resume = dict(state_dict)

    def _order(self) -> dict[str, int]:
        sampler = self.sampler
        if not isinstance(sampler, EpochSampler):
            return {}
        return {
            "seed": sampler.seed,
            "samples": len(sampler.dataset),  # type: ignore[arg-type]
            "batch_size": self.batch_size or 1,
            "processes": sampler.num_replicas,
        }
