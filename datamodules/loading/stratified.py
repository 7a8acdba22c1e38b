"""Class-stratified batches of labelled images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lit_ssl.datamodules.loading.samplers import EpochSampler
from lit_ssl.datamodules.selection.by_class import rows_by_class
from lit_ssl.errors import InputError
from lit_ssl.seeding import Stream, hash_integers, keyed_permutation, sample_seeds

__all__ = ["ClassStratifiedSampler"]

_HIGHEST = np.uint64(2**64 - 1)  # of all keys
_PIECE = 32_768  # images whose keys are looked at at once


class ClassStratifiedSampler(EpochSampler):
    """Batches with equally many images of each of some classes, a function of (seed, epoch, step).

    Every step draws classes, and of each class different images, afresh; nothing has to be
    remembered from one step to the next, so a run resumes anywhere. The classes take turns: one
    round of steps uses each class at most once. Counts are those of the whole batch, over all
    processes, so they mean the same on any number of them. Yields pairs ``(position, sample
    seed)``, one image of each class after the other, ``images_per_class`` times.

    Args:
        labels: int64 ``[N]``, classes of the labelled images.
        images_per_class: Images of each class in a batch of all processes, >= 1. A class with fewer
            images gives each of them several times, in different views; a warning says so.
        classes_per_batch: Classes in a batch of all processes; None takes all that occur.
        num_batches: Length of an epoch, >= 1.
        num_replicas: Number of processes.
        rank: Rank of this process.
        unique_classes_per_rank: True divides the classes of a batch over the processes; False
            divides the images of each class, so that all processes have the same classes.
        seed: Seed of the run, the same on all processes.
        positions: int64 ``[N]``, what to yield for each image; None: 0 ... N - 1.

    Raises:
        ValueError: An image without a label, more classes asked for than there are, or counts that
            do not divide over the processes.

    Source: PAWS, arXiv 2104.13963, section 4 and its released code.
    """

    def __init__(
        self,
        labels: np.ndarray,
        images_per_class: int,
        classes_per_batch: int | None = None,
        num_batches: int = 1,
        num_replicas: int = 1,
        rank: int = 0,
        unique_classes_per_rank: bool = False,
        seed: int = 0,
        positions: np.ndarray | None = None,
    ) -> None:
        labels = np.asarray(labels, dtype=np.int64)
        super().__init__(labels, num_replicas, rank, seed)  # type: ignore[arg-type]
        self._by_class, self.classes, sizes = rows_by_class(labels)
        self.classes_per_batch = classes_per_batch or len(self.classes)
        self.images_per_class = images_per_class
        self.unique_classes_per_rank = unique_classes_per_rank
        _check(labels, len(self.classes), self.classes_per_batch, images_per_class, num_batches)
        divided = self.classes_per_batch if unique_classes_per_rank else images_per_class
        if divided % num_replicas:
            raise InputError(_indivisible(unique_classes_per_rank, divided, num_replicas))
        self.batch_size = self.classes_per_batch * images_per_class // num_replicas
        self.num_batches = num_batches
        self.num_samples = num_batches * self.batch_size
        self.total_size = self.num_samples * num_replicas
        self._positions = np.arange(len(labels)) if positions is None else np.asarray(positions)
        self._sizes = sizes
        self._ends = np.cumsum(sizes)
        _warn_about_small(sizes, images_per_class)

    def draw(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return this process's share of one batch.

        Args:
            epoch: Epoch, >= 0.
            step: Batch of the epoch, >= 0.

        Returns:
            Positions and seeds, int64 ``[batch_size]`` each.
        """
        rounds, turn = divmod(step, len(self.classes) // self.classes_per_batch)
        order = keyed_permutation(
            len(self.classes), self.seed, Stream.SUPPORT_CLASSES, epoch, rounds
        )
        # Columns of the batch are classes, rows are images.
        columns = np.arange(self.classes_per_batch)
        rows = np.arange(self.images_per_class)
        if self.unique_classes_per_rank:
            columns = np.array_split(columns, self.num_replicas)[self.rank]
        else:
            rows = np.array_split(rows, self.num_replicas)[self.rank]
        chosen = order[turn * self.classes_per_batch + columns]
        picked = self._images(chosen, epoch, step)[rows]
        place = rows[:, None] * self.classes_per_batch + columns
        seeds = sample_seeds(self.seed, Stream.SUPPORT_VIEWS, epoch, step, place.ravel())
        return self._positions[picked.ravel()], seeds

    def _images(self, chosen: np.ndarray, epoch: int, step: int) -> np.ndarray:
        """Indices of images of each chosen class, in a random order.

        An image has a random key in each step, and those with the smallest keys of their class are
        drawn. So few are below a limit that sorting them costs nothing.

        Returns:
            int64 ``[images_per_class, len(chosen)]``; small classes begin again at their end.
        """
        sizes = self._sizes[chosen]
        wanted = np.minimum(sizes, self.images_per_class)
        limits = _limits(sizes, wanted)
        found = self._below(limits, chosen, epoch, step)
        while (short := np.bincount(found[1], minlength=len(chosen)) < wanted).any():
            limits[short] = _HIGHEST
            found = self._below(limits, chosen, epoch, step)
        images, columns, keys = found
        ranked = images[np.lexsort((keys, columns))]
        counts = np.bincount(columns, minlength=len(chosen))
        turns = np.arange(self.images_per_class)[:, None] % wanted
        return ranked[np.cumsum(counts) - counts + turns]

    def _below(
        self, limits: np.ndarray, chosen: np.ndarray, epoch: int, step: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Images whose keys are not above the limit of their class, their columns and keys."""
        sizes = self._sizes[chosen]
        found = []
        # In pieces that stay in the cache, of whole classes.
        cuts = np.flatnonzero(np.diff(np.cumsum(sizes) // _PIECE)) + 1
        for part in np.split(np.arange(len(chosen)), cuts):
            members = [
                self._by_class[e - n : e]
                for e, n in zip(
                    self._ends[chosen[part]].tolist(), sizes[part].tolist(), strict=True
                )
            ]
            images = np.concatenate(members)
            keys = hash_integers(self.seed, Stream.SUPPORT_IMAGES, epoch, step, images)
            low = np.flatnonzero(keys <= np.repeat(limits[part], sizes[part]))
            columns = np.repeat(part, sizes[part])[low]
            found.append((images[low], columns, keys[low]))
        images, columns, keys = (np.concatenate(column) for column in zip(*found, strict=True))
        return images, columns, keys

    def _pairs(self, epoch: int, start: int) -> Iterator[tuple[int, int]]:
        first, skip = divmod(start, self.batch_size)
        for step in range(first, self.num_batches):
            positions, seeds = self.draw(epoch, step)
            yield from zip(positions[skip:].tolist(), seeds[skip:].tolist(), strict=True)
            skip = 0


def _limits(sizes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Limits, uint64 ``[C]``, below which there are almost surely so many of some random keys."""
    shares = (wanted + 4 * np.sqrt(wanted) + 8) / sizes
    low = (np.minimum(shares, 0.5) * 2.0**64).astype(np.uint64)
    return np.where(shares < 0.5, low, _HIGHEST)


def _check(
    labels: np.ndarray, classes: int, classes_per_batch: int, images_per_class: int, batches: int
) -> None:
    unknown = int((labels < 0).sum())
    if len(labels) == 0:
        raise InputError(
            "Support images need labels, but no training image has one: use images with classes"
            " (one folder for each)"
        )
    if unknown:
        raise InputError(
            f"Support images need labels: {unknown} of the {len(labels)} have none. Choose labelled"
            " images with a subset"
        )
    if not 1 <= classes_per_batch <= classes:
        raise InputError(
            f"classes_per_batch is {classes_per_batch}, but there are labelled images of"
            f" {classes} classes: set it to 1 ... {classes}, or leave it out to use all"
        )
    if images_per_class < 1 or batches < 1:
        raise InputError(
            "images_per_class and num_batches must be at least 1, got"
            f" {images_per_class} and {batches}"
        )


def _indivisible(unique: bool, count: int, processes: int) -> str:
    name, other = "images_per_class", "classes_per_batch"
    if unique:
        name, other = other, name
    return (
        f"{name} is {count}, which cannot be divided over {processes} processes: it counts those"
        f" of all processes together. Set it to a multiple of {processes}, or divide {other}"
        f" instead with unique_classes_per_rank: {'false' if unique else 'true'}."
    )


def _warn_about_small(sizes: np.ndarray, images_per_class: int) -> None:
    small = int((sizes < images_per_class).sum())
    if small:
        rank_zero_warn(
            f"{small} of {len(sizes)} classes have fewer labelled images than images_per_class ="
            f" {images_per_class} (the smallest has {sizes.min()}): theirs come several times in a"
            " batch, in different views"
        )
