"""Epochs in which each drawn sample comes several times (repeated augmentation)."""

from __future__ import annotations

import numpy as np
from torch.utils.data import Dataset

from lit_ssl.datamodules.loading.samplers import EpochSampler
from lit_ssl.errors import InputError
from lit_ssl.seeding import Stream, hash_integers, sample_seeds

__all__ = ["RepeatedEpochSampler"]


class RepeatedEpochSampler(EpochSampler):
    """An epoch of N samples with N / repeats different ones, each ``repeats`` times in other views.

    The copies follow each other in the order of the epoch, which the processes share out in turn:
    as long as there are at least ``repeats`` of them, the copies of a sample are in the same batch
    on different processes. Where N is no multiple of ``repeats``, the last one drawn comes less
    often. An epoch is a pure function of (seed, epoch), the views do not depend on the number of
    processes, and other samples are drawn in each epoch.

    Args:
        dataset: Data set with a length.
        repeats: Copies of each sample, >= 1; 1 is an ``EpochSampler``.
        num_replicas: Number of processes that share the data set.
        rank: Rank of this process among them.
        seed: Seed of the run, the same on all processes.
        drop_last: As in ``EpochSampler``.

    Raises:
        InputError: ``repeats`` is below 1.

    Source: Hoffer et al., arXiv 1901.09335; spread over processes as the recipes of DeiT (arXiv
    2012.12877) do, which also leave out what does not fill batches of 256.
    """

    def __init__(
        self,
        dataset: Dataset,
        repeats: int,
        num_replicas: int = 1,
        rank: int = 0,
        seed: int = 0,
        drop_last: bool = True,
    ) -> None:
        if repeats < 1:
            raise InputError(f"repeats must be at least 1, got {repeats}")
        super().__init__(dataset, num_replicas, rank, seed, drop_last)
        self.repeats = repeats

    def depends_on(self) -> dict[str, int]:
        """Return how often each sample comes."""
        return {"repeats": self.repeats}

    def order(self, epoch: int) -> np.ndarray:
        """Order of all samples, over all processes, in an epoch: int64 ``[N]``."""
        drawn = super().order(epoch)[: -(-self.dataset_size // self.repeats)]
        return np.repeat(drawn, self.repeats)[: self.dataset_size]

    def seeds(self, epoch: int, indices: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Return the seeds of samples; see ``EpochSampler``. Each copy has its own."""
        if self.repeats == 1:
            return super().seeds(epoch, indices, places)
        copies = hash_integers(Stream.REPEATED_VIEWS, places).view(np.int64)
        return sample_seeds(self.seed, epoch, copies)
