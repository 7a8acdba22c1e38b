from __future__ import annotations

import math

import pytest
import torch

from lit_ssl.metrics import (
    FeatureSums,
    assignment_entropy,
    feature_std,
    feature_std_from_sums,
    rankme,
    rankme_from_gram,
    used_prototypes,
)


def orthonormal(rows, columns, seed=0):
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    return torch.linalg.qr(matrix.double()).Q


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_rank_of_equal_singular_values_is_their_number(rank):
    features = orthonormal(64, rank) @ orthonormal(32, rank, seed=1).T
    assert rankme(features).item() == pytest.approx(rank, rel=1e-3)
    assert rankme(features, eps=0.0).item() == pytest.approx(rank, rel=1e-6)


def test_small_eps_does_not_inflate_low_ranks_of_wide_features():
    features = orthonormal(1100, 8) @ orthonormal(1024, 8, seed=1).T
    assert rankme(features).item() == pytest.approx(8.01, abs=0.01)
    assert rankme(features, eps=1e-5).item() > 8.8  # what a careless eps does


def test_rank_follows_the_formula_for_unequal_values():
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    features = orthonormal(10, 3) * p
    expected = math.exp(-sum(v * math.log(v) for v in p.tolist()))
    assert rankme(features, eps=0.0).item() == pytest.approx(expected, rel=1e-9)


def test_degenerate_features_do_not_give_nan():
    assert rankme(torch.zeros(4, 3)).item() == 0
    assert rankme(torch.ones(4, 3)).item() == pytest.approx(1, abs=1e-4)
    assert rankme(torch.tensor([[1.0, math.inf]])).isnan()
    with pytest.raises(ValueError, match=r"got \[0, 3\]"):
        rankme(torch.zeros(0, 3))


def test_feature_std_spans_collapse_to_uniform():
    spread = torch.randn(4000, 64, generator=torch.Generator().manual_seed(0))
    assert feature_std(spread).item() == pytest.approx(1, abs=0.02)
    assert feature_std(spread * 100).item() == pytest.approx(1, abs=0.02)
    assert feature_std(torch.ones(5, 64)).item() == pytest.approx(0, abs=1e-6)
    assert 0 < feature_std(spread + 10).item() < 0.2


def test_used_prototypes_and_entropy():
    assignments = torch.tensor([[0.7, 0.2, 0.1, 0.0], [0.1, 0.0, 0.9, 0.0], [0.6, 0.4, 0.0, 0.0]])
    assert used_prototypes(assignments).item() == 2
    assert assignment_entropy(torch.full((8,), 1 / 8)).item() == pytest.approx(math.log(8))
    assert assignment_entropy(torch.tensor([1.0, 0.0])).item() == 0


@pytest.mark.parametrize("rank", [1, 2, 5])
@pytest.mark.parametrize("noise", [0.0, 1e-6, 1e-5, 1e-4, 1e-3])
def test_gram_matrix_shows_collapsed_spectra_as_singular_values_do(rank, noise):
    generator = torch.Generator().manual_seed(rank)
    spread = torch.randn(512, rank, generator=generator) @ torch.randn(
        rank, 64, generator=generator
    )
    features = spread + noise * torch.randn(512, 64, generator=generator)
    sums = FeatureSums.of(features)
    found = rankme_from_gram(sums.gram, sums.rows).item()
    assert found == pytest.approx(rankme(features).item(), rel=1e-7 if noise else 1e-5)
    spread_found = feature_std_from_sums(sums).item()
    assert spread_found == pytest.approx(feature_std(features).item(), rel=1e-5, abs=1e-6)


def test_gram_matrix_counts_no_more_singular_values_than_rows():
    features = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    sums = FeatureSums.of(features)
    assert rankme_from_gram(sums.gram, 5, eps=1e-3).item() == pytest.approx(
        rankme(features, eps=1e-3).item(), rel=1e-6
    )


def test_sums_of_parts_add_up_to_those_of_all_rows():
    features = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    flat = FeatureSums.of(features[:13]).flat() + FeatureSums.of(features[13:]).flat()
    together = FeatureSums.from_flat(flat, 4)
    torch.testing.assert_close(together.gram, features.double().T @ features.double())
    assert together.rows == 20
    assert feature_std_from_sums(together).item() == pytest.approx(feature_std(features).item())


def test_gram_matrices_that_tell_nothing():
    zeros = FeatureSums.of(torch.zeros(4, 3))
    assert rankme_from_gram(zeros.gram, zeros.rows).item() == 0
    same = FeatureSums.of(torch.ones(4, 3))
    assert feature_std_from_sums(same).item() == pytest.approx(0, abs=1e-6)
    bad = FeatureSums.of(torch.tensor([[1.0, math.inf], [1.0, 1.0]]))
    assert rankme_from_gram(bad.gram, bad.rows).isnan()
    assert feature_std_from_sums(bad).isnan()
    with pytest.raises(ValueError, match=r"float64 matrix, got torch.float32"):
        rankme_from_gram(torch.eye(3), 3)
    with pytest.raises(ValueError, match=r"matrix \[D, D\], got \[3, 2\]"):
        rankme_from_gram(torch.zeros(3, 2, dtype=torch.float64), 3)
