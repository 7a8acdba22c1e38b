"""Epochs that come chunk by chunk, shuffled within a window."""

from __future__ import annotations

import zlib

import numpy as np
from torch.utils.data import Dataset

from lit_ssl.datamodules.loading.samplers import EpochSampler
from lit_ssl.seeding import Stream, keyed_permutation, uniform

__all__ = ["ChunkSampler"]


class ChunkSampler(EpochSampler):
    """Each sample once an epoch, those of a chunk near each other: a function of (seed, epoch).

    The chunks are put in a new order, 0, 1, 2 …, and a sample of chunk c comes at c + ``window`` ·
    u, u uniform in [0, 1). So samples of about ``window`` chunks are mixed at any time, and one
    chunk begins where another ends.

    Args:
        dataset: Data set with a length.
        chunk_of: int64 ``[N]``: the chunk of each sample.
        window: Chunks that are mixed, >= 1.
        num_replicas: Number of processes that share the data set.
        rank: Rank of this process among them.
        seed: Seed of the run, the same on all processes.
        drop_last: As in ``EpochSampler``.
    """

    def __init__(
        self,
        dataset: Dataset,
        chunk_of: np.ndarray,
        window: int,
        num_replicas: int = 1,
        rank: int = 0,
        seed: int = 0,
        drop_last: bool = True,
    ) -> None:
        super().__init__(dataset, num_replicas, rank, seed, drop_last)
        self.chunk_of = chunk_of
        self.window = window

    def depends_on(self) -> dict[str, int]:
        """Return the window, and a checksum of which samples lie together."""
        chunks = np.ascontiguousarray(self.chunk_of, dtype="<i8")
        return {"shuffle_window": self.window, "chunks": zlib.crc32(chunks.tobytes())}

    def order(self, epoch: int) -> np.ndarray:
        """Order of all samples, over all processes, in an epoch: int64 ``[N]``."""
        chunks = int(self.chunk_of.max(initial=-1)) + 1
        place = np.empty(chunks, dtype=np.int64)
        place[keyed_permutation(chunks, self.seed, epoch, Stream.CHUNK_ORDER)] = np.arange(chunks)
        later = uniform(self.seed, epoch, Stream.CHUNK_WINDOW, np.arange(self.dataset_size))
        return np.argsort(place[self.chunk_of] + self.window * later, kind="stable")
