"""Random numbers that are a pure function of integers such as (seed, epoch, sample index).

A counter-based hash instead of a stateful generator: a sample's seed does not depend on who asks
for it, in which order or in which process, and the values do not change with the versions of torch
and NumPy, so that splits and resumed runs stay what they were.
"""

from __future__ import annotations

import numpy as np

__all__ = ["batch_seed", "hash_integers", "keyed_permutation", "sample_seeds"]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)


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


def sample_seeds(seed: int, epoch: int, indices: np.ndarray) -> np.ndarray:
    """Return one seed per sample for one epoch.

    Args:
        seed: Seed of the run.
        epoch: Epoch, >= 0.
        indices: int64 `[N]`, indices of the samples in their data set.

    Returns:
        int64 `[N]`, each in [0, 2^63).
    """
    return (hash_integers(seed, epoch, indices) >> np.uint64(1)).astype(np.int64)


def batch_seed(seeds: np.ndarray) -> int:
    """Return one seed for a batch, which depends on all seeds of its samples and on their order.

    Args:
        seeds: int64 `[B]`.

    Returns:
        Integer in [0, 2^63).
    """
    positions = np.arange(len(seeds), dtype=np.int64)
    combined = (
        np.bitwise_xor.reduce(hash_integers(positions, seeds)) if len(seeds) else np.uint64(0)
    )
    return int(combined >> np.uint64(1))


def keyed_permutation(size: int, *keys: int) -> np.ndarray:
    """Return a random order of `0 ... size - 1` that is a pure function of the keys.

    Args:
        size: Number of elements, >= 0.
        keys: Integers, for example (seed, epoch).

    Returns:
        int64 `[size]`.
    """
    hashes = hash_integers(*keys, np.arange(size, dtype=np.int64))
    return np.argsort(hashes, kind="stable").astype(np.int64)
