"""Epochs that draw from several sources in given shares."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from torch.utils.data import Dataset

from lit_ssl.datamodules.loading.samplers import EpochSampler
from lit_ssl.errors import InputError
from lit_ssl.seeding import Stream, hash_integers, keyed_permutation, sample_seeds

__all__ = ["MixedEpochSampler"]


class MixedEpochSampler(EpochSampler):
    """As many draws as there are samples, of each source its share, a function of (seed, epoch).

    The samples of a source come in passes: each once in random order, then each once in another
    one, and so on, from epoch to epoch where an epoch ends. So none comes a second time before all
    of its source have come once. The draws of all sources are shuffled together. A sample that
    comes several times in an epoch gets another seed each time.

    Args:
        dataset: Data set with a length N.
        source_of: int64 ``[N]``, the source of each sample, from 0.
        shares: Share of each source in an epoch, all above 0; they are divided by their sum.
        num_replicas: Number of processes that share the data set.
        rank: Rank of this process among them.
        seed: Seed of the run, the same on all processes.
        drop_last: As in ``EpochSampler``.
        names: What messages call the sources; None: their numbers.

    Attributes:
        counts: int64 ``[S]``, draws of each source in an epoch.

    Raises:
        InputError: A source has no samples, or a share so small that no epoch has one of them.
    """

    def __init__(
        self,
        dataset: Dataset,
        source_of: np.ndarray,
        shares: Sequence[float],
        num_replicas: int = 1,
        rank: int = 0,
        seed: int = 0,
        drop_last: bool = True,
        names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(dataset, num_replicas, rank, seed, drop_last)
        by_source = np.argsort(source_of, kind="stable")
        sizes = np.bincount(source_of, minlength=len(shares))
        self._members = np.split(by_source, np.cumsum(sizes)[:-1])
        self.counts = _divided(self.dataset_size, np.asarray(shares, dtype=np.float64))
        for number, (size, count) in enumerate(zip(sizes, self.counts, strict=True)):
            if not size or not count:
                name = number if names is None else names[number]
                raise InputError(
                    f"source {name} gives {count} of {self.dataset_size:,} samples to an epoch, and"
                    f" has {size:,}: give it a larger weight, or leave it out"
                )

    def depends_on(self) -> dict[str, int]:
        """Return a checksum of the sizes of the sources and their draws."""
        sizes = np.array([len(members) for members in self._members])
        return {"mixture": zlib.crc32(np.concatenate([sizes, self.counts]).tobytes())}

    def order(self, epoch: int) -> np.ndarray:
        """Order of all draws, over all processes, in an epoch: int64 ``[N]``."""
        drawn = [self._drawn(source, epoch) for source in range(len(self.counts))]
        mixed = keyed_permutation(self.dataset_size, self.seed, Stream.MIXTURE_ORDER, epoch)
        return np.concatenate(drawn)[mixed]

    def _drawn(self, source: int, epoch: int) -> np.ndarray:
        """What an epoch takes of a source: a piece of the endless row of its passes."""
        members, count = self._members[source], int(self.counts[source])
        size = len(members)
        first, skipped = divmod(epoch * count, size)
        last = -(-(skipped + count) // size)
        passes = np.arange(first, first + last)[:, None]
        hashes = hash_integers(self.seed, Stream.MIXTURE_PASS, source, passes, np.arange(size))
        order = np.argsort(hashes, axis=1, kind="stable").ravel()
        return members[order[skipped : skipped + count]]

    def seeds(self, epoch: int, indices: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Return the seeds of samples; see ``EpochSampler``. Each draw has its own."""
        draws = hash_integers(Stream.DRAW_SEEDS, places).view(np.int64)
        return sample_seeds(self.seed, epoch, draws)


def _divided(total: int, shares: np.ndarray) -> np.ndarray:
    """Divide a number in proportion to shares (largest remainders): int64 ``[S]``."""
    exact = total * shares / shares.sum()
    counts = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: total - int(counts.sum())]] += 1
    return counts
