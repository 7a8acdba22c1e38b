"""Epochs drawn with replacement."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
from torch.utils.data import Dataset

from lit_ssl.datamodules.loading.samplers import EpochSampler
from lit_ssl.seeding import Stream, hash_integers, sample_seeds, uniform

__all__ = ["WeightedEpochSampler"]


class WeightedEpochSampler(EpochSampler):
    """As many draws with replacement as there are samples, a pure function of (seed, epoch).

    A sample that is drawn several times in an epoch gets another seed each time. Without weights it
    is an ``EpochSampler``.

    Args:
        dataset: Data set with a length.
        weights: Returns the weights of the samples, float64 ``[N]``, >= 0 and not all 0, to which
            their probabilities are proportional; None for a shuffled epoch. It is asked at the
            start of each pass.
        num_replicas: Number of processes that share the data set.
        rank: Rank of this process among them.
        seed: Seed of the run, the same on all processes.
        drop_last: As in ``EpochSampler``.
    """

    def __init__(
        self,
        dataset: Dataset,
        weights: Callable[[], np.ndarray | None],
        num_replicas: int = 1,
        rank: int = 0,
        seed: int = 0,
        drop_last: bool = True,
    ) -> None:
        super().__init__(dataset, num_replicas, rank, seed, drop_last)
        self.weights = weights
        self._now: np.ndarray | None = None

    def start_at(self, epoch: int, sample: int) -> None:
        """Make the next pass start elsewhere, and take over the weights for it."""
        super().start_at(epoch, sample)
        self._now = self.weights()

    def depends_on(self) -> dict[str, int]:
        """Return a checksum of the weights of the latest pass, 0 without weights."""
        checksum = 0 if self._now is None else zlib.crc32(self._now.tobytes())
        return {"sampling_weights": checksum}

    def order(self, epoch: int) -> np.ndarray:
        """Order of all draws, over all processes, in an epoch: int64 ``[N]``."""
        self._now = self.weights()
        if self._now is None:
            return super().order(epoch)
        ends = np.cumsum(self._now)
        ends /= ends[-1]
        draws = uniform(self.seed, epoch, Stream.DRAWS, np.arange(self.dataset_size))
        # Below 1, so that a sample without weight, an empty interval, is never hit.
        return np.searchsorted(ends, draws, side="right").astype(np.int64)

    def seeds(self, epoch: int, indices: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Return the seeds of samples; see ``EpochSampler``."""
        if self._now is None:
            return super().seeds(epoch, indices, places)
        return sample_seeds(
            self.seed, epoch, hash_integers(Stream.DRAW_SEEDS, places).view(np.int64)
        )
