from __future__ import annotations

import numpy as np
import pytest

from lit_ssl.datamodules import EpochSampler, ShardSampler
from lit_ssl.seeding import (
    batch_seed,
    hash_integers,
    keyed_permutation,
    sample_seeds,
)


def indices(sampler):
    return [index for index, _ in sampler]


def test_hash_is_fixed_for_ever():
    # Splits and resumed runs rest on these values: they must never change.
    assert hash_integers(0).tolist() == [
        16294208416658607535
    ]  # SplitMix64 with seed 0, first output
    assert keyed_permutation(8, 0, 1).tolist() == [3, 0, 1, 5, 2, 7, 4, 6]
    assert hash_integers(1, 2).tolist() != hash_integers(2, 1).tolist()


def test_hash_broadcasts_and_takes_negative_keys():
    pairs = hash_integers(-3, np.arange(5))
    assert pairs.tolist() == [int(hash_integers(-3, index)[0]) for index in range(5)]


def test_sample_seeds_differ_and_fit_a_generator():
    seeds = np.concatenate([sample_seeds(0, epoch, np.arange(10_000)) for epoch in range(5)])
    assert len(np.unique(seeds)) == len(seeds)
    assert seeds.min() >= 0


def test_sample_seeds_look_uniform():
    seeds = sample_seeds(7, 3, np.arange(20_000))
    share = (seeds / 2.0**63 < 0.25).mean()
    assert abs(share - 0.25) < 0.015
    odd = (seeds & 1).mean()
    assert abs(odd - 0.5) < 0.015


def test_batch_seed_depends_on_each_sample_and_on_the_order():
    seeds = sample_seeds(0, 0, np.arange(4))
    changed = seeds.copy()
    changed[2] += 1
    assert len({batch_seed(seeds), batch_seed(changed), batch_seed(seeds[::-1])}) == 3
    assert batch_seed(np.array([5, 5])) != batch_seed(np.array([6, 6]))


def test_permutation_is_a_uniform_permutation():
    first = [keyed_permutation(5, seed)[0] for seed in range(2000)]
    assert sorted(keyed_permutation(1000, 3).tolist()) == list(range(1000))
    assert np.bincount(first, minlength=5).min() > 320  # 400 expected, standard deviation 18


def test_order_is_a_function_of_seed_and_epoch():
    sampler = EpochSampler(range(50), seed=1)
    first = list(sampler)
    assert list(sampler) == first
    sampler.set_epoch(1)
    second = list(sampler)
    assert sorted(index for index, _ in second) == list(range(50))
    assert [index for index, _ in second] != [index for index, _ in first]
    assert not {seed for _, seed in first} & {seed for _, seed in second}
    sampler.set_epoch(0)
    assert list(sampler) == first


def test_processes_share_an_epoch():
    shards = [indices(EpochSampler(range(10), 4, rank, drop_last=True)) for rank in range(4)]
    assert [len(shard) for shard in shards] == [2] * 4
    assert len({index for shard in shards for index in shard}) == 8
    padded = [indices(EpochSampler(range(10), 4, rank, drop_last=False)) for rank in range(4)]
    assert [len(shard) for shard in padded] == [3] * 4
    assert {index for shard in padded for index in shard} == set(range(10))


def test_start_holds_for_one_pass():
    sampler = EpochSampler(range(20), 2, 1)
    whole = list(sampler)
    sampler.start_at(epoch=0, sample=4)
    assert list(sampler) == whole[4:]
    assert list(sampler) == whole
    sampler.start_at(epoch=3, sample=0)
    other = list(sampler)
    sampler.set_epoch(3)
    assert list(sampler) == other


def test_long_epochs_come_in_pieces():
    sampler = EpochSampler(range(20_001), drop_last=False)
    assert sorted(indices(sampler)) == list(range(20_001))


@pytest.mark.parametrize("size", [0, 1, 2, 7, 9])
def test_shards_hold_each_sample_once(size):
    shards = [ShardSampler(range(size), 3, rank) for rank in range(3)]
    assert sorted(index for shard in shards for index in shard) == list(range(size))
    assert [len(shard) for shard in shards] == [len(list(shard)) for shard in shards]
