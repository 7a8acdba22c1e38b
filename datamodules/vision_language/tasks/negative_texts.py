"""Texts of other images, for each row of a training batch."""

from __future__ import annotations

import numpy as np

from lit_ssl.errors import InputError
from lit_ssl.seeding import Stream, uniform

__all__ = ["NegativeTexts"]


class NegativeTexts:
    """Draws different texts of other images, all equally likely.

    Args:
        image_numbers: int64 ``[N]``: the image of each text.
        count: K, texts to draw, ≥ 1.

    Raises:
        InputError: An image leaves fewer than K texts of others.
    """

    def __init__(self, image_numbers: np.ndarray, count: int) -> None:
        self.count = count
        # Texts of an image are neighbours in this order, so that the others are two runs.
        self._order = np.argsort(image_numbers, kind="stable").astype(np.int64)
        _, where, sizes = np.unique(image_numbers, return_inverse=True, return_counts=True)
        self._begin = (np.cumsum(sizes) - sizes)[where]
        self._own = sizes[where]
        fewest = len(image_numbers) - int(sizes.max(initial=0))
        if count > fewest:
            raise InputError(
                f"num_negatives is {count}, but of {len(image_numbers):,} training captions of"
                f" {len(sizes):,} images, only {fewest:,} are of other images than the one with"
                f" most: set num_negatives to at most {fewest}, or give more training images"
            )

    def draw(self, rows: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Return rows of K texts of other images: int64 ``[B, K]``, different in each row.

        Args:
            rows: int64 ``[B]``.
            seeds: int64 ``[B]``, one per row and epoch; the draw is a function of it.
        """
        others = len(self._order) - self._own[rows]
        places = np.empty((len(rows), self.count), dtype=np.int64)
        # R. W. Floyd: a set of K out of M in K draws ("Programming Pearls", CACM 30(9), 1987).
        for i in range(self.count):
            last = others - self.count + i
            place = (uniform(Stream.NEGATIVE_TEXTS, seeds, i) * (last + 1)).astype(np.int64)
            taken = (places[:, :i] == place[:, None]).any(axis=1)
            places[:, i] = np.where(taken, last, place)
        after = places >= self._begin[rows][:, None]
        return self._order[places + after * self._own[rows][:, None]]
