"""Training batches of few classes each."""

from __future__ import annotations

import numpy as np

from lit_ssl.datamodules.loading.samplers import EpochSampler
from lit_ssl.datamodules.selection.by_class import rows_by_class
from lit_ssl.errors import InputError
from lit_ssl.seeding import Stream, keyed_permutation

__all__ = ["ClassesPerBatchSampler"]


class ClassesPerBatchSampler(EpochSampler):
    """Each sample once an epoch, in batches of few classes: a function of (seed, epoch).

    An epoch is cut into runs of samples of one class, and a batch, over all processes, is
    ``classes_per_batch`` runs, drawn at random. Where a class does not fill its last run, the run
    goes on with another class, so a batch may have some classes more; small classes always share
    their run. The frequencies of the classes over an epoch stay those of the data.

    Args:
        labels: int64 ``[N]``, classes of the samples; unknown ones (−1) are one more class.
        classes_per_batch: Runs in a batch of all processes, >= 1.
        batch_size: Samples per batch and process.
        num_replicas: Number of processes that share the data set.
        rank: Rank of this process among them.
        seed: Seed of the run, the same on all processes.
        drop_last: As in ``EpochSampler``.

    Raises:
        ValueError: All labels are unknown, or the runs would not be of one length.

    Source: arXiv 2210.07277 compares mini-batches of few and of many classes; how its batches were
    drawn could not be read.
    """

    def __init__(
        self,
        labels: np.ndarray,
        classes_per_batch: int,
        batch_size: int,
        num_replicas: int = 1,
        rank: int = 0,
        seed: int = 0,
        drop_last: bool = True,
    ) -> None:
        labels = np.asarray(labels, dtype=np.int64)
        super().__init__(labels, num_replicas, rank, seed, drop_last)  # type: ignore[arg-type]
        together = batch_size * num_replicas
        if len(labels) and (labels < 0).all():
            raise InputError("classes_per_batch needs labels, but no training image has one")
        if classes_per_batch < 1 or together % classes_per_batch:
            raise InputError(
                f"classes_per_batch must divide the batch of all processes, {num_replicas} x"
                f" {batch_size} = {together} images, got {classes_per_batch}"
            )
        self.run_length = together // classes_per_batch
        self._classes, self._labels = np.unique(labels, return_inverse=True)

    def order(self, epoch: int) -> np.ndarray:
        """Order of all samples in an epoch, int64 ``[N]``."""
        shuffled = super().order(epoch)
        ranks = keyed_permutation(len(self._classes), self.seed, epoch, Stream.RUN_CLASSES)
        by_class = shuffled[rows_by_class(ranks[self._labels[shuffled]])[0]]
        count = len(by_class) // self.run_length
        runs = by_class[: count * self.run_length].reshape(count, self.run_length)
        mixed = runs[keyed_permutation(count, self.seed, epoch, Stream.RUN_ORDER)].ravel()
        return np.concatenate([mixed, by_class[count * self.run_length :]])
