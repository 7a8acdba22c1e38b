"""Priors over prototypes and what is said about wrong ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lit_ssl.losses.priors import (
    as_prior,
    class_count_prior,
    power_law_prior,
    read_prior,
    uniform_prior,
)


def test_power_law_equals_the_stored_one(golden):
    data = golden("msn/pmsn_prior")
    for exponent in (0.25, 1.0):
        torch.testing.assert_close(power_law_prior(16, exponent), data[f"prior_pl{exponent}"])
    torch.testing.assert_close(uniform_prior(16), data["prior_uniform"])
    assert power_law_prior(1).tolist() == [1.0]


@pytest.mark.parametrize("arguments", [(0,), (4, -0.1), (4, float("nan"))])
def test_power_law_ranges(arguments):
    with pytest.raises(ValueError, match="at least"):
        power_law_prior(*arguments)


def test_any_positive_shares_are_normalised():
    assert as_prior([1, 3]).tolist() == [0.25, 0.75]
    assert as_prior(torch.tensor([2.0, 2.0], dtype=torch.float16)).dtype == torch.float64


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ([1.0, 0.0, 2.0], r"1 of 3 are not \(number 1 is 0\)"),
        ([1.0, -2.0], r"number 1 is -2"),
        ([1.0, float("inf")], r"number 1 is inf"),
        ([[1.0, 2.0]], r"shape \[1, 2\]"),
        ([], r"shape \[0\]"),
        (["a"], "vector of positive numbers"),
    ],
)
def test_wrong_shares(shares, message):
    with pytest.raises(ValueError, match=message):
        as_prior(shares)


def test_wrong_length_says_both_numbers():
    with pytest.raises(ValueError, match=r"3 entries for 4 prototypes.*num_prototypes to 3"):
        as_prior([1, 1, 1], 4)


def test_files(tmp_path):
    np.save(tmp_path / "counts.npy", np.array([1, 3]))
    (tmp_path / "lines.txt").write_text("1\n3\n")
    (tmp_path / "row.txt").write_text("# shares\n1 3")
    for name in ("counts.npy", "lines.txt", "row.txt"):
        assert read_prior(tmp_path / name, 2).tolist() == [0.25, 0.75]


def test_wrong_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no prior at .*absent.npy"):
        read_prior(tmp_path / "absent.npy")
    with pytest.raises(ValueError, match=r"a .npy or .txt file, not from .*prior.csv"):
        read_prior(tmp_path / "prior.csv")
    (tmp_path / "words.txt").write_text("one\ntwo\n")
    with pytest.raises(ValueError, match=r"words.txt: 'one' is no number"):
        read_prior(tmp_path / "words.txt")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"objects.npy: "):
        read_prior(tmp_path / "objects.npy")
    (tmp_path / "short.txt").write_text("1\n1\n")
    with pytest.raises(ValueError, match=r"short.txt: the prior has 2 entries for 3"):
        read_prior(tmp_path / "short.txt", 3)


def test_class_counts_are_shared_by_equally_many_prototypes():
    assert class_count_prior([1, 3], 2).tolist() == [0.25, 0.75]
    assert class_count_prior([1, 3], 4).tolist() == [0.125, 0.125, 0.375, 0.375]


@pytest.mark.parametrize(("prototypes", "near"), [(40, "33 or 44"), (4, "as 11")])
def test_classes_that_do_not_divide_the_prototypes(prototypes, near):
    with pytest.raises(ValueError, match=f"shared equally by 11 classes.*{near}"):
        class_count_prior([5] * 11, prototypes)


def test_class_without_samples():
    with pytest.raises(ValueError, match="number 1 is 0"):
        class_count_prior([5, 0], 2)
