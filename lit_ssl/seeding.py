"""Random numbers that are a pure function of integers such as (seed, epoch, sample index).

A counter-based hash instead of a stateful generator: a sample's seed does not depend on who asks
for it, in which order or in which process, and the values do not change with the versions of torch
and NumPy, so that splits and resumed runs stay what they were.
"""

from __future__ import annotations

import os
from enum import IntEnum

import numpy as np

__all__ = [
    "Stream",
    "batch_seed",
    "hash_integers",
    "keyed_permutation",
    "run_seed",
    "sample_seeds",
    "uniform",
]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)


class Stream(IntEnum):
    """Keys that keep random numbers of different use apart from each other.

    Where one is among the keys, the numbers are others than without it or with another one. A
    number that is taken here must not change: splits, orders and resumed runs hang on it.
    """

    SUPPORT_CLASSES = 101  # which classes a support batch has
    SUPPORT_IMAGES = 102  # which images of them
    SUPPORT_VIEWS = 103  # the views of these
    RUN_CLASSES = 201  # batches of few classes: the order of the classes
    RUN_ORDER = 202  # and of their runs
    DRAWS = 301  # weighted epochs: the draws
    DRAW_SEEDS = 302  # and the seeds of what was drawn
    REPEATED_VIEWS = 307  # the views of samples that come several times
    LABELLED_GROUPS = 303  # which rows keep their group
    COLOUR_AGREES = 304  # coloured digits: whether the colour is that of the class
    COLOUR_RADIUS = 305  # and the two halves of its noise
    COLOUR_ANGLE = 306
    MODULE_COUNT = 401  # module dropout: how many modules a step keeps
    MODULE_CHOICE = 402  # and which, where they are drawn
    LISTOPS = 441  # ListOps: the expressions
    EPISODE_CLASSES = 501  # few-shot episodes: which classes
    EPISODE_SUPPORT = 502  # and which images are learnt from
    EPISODE_QUERY = 503  # and which are asked
    MESH_SURFACE = 701  # where the points of a mesh lie
    POINTS_CHOSEN = 702  # which points of a cloud
    POINTS_DISTORTED = 703  # and how they are distorted
    SECOND_IMAGE = 704  # the view of the second image of a pair
    TOKEN_MASKS = 801  # which tokens of a step are masked, and what stands in their place
    OVERLAPPING_COLLOCATIONS = 802  # which of those that share a word is a unit
    MIXTURE_PASS = 841  # mixtures of sources: the order of a pass over one
    MIXTURE_ORDER = 842  # and that of an epoch
    NEGATIVE_TEXTS = 861  # retrieval: which texts of other images a row is compared with
    EVALUATION_MASK = 803  # which words of a text an evaluation masks
    OTHER_IMAGE = 831  # images that texts are matched with: which, and its view
    SCENE = 851  # scenes of digits: what is in one
    SCENE_NOISE = 852  # and its noise
    SCENE_CAPTION = 853  # what is said of it
    SCENE_FOIL = 854  # and said wrongly
    SCENE_STATEMENT = 855  # statements on two scenes, and the scenes
    STATEMENT_NOISE = 856  # and their noise
    SHARD_ORDER = 871  # streamed shards: their order
    SHARD_SHUFFLE = 872  # which sample of the buffer is next
    SHARD_SET = 873  # which set of a mixture it is of
    SHARD_VIEW = 874  # and its view
    SHARD_PLACES = 881  # shards of images: which training images lie together
    CHUNK_ORDER = 882  # and in which order their chunks come in an epoch
    CHUNK_WINDOW = 883  # and when each of their images does
    VIDEO_SCORES = 931  # scores of videos: clips, halves, bootstrap draws
    RANDOM_FEATURES = 932  # and the weights of the network that nobody trained
    STANDING_STATISTICS = 921  # the noise by which BatchNorm's statistics are estimated anew
    MOVING_DIGITS = 911  # moving digits: which images, and their colours
    DIGIT_MOTION = 912  # where they start, and their velocities
    WATCHED_VIDEOS = 941  # videos that callbacks make again and again
    SAMPLED_VIDEOS = 942  # videos that the command line makes
    CLIP_START = 901  # where a clip of a video begins
    CLIP_VIEW = 902  # how it is cropped, and whether it is mirrored
    TAIL_ORDER = 0x7A11  # which class of a long tail is large


def hash_integers(*keys: int | np.ndarray) -> np.ndarray:
    """Hash a tuple of integers to 64 bits.

    The keys are absorbed one after the other by the output function of SplitMix64 (Steele, Lea and
    Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), which is a bijection.

    Args:
        keys: Integers or int64 arrays that broadcast against each other.

    Returns:
        uint64 array of the broadcast shape, at least one-dimensional.
    """
    state = np.zeros(1, dtype=np.uint64)
    for key in keys:
        absorbed = np.asarray(key, dtype=np.int64).astype(np.uint64)
        mixed = (state ^ absorbed) + _GAMMA
        mixed = (mixed ^ (mixed >> np.uint64(30))) * _MULTIPLIER_1
        mixed = (mixed ^ (mixed >> np.uint64(27))) * _MULTIPLIER_2
        state = mixed ^ (mixed >> np.uint64(31))
    return state


def run_seed(seed: int | None) -> int:
    """Return the seed of a run: the given one, or else that of ``seed_everything``, or else 0.

    Args:
        seed: What was given; None where nothing was.
    """
    return int(os.environ.get("PL_GLOBAL_SEED", 0)) if seed is None else seed


def sample_seeds(*keys: int | np.ndarray) -> np.ndarray:
    """Return seeds, one for each element of the broadcast keys.

    Args:
        keys: Integers or int64 arrays, for example (seed, epoch, indices of samples).

    Returns:
        int64 of the broadcast shape, each in [0, 2^63).
    """
    return (hash_integers(*keys) >> np.uint64(1)).astype(np.int64)


def uniform(*keys: int | np.ndarray) -> np.ndarray:
    """Return numbers in [0, 1), never 1: float64 of the broadcast shape of the keys.

    Args:
        *keys: Integers or int64 arrays, for example (seed, epoch, indices of samples).
    """
    return (hash_integers(*keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def batch_seed(seeds: np.ndarray) -> int:
    """Return one seed for a batch, which depends on all seeds of its samples and on their order.

    Args:
        seeds: int64 ``[B]``.

    Returns:
        Integer in [0, 2^63).
    """
    positions = np.arange(len(seeds), dtype=np.int64)
    combined = (
        np.bitwise_xor.reduce(hash_integers(positions, seeds)) if len(seeds) else np.uint64(0)
    )
    return int(combined >> np.uint64(1))


def keyed_permutation(size: int, *keys: int) -> np.ndarray:
    """Return a random order of ``0 ... size - 1`` that is a pure function of the keys.

    Args:
        size: Number of elements, >= 0.
        keys: Integers, for example (seed, epoch).

    Returns:
        int64 ``[size]``.
    """
    hashes = hash_integers(*keys, np.arange(size, dtype=np.int64))
    return np.argsort(hashes, kind="stable").astype(np.int64)
