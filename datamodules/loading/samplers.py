"""Samplers: the order of an epoch, and shards for evaluation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from lit_ssl.seeding import keyed_permutation, sample_seeds

__all__ = ["EpochSampler", "ShardSampler"]

_CHUNK = 8192


class EpochSampler(DistributedSampler[tuple[int, int]]):
    """Random order over all processes, as a pure function of (seed, epoch), with a seed per sample.

    Yields pairs ``(index, sample seed)``. The seed travels with the index because workers that live
    longer than an epoch cannot be told its number. It is a ``DistributedSampler``, also for one
    process, because Lightning replaces samplers of any other class when it trains on several.

    Args:
        dataset: Data set with a length.
        num_replicas: Number of processes that share the data set.
        rank: Rank of this process among them.
        seed: Seed of the run, the same on all processes.
        drop_last: True leaves out the samples that do not divide evenly over the processes; False
            repeats the first ones of the epoch instead.
    """

    def __init__(
        self,
        dataset: Dataset,
        num_replicas: int = 1,
        rank: int = 0,
        seed: int = 0,
        drop_last: bool = True,
    ) -> None:
        super().__init__(
            dataset, num_replicas=num_replicas, rank=rank, seed=seed, drop_last=drop_last
        )
        self.dataset_size = len(dataset)  # type: ignore[arg-type]
        self._start: tuple[int, int] | None = None

    def start_at(self, epoch: int, sample: int) -> None:
        """Make the next pass, and only that one, start elsewhere.

        Args:
            epoch: Epoch whose order the pass follows.
            sample: Position within this process's share of that epoch, >= 0.
        """
        self._start = (epoch, sample)

    def depends_on(self) -> dict[str, int]:
        """Return what else than seed and size the order of the current pass depends on."""
        return {}

    def order(self, epoch: int) -> np.ndarray:
        """Order of all samples, over all processes, in an epoch: int64 ``[N]``.

        Args:
            epoch: number of the epoch, ≥ 0.
        """
        return keyed_permutation(self.dataset_size, self.seed, epoch)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        # Read here and not in the generator: they belong to this pass, even if `set_epoch` is
        # called while it runs.
        epoch, sample = self._start or (self.epoch, 0)
        self._start = None
        return self._pairs(epoch, sample)

    def _pairs(self, epoch: int, start: int) -> Iterator[tuple[int, int]]:
        share = np.resize(self.order(epoch), self.total_size)[self.rank :: self.num_replicas]
        # In pieces: a list of all pairs of a large data set takes hundreds of megabytes.
        for begin in range(start, len(share), _CHUNK):
            indices = share[begin : begin + _CHUNK]
            places = self.rank + self.num_replicas * np.arange(begin, begin + len(indices))
            seeds = self.seeds(epoch, indices, places)
            yield from zip(indices.tolist(), seeds.tolist(), strict=True)

    def seeds(self, epoch: int, indices: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Return the seeds of samples, one each.

        Args:
            epoch: Epoch, >= 0.
            indices: int64 ``[B]``, their indices.
            places: int64 ``[B]``, their places in the order of that epoch.
        """
        return sample_seeds(self.seed, epoch, indices)


class ShardSampler(DistributedSampler[int]):
    """Every ``num_replicas``-th sample, in order, from ``rank`` on: not shuffled, not padded.

    Sample ``i`` of the shard is sample ``rank + i * num_replicas`` of the data set. Over all
    processes each sample comes exactly once, so lengths differ by at most one between processes.
    Lightning leaves it alone because it is a ``DistributedSampler``; its own one would count some
    samples twice.

    Args:
        dataset: Data set with a length.
        num_replicas: Number of processes that share the data set.
        rank: Rank of this process among them.
    """

    def __init__(self, dataset: Dataset, num_replicas: int, rank: int) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=False)
        self._indices = range(rank, len(dataset), num_replicas)  # type: ignore[arg-type]
        self.num_samples = len(self._indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices)
