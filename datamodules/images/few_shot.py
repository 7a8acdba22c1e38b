"""Few-shot episodes out of any image data module."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from lit_ssl.datamodules.images.part import ImagePart, check_classes
from lit_ssl.datamodules.loading.image_module import ImageDataModule
from lit_ssl.datamodules.reading.images import ArrayImages, FileImages
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.reading.skip_corrupt import ImageReader
from lit_ssl.datamodules.selection.episodes import episode_classes, episode_rows
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.errors import InputError, listed
from lit_ssl.seeding import Stream

__all__ = ["FewShotDataModule"]


class FewShotDataModule(ImagePart):
    """One few-shot episode: a few images of a few classes to learn from, others to be asked.

    The support, ``shots`` images of each of ``ways`` classes, is drawn from the training images of
    ``data`` (as it uses them, after hold-out and subset) and is what is trained on; the query set
    is drawn from its test images and is both validation and test set. No image is in both: that
    follows from the splits, and is checked. Labels are 0 to ``ways`` − 1, in the order of the
    classes in ``data``, which ``class_names`` names.

    An episode is a function of ``episode_seed`` and ``episode``, not of the seed of the run, so
    that methods and repetitions see the same one. Its classes do not depend on ``shots`` and
    ``queries``, and more shots keep the images of fewer: the support of one shot is part of that of
    five, and the query set is the same.

    An epoch gives every support image once, in batches of the size of ``data``, the last one
    smaller; transforms, workers and seed are those of ``data`` too.

    Args:
        data: Any image data module with labels and test images.
        ways: Number of classes, at least 2.
        shots: Support images of each class, at least 1.
        queries: Query images of each class, at least 1; None takes all test images of the classes.
        episode: Number of the episode, from 0.
        classes: Numbers of the classes to draw from, such as those that a pretraining on
            ``SomeClassesDataModule`` has not seen; None: all.
        episode_seed: Seed of all episodes.

    Raises:
        InputError: Numbers out of range, too few classes or images, or an image in both sets.

    Source: ours; arXiv 2210.08031 adapts to few shots without saying which images these are.
    """

    def __init__(
        self,
        data: ImageDataModule,
        *,
        ways: int = 8,
        shots: int = 5,
        queries: int | None = None,
        episode: int = 0,
        classes: Sequence[int] | None = None,
        episode_seed: int = 0,
    ) -> None:
        least = {"ways": (ways, 2), "shots": (shots, 1), "episode": (episode, 0)}
        if queries is not None:
            least["queries"] = (queries, 1)
        for name, (value, lowest) in least.items():
            if value < lowest:
                raise InputError(f"{name} must be at least {lowest}, got {value}")
        super().__init__(data, drop_last=False)
        self.ways = ways
        self.shots = shots
        self.queries = queries
        self.episode = episode
        self.episode_seed = episode_seed
        self._given = None if classes is None else tuple(classes)

    @cached_property
    def classes(self) -> np.ndarray:
        """Numbers of the episode's classes in ``data``, int64 ``[ways]``, ascending."""
        names = self.data.class_names
        drawn_from = range(len(names)) if self._given is None else self._given
        classes = check_classes(drawn_from, names, "classes")
        return episode_classes(np.sort(classes), self.ways, self.episode_seed, self.episode)

    def picked(self, split: Split) -> np.ndarray | None:
        """Return the support among the training images, the query set among the test images."""
        return None if split == "val" else self._sets[split == "test"]

    @cached_property
    def _sets(self) -> tuple[np.ndarray, np.ndarray]:
        train, test = self.whole("train"), self.whole("test")
        assert train is not None
        if not test:
            raise InputError(
                f"FewShotDataModule draws its query set from test images, and"
                f" {type(self.data).__name__} has none: give it some"
            )
        support = self._drawn(train, self.shots, "shots", Stream.EPISODE_SUPPORT)
        query = self._drawn(test, self.queries, "queries", Stream.EPISODE_QUERY)
        _check_disjoint(train.select(support), test.select(query))
        rank_zero_info(
            f"episode {self.episode}: {len(support):,} support and {len(query):,} query images of"
            f" {self.ways} classes ({listed(self.class_names, 10)})"
        )
        return support, query

    def _drawn(self, rows: Rows, count: int | None, name: str, stream: Stream) -> np.ndarray:
        keys = self.episode_seed, stream, self.episode
        names = self.data.class_names
        return episode_rows(rows.labels, self.classes, count, keys, name, names.__getitem__)


def _check_disjoint(support: Rows, query: Rows) -> None:
    """Refuse a file that is in both sets; of images in memory, warn of those that are the same."""
    one, other = _images(support), _images(query)
    if isinstance(one, FileImages) and isinstance(other, FileImages):
        if both := sorted(_paths(one) & _paths(other)):
            raise InputError(
                f"{len(both)} images are training and test images of the data, and here in the"
                f" support and the query set: {listed(both)}. Mend the splits"
            )
    elif isinstance(one, ArrayImages) and isinstance(other, ArrayImages):
        known = {image.numpy().tobytes() for image in one.pixels}
        twice = sum(image.numpy().tobytes() in known for image in other.pixels)
        if twice:
            rank_zero_warn(
                f"{twice} of the {len(query)} query images are, pixel for pixel, images of the"
                " support: the data set has them in its training and its test split"
            )


def _images(rows: Rows) -> object:
    assert isinstance(rows.source, ImageReader)
    return rows.source.images


def _paths(images: FileImages) -> set[str]:
    folder = os.path.realpath(images.folder)
    return {os.path.realpath(os.path.join(folder, images.names[i])) for i in range(len(images))}
