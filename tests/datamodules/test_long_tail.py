"""Long-tailed subsets: the formulas, what they leave alone, and the YAML way."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from lit_ssl.__main__ import main
from lit_ssl.datamodules import MNIST5kDataModule, Subset
from lit_ssl.datamodules.reading.images import FileImages
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.long_tail import long_tail_counts

BALANCED = np.tile(np.arange(10), 5000)


def counts(labels=BALANCED, **arguments):
    chosen = long_tail_counts(labels, **arguments)
    assert list(chosen) == np.unique(labels).tolist()
    return list(chosen.values())


def choose(labels, **arguments):
    images = Rows(FileImages("train", [f"{i}.png" for i in range(len(labels))]), {"label": labels})
    chosen = Subset(**arguments).select(images, np.arange(len(labels)), lambda c: f"class {c}")
    return chosen, labels[chosen]


def test_exponential():
    # the usual long-tailed CIFAR-10 with imbalance factor 100
    assert counts(factor=100) == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert counts(factor=1) == [5000] * 10


def test_power_law():
    assert counts(exponent=1)[:4] == [5000, 2500, 1666, 1250]
    expected = np.floor(5000 * np.arange(1.0, 11) ** -1.2 + 1e-9).astype(int)
    assert counts(exponent=1.2) == expected.tolist()
    assert counts(exponent=0) == [5000] * 10


def test_one_class_and_gaps_in_the_labels():
    assert counts(np.full(7, 3), factor=10) == [7]
    assert counts(np.repeat([2, 5], 100), factor=10) == [100, 10]


def test_classes_of_different_size_keep_the_shape():
    labels = np.repeat([0, 1, 2], [50, 40, 3])
    chosen = counts(labels, factor=4)  # 1, 1/2, 1/4: the last class allows 12, 6, 3
    assert chosen == [12, 6, 3]


def test_minimum_per_class():
    assert counts(factor=1000, min_per_class=20)[-3:] == [23, 20, 20]
    small = np.repeat([0, 1], [50, 3])
    with pytest.raises(ValueError, match=r"min_per_class=4, but 1 classes .*example b \(3\)"):
        long_tail_counts(small, factor=2, min_per_class=4, class_name="ab".__getitem__)


def test_permuted_classes():
    straight, first, second = (counts(factor=100, permutation_seed=seed) for seed in (None, 0, 1))
    assert sorted(straight) == sorted(first) == sorted(second)
    assert len({tuple(straight), tuple(first), tuple(second)}) == 3
    assert counts(factor=100, permutation_seed=0) == first


def test_unlabelled_images_are_refused():
    with pytest.raises(ValueError, match="2 of 3 have no label"):
        long_tail_counts(np.array([-1, -1, 0]), factor=2)


def test_subset_draws_by_seed():
    labels = np.tile(np.arange(4), 100)
    first, found = choose(labels, exponential=8, seed=0)
    assert np.bincount(found).tolist() == [100, 50, 25, 12]
    assert (np.diff(first) > 0).all()
    assert choose(labels, exponential=8)[0].tolist() == first.tolist()
    assert choose(labels, exponential=8, seed=1)[0].tolist() != first.tolist()
    _, permuted = choose(labels, power_law=1.0, permute_classes=True, seed=3, min_per_class=30)
    assert sorted(np.bincount(permuted)) == [30, 33, 50, 100]


def test_training_images_only():
    data = MNIST5kDataModule(subset=Subset(power_law=1.0))
    assert np.bincount(data.labels("train"))[[0, 1, 9]].tolist() == [350, 175, 35]
    assert np.bincount(data.labels("val")).tolist() == [50] * 10
    assert np.bincount(data.labels("test")).tolist() == [100] * 10


@pytest.mark.parametrize("entry", ["{power_law: 1, min_per_class: 50}", "{exponential: 7}"])
def test_on_the_command_line(entry, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["fit", "--config=msn/mnist5k.yaml", f"--data.subset={entry}", "--print_config"]
    monkeypatch.setattr(sys, "argv", ["lit-ssl", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    shown = capsys.readouterr()
    assert stop.value.code == 0, shown.err
    assert entry.split(":")[0][1:] in shown.out
