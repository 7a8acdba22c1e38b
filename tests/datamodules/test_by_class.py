"""Choices by class in one sort are those of looking for each class among all rows."""

from __future__ import annotations

import numpy as np
import pytest

from lit_ssl.datamodules.selection.by_class import rows_by_class
from lit_ssl.datamodules.selection.stratified_split import (
    choose_per_class,
    others,
    stratified_split,
)
from lit_ssl.seeding import keyed_permutation


@pytest.mark.parametrize("shift", [-1, 0, 2**40])  # unknown ones, few classes, large numbers
def test_rows_are_grouped_in_their_order(shift):
    labels = np.random.default_rng(0).integers(0, 30, 500) ** 2 + shift
    order, classes, sizes = rows_by_class(labels)
    names, counts = np.unique(labels, return_counts=True)
    assert np.array_equal(classes, names)
    assert np.array_equal(sizes, counts)
    for name, part in zip(names, np.split(order, np.cumsum(sizes)[:-1]), strict=True):
        assert np.array_equal(part, np.flatnonzero(labels == name))


def test_no_rows_have_no_classes():
    empty = np.empty(0, dtype=np.int64)
    assert [len(part) for part in rows_by_class(empty)] == [0, 0, 0]
    assert choose_per_class(empty, lambda _: 3, 0).tolist() == []


@pytest.mark.parametrize("seed", [0, 5])
def test_the_first_of_each_class_in_a_random_order_are_chosen(seed):
    labels = np.random.default_rng(seed).integers(-1, 12, 400)
    order = keyed_permutation(len(labels), seed)
    shuffled = labels[order]
    expected = [order[shuffled == name][: 7 * abs(int(name)) % 50] for name in range(-1, 12)]
    chosen = choose_per_class(labels, lambda name: 7 * abs(name) % 50, seed)
    assert np.array_equal(chosen, np.sort(np.concatenate(expected)))


def test_a_split_has_each_row_once():
    labels = np.arange(100) % 3
    rest, held_out = stratified_split(labels, 31, 0)
    assert np.array_equal(np.sort(np.concatenate([rest, held_out])), np.arange(100))
    assert len(held_out) == 31
    assert np.array_equal(rest, others(100, held_out))
