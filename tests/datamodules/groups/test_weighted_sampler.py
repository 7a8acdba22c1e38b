"""Epochs drawn with replacement."""

from __future__ import annotations

import numpy as np
import pytest

from lit_ssl.datamodules import EpochSampler, WeightedEpochSampler

SIZE = 4001


def sampler(weights, *among, size=SIZE, **options):
    return WeightedEpochSampler(range(size), lambda: weights, *among, **options)


def test_frequencies_follow_the_weights():
    groups = np.searchsorted([3000, 3900, 3980], np.arange(SIZE), side="right")
    weights = 1 / np.bincount(groups)[groups]
    weights[groups == 2] = 0
    counts = np.zeros(4)
    for epoch in range(10):
        counts += np.bincount(groups[sampler(weights).order(epoch)], minlength=4)
    draws = 10 * SIZE
    assert counts.sum() == draws
    assert counts[2] == 0
    expected = draws / 3
    assert abs(counts[[0, 1, 3]] - expected).max() < 3 * np.sqrt(draws * 2 / 9)


def test_zero_weights_at_both_ends_never_come():
    weights = np.zeros(7)
    weights[3] = 1e-300
    assert set(sampler(weights, size=7).order(0).tolist()) == {3}


def test_order_depends_on_seed_and_epoch_only():
    weights = np.linspace(0, 1, SIZE)
    first = sampler(weights).order(2)
    assert (first == sampler(weights.copy()).order(2)).all()
    assert (first != sampler(weights).order(3)).any()
    assert (first != sampler(weights, seed=1).order(2)).any()


def test_draws_of_one_row_have_different_seeds():
    weights = np.zeros(50)
    weights[[4, 7]] = 1
    pairs = list(sampler(weights, size=50))
    assert {index for index, _ in pairs} == {4, 7}
    assert len({seed for _, seed in pairs}) == 50
    assert all(0 <= seed < 2**63 for _, seed in pairs)


@pytest.mark.parametrize("drop_last", [True, False])
def test_processes_share_the_draws(drop_last):
    weights = np.arange(43.0)
    whole = list(sampler(weights, size=43, drop_last=drop_last))
    shares = [list(sampler(weights, 2, rank, size=43, drop_last=drop_last)) for rank in (0, 1)]
    mixed = [pair for both in zip(*shares, strict=True) for pair in both]
    assert mixed == (whole[:42] if drop_last else [*whole, (whole[0][0], mixed[-1][1])])


def test_continues_in_the_middle():
    some = sampler(np.arange(43.0), size=43)
    whole = list(some)
    some.start_at(0, 17)
    assert list(some) == whole[17:]


def test_without_weights_it_is_an_epoch_sampler():
    assert list(sampler(None, 2, 1, 5)) == list(EpochSampler(range(SIZE), 2, 1, 5))


def test_weights_are_read_at_the_start_of_a_pass():
    now = {"weights": None}
    some = WeightedEpochSampler(range(10), lambda: now["weights"])
    running = iter(some)
    first = next(running)
    now["weights"] = np.eye(10)[3]
    assert {index for index, _ in [first, *running]} == set(range(10))
    assert some.depends_on()["sampling_weights"] == 0
    assert {index for index, _ in some} == {3}
    assert some.depends_on()["sampling_weights"] != 0
