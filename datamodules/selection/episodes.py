"""Few-shot episodes: which classes, and which of their images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lit_ssl.errors import InputError, listed
from lit_ssl.seeding import Stream, keyed_permutation

__all__ = ["episode_classes", "episode_rows"]


def episode_classes(classes: np.ndarray, ways: int, seed: int, episode: int) -> np.ndarray:
    """Draw the classes of an episode.

    Args:
        classes: int64 ``[C]``, numbers of the classes to draw from.
        ways: Number of classes to draw, 2 to C.
        seed: Seed of all episodes.
        episode: Number of the episode, >= 0.

    Returns:
        int64 ``[ways]``, ascending.

    Raises:
        InputError: There are fewer than ``ways`` classes.
    """
    if ways > len(classes):
        raise InputError(
            f"ways={ways}, but there are {len(classes)} classes to draw from: lower ways, or give"
            " more classes"
        )
    order = keyed_permutation(len(classes), seed, Stream.EPISODE_CLASSES, episode)
    return np.sort(classes[order[:ways]])


def episode_rows(
    labels: np.ndarray,
    classes: np.ndarray,
    count: int | None,
    keys: tuple[int, ...],
    name: str,
    class_name: Callable[[int], str],
) -> np.ndarray:
    """Draw images of each class of an episode; more of them keep those of fewer.

    Args:
        labels: int64 ``[N]``, of all images.
        classes: int64 ``[ways]``.
        count: Images of each class; None: all.
        keys: What the draw depends on: seed, stream and episode.
        name: What the count is called in messages.
        class_name: Name of a class, for messages.

    Returns:
        int64, ascending: ``ways`` times ``count`` positions in ``labels``.

    Raises:
        InputError: A class has fewer images, or none.
    """
    found = []
    small = []
    for number in classes.tolist():
        rows = np.flatnonzero(labels == number)
        if len(rows) < (count or 1):
            small.append(f"{class_name(number)} ({len(rows)})")
        order = keyed_permutation(len(rows), *keys, number)
        found.append(rows[order[:count]])
    if small:
        raise InputError(
            f"{name}={count or 'all'}, but {len(small)} classes of this episode have fewer images:"
            f" {listed(small)}. Lower {name}, or leave these classes out (classes)"
        )
    return np.sort(np.concatenate(found))
