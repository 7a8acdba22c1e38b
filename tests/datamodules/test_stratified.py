"""Class-stratified support batches: what the reference's have in common with ours."""

from __future__ import annotations

import numpy as np
import pytest

from lit_ssl.datamodules import ClassStratifiedSampler
from lit_ssl.datamodules.loading import stratified
from lit_ssl.seeding import Stream, hash_integers, keyed_permutation


def batches(sampler):
    """Positions of each batch of this process, `[steps, rows]`."""
    return np.array([p for p, _ in sampler]).reshape(-1, sampler.batch_size)


def make(labels, world=1, rank=0, **kwargs):
    options = {"images_per_class": 3, "num_batches": 6, "num_replicas": world, "rank": rank}
    return ClassStratifiedSampler(np.asarray(labels), **{**options, **kwargs})


def check_batch(labels, batch, classes, images):
    """One image of each class after the other, `images` times, all different."""
    rows = labels[batch].reshape(images, classes)
    assert len(set(rows[0])) == classes
    assert (rows == rows[0]).all()
    assert len(set(batch)) == len(batch)


@pytest.mark.parametrize(
    ("case", "world", "classes", "images", "unique"),
    [
        ("single", 1, 4, 3, False),
        ("w2_shared", 2, 3, 4, False),  # the reference counts per process: 2 images on each
        ("w2_unique", 2, 6, 2, True),  # and 3 classes on each
    ],
)
def test_properties_hold_for_the_reference_and_for_us(golden, case, world, classes, images, unique):
    data = golden(f"paws/sampler_{case}")
    labels = data["labels"].numpy().astype(np.int64)
    share = (classes // world, images) if unique else (classes, images // world)
    for epoch in range(2):
        theirs = [data[f"rank{rank}_epoch{epoch}"].numpy() for rank in range(world)]
        ours = []
        for rank in range(world):
            sampler = make(
                labels, world, rank, images_per_class=images, classes_per_batch=classes,
                num_batches=len(theirs[0]), unique_classes_per_rank=unique,
            )  # fmt: skip
            sampler.set_epoch(epoch)
            ours.append(batches(sampler))
        assert ours[0].shape == theirs[0].shape
        for ranks in (theirs, ours):
            for step in zip(*ranks, strict=True):
                for batch in step:
                    check_batch(labels, batch, *share)
                together = np.concatenate(step)
                assert len(set(together)) == len(together)  # no image on two processes
                seen = [tuple(labels[batch][: share[0]]) for batch in step]
                if world > 1 and not unique:
                    assert seen[0] == seen[1]  # the same classes in the same order
                if world > 1 and unique:
                    assert not set(seen[0]) & set(seen[1])


def test_every_class_comes_once_in_a_round():
    labels = np.arange(60) % 6
    sampler = make(labels, classes_per_batch=2, num_batches=9)
    drawn = labels[batches(sampler)][:, :2].reshape(3, 6)
    assert (np.sort(drawn) == np.arange(6)).all()
    assert len({tuple(round_) for round_ in drawn.tolist()}) > 1
    # Where the classes do not divide evenly, all get their turn over the rounds.
    odd = labels[batches(make(labels, classes_per_batch=4, num_batches=40))]
    counts = np.bincount(odd.ravel(), minlength=6)
    assert counts.min() > 0.7 * counts.mean()


def test_processes_together_have_the_batch_of_one():
    labels = np.arange(60) % 6
    whole = batches(make(labels, classes_per_batch=4, images_per_class=6))
    for world in (2, 3):
        for unique in (False, True):
            if unique and 4 % world:
                continue
            parts = [
                batches(
                    make(labels, world, rank, classes_per_batch=4, images_per_class=6,
                         unique_classes_per_rank=unique)
                )
                for rank in range(world)
            ]  # fmt: skip
            assert np.array_equal(np.sort(np.concatenate(parts, axis=1)), np.sort(whole))


def test_a_batch_is_a_function_of_seed_epoch_and_step():
    labels = np.arange(40) % 4
    sampler = make(labels)
    first = list(sampler)
    assert list(sampler) == first
    rows = sampler.batch_size
    sampler.start_at(epoch=0, sample=2 * rows + 5)
    assert list(sampler) == first[2 * rows + 5 :]
    sampler.set_epoch(1)
    assert [p for p, _ in sampler] != [p for p, _ in first]
    assert list(make(labels, seed=1)) != first
    assert len(sampler) == 6 * rows
    assert len({seed for _, seed in first}) == len(first)  # views of their own in each step


def test_images_are_drawn_evenly():
    labels = np.zeros(10, dtype=np.int64)
    counts = np.bincount(batches(make(labels, num_batches=1000)).ravel(), minlength=10)
    assert counts.min() > 220  # 300 expected, standard deviation 14


def test_small_classes_repeat_their_images_in_other_views():
    labels = np.array([0] * 9 + [1] * 2 + [2])
    with pytest.warns(UserWarning, match="2 of 3 classes have fewer labelled images than .* = 5"):
        sampler = make(labels, images_per_class=5)
    positions, seeds = sampler.draw(0, 0)
    assert np.bincount(labels[positions]).tolist() == [5, 5, 5]
    assert sorted(np.bincount(positions, minlength=12)[9:].tolist()) == [2, 3, 5]
    assert len(set(positions[labels[positions] == 0])) == 5
    assert len(set(seeds)) == 15


def test_positions_are_yielded_in_place_of_indices():
    labels = np.array([0, 0, 1, 1])
    sampler = make(labels, images_per_class=2, positions=np.array([10, 20, 30, 40]))
    assert set(batches(sampler).ravel()) == {10, 20, 30, 40}


def test_wrong_arguments_are_named():
    labels = np.arange(12) % 3
    with pytest.raises(ValueError, match=r"classes_per_batch is 4, but .* of 3 classes"):
        make(labels, classes_per_batch=4)
    with pytest.raises(ValueError, match="1 of the 2 have none"):
        make([0, -1])
    with pytest.raises(ValueError, match="need labels, but no training image has one"):
        make([])
    with pytest.raises(ValueError, match="images_per_class and num_batches must be at least 1"):
        make(labels, images_per_class=0)
    with pytest.raises(ValueError, match=r"images_per_class is 3, .* over 2 processes.*: true"):
        make(labels, world=2)
    with pytest.raises(ValueError, match=r"classes_per_batch is 3, .* over 2 processes.*: false"):
        make(labels, world=2, unique_classes_per_rank=True)


def drawn_by_sorting(sampler, labels, epoch, step):
    """What a batch has by definition: of each class the images with the smallest keys, in turn."""
    turns, turn = divmod(step, len(sampler.classes) // sampler.classes_per_batch)
    order = keyed_permutation(
        len(sampler.classes), sampler.seed, Stream.SUPPORT_CLASSES, epoch, turns
    )
    chosen = order[turn * sampler.classes_per_batch :][: sampler.classes_per_batch]
    columns = []
    for name in sampler.classes[chosen]:
        images = np.flatnonzero(labels == name)
        keys = hash_integers(sampler.seed, Stream.SUPPORT_IMAGES, epoch, step, images)
        columns.append(np.resize(images[np.argsort(keys)], sampler.images_per_class))
    return np.stack(columns, axis=1).ravel()


@pytest.mark.parametrize("limits", ["usual", "too low"])
@pytest.mark.parametrize("images", [1, 5, 40])
@pytest.mark.filterwarnings("ignore:.*fewer labelled images:UserWarning")
def test_the_images_are_those_with_the_smallest_keys_of_their_class(images, limits, monkeypatch):
    generator = np.random.default_rng(images)
    labels = np.concatenate([np.repeat(np.arange(6), (1, 4, 60, 700, 5, 3000))] * 2)
    generator.shuffle(labels)
    monkeypatch.setattr(stratified, "_PIECE", 500)  # classes lie in several pieces
    if limits == "too low":
        monkeypatch.setattr(
            stratified, "_limits", lambda sizes, wanted: np.full(len(sizes), 2**59, dtype=np.uint64)
        )
    sampler = make(labels, images_per_class=images, classes_per_batch=4, seed=7)
    for epoch, step in [(0, 0), (0, 3), (2, 1)]:
        expected = drawn_by_sorting(sampler, labels, epoch, step)
        assert np.array_equal(sampler.draw(epoch, step)[0], expected)


def test_a_large_class_is_not_sorted(monkeypatch):
    sorted_at_once = []
    lexsort = np.lexsort
    monkeypatch.setattr(
        stratified.np, "lexsort", lambda keys: sorted_at_once.append(len(keys[0])) or lexsort(keys)
    )
    make(np.arange(100_000) % 10).draw(0, 0)
    assert sum(sorted_at_once) < 1000
