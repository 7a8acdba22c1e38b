"""Fréchet and kernel distance of feature rows: values of released code, and what must hold."""

from __future__ import annotations

import pytest
import torch

from lit_ssl.errors import InputError
from lit_ssl.metrics import frechet_distance, frechet_distance_from_features, polynomial_mmd
from lit_ssl.metrics.video.frechet import feature_moments

CASES = [f"c{i}" for i in range(6)]
DEFICIENT = ("c2", "c5")  # fewer rows than columns, constant columns


@pytest.fixture
def rows(golden):
    values = golden("video_frechet")
    return lambda case: (values[f"{case}_real"], values[f"{case}_fake"], values)


@pytest.mark.parametrize("case", CASES)
def test_frechet_distance_as_in_stylegan_v(rows, case):
    real, fake, values = rows(case)
    found = frechet_distance_from_features(real, fake)
    assert found.dtype == torch.float64
    close = {"rel": 1e-6, "abs": 1e-5 if case in DEFICIENT else 1e-9}
    assert found.item() == pytest.approx(values[f"{case}_fd_biased_sgv"].item(), **close)
    assert found.item() == pytest.approx(values[f"{case}_fd_biased_eigh"].item(), **close)


@pytest.mark.parametrize("case", CASES)
def test_frechet_distance_as_in_tats(rows, case):
    real, fake, values = rows(case)
    found = frechet_distance_from_features(real, fake, unbiased=True).item()
    assert found == pytest.approx(values[f"{case}_fd_unbiased_tats64"].item(), rel=1e-9, abs=1e-10)
    close = {"rel": 1e-6, "abs": 1e-5}
    assert found == pytest.approx(values[f"{case}_fd_unbiased_eigh"].item(), **close)
    # in float32 the released code is off by more, by at most 0.02 here
    assert found == pytest.approx(values[f"{case}_fd_unbiased_tats32"].item(), abs=0.02)


@pytest.mark.parametrize("case", CASES)
def test_kernel_distance_as_in_tats(rows, case):
    real, fake, values = rows(case)
    found = polynomial_mmd(real, fake)
    assert found.dtype == torch.float64
    # the released code adds up float32: its last digits are of the kernel's size
    scale = ((real.double() @ fake.double().T / real.shape[1] + 1) ** 3).abs().mean().item()
    expected = values[f"{case}_kvd_tats"].item()
    assert found.item() == pytest.approx(expected, rel=1e-4, abs=1e-6 * scale)


def test_kernel_distance_by_hand():
    a, b = torch.tensor([[1.0, 0], [0, 1]]), torch.tensor([[2.0, 0], [0, 0]])
    # within a: k = 1; within b: 1; between: (2 * 0.5 + 1)^3 = 8, then 1, 1, 1
    assert polynomial_mmd(a, b).item() == pytest.approx(1 + 1 - 2 * 11 / 4)


@pytest.mark.parametrize("shape", [(40, 96), (100, 400), (500, 20)])
def test_a_set_has_no_distance_from_itself(shape):
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(1)) * 3 + 50
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(2))
    assert abs(frechet_distance_from_features(rows, rows[order]).item()) < 1e-9
    assert frechet_distance_from_features(rows, rows + 2).item() == pytest.approx(4 * shape[1])


def test_distance_of_diagonal_covariances_is_by_hand():
    s1, s2 = torch.tensor([4.0, 1.0, 0.0]).diag(), torch.tensor([1.0, 9.0, 4.0]).diag()
    found = frechet_distance(torch.zeros(3), s1, torch.tensor([3.0, 0, 0]), s2)
    assert found.item() == pytest.approx(9 + 1 + 4 + 4)
    assert frechet_distance(torch.zeros(3), 0 * s1, torch.zeros(3), 0 * s2).item() == 0


def test_moments_count_rows_as_often_as_they_weigh(rows):
    real, _, _ = rows("c1")
    weights = torch.arange(len(real)) % 4
    for unbiased in (False, True):
        weighted = feature_moments(real, unbiased, weights)
        repeated = feature_moments(real.repeat_interleave(weights, dim=0), unbiased)
        for a, b in zip(weighted, repeated, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("distance", [frechet_distance_from_features, polynomial_mmd])
def test_mistakes(distance):
    with pytest.raises(InputError, match="at least 2 rows"):
        distance(torch.rand(1, 3), torch.rand(4, 3))
    with pytest.raises(InputError, match="needs"):
        distance(torch.rand(4, 3), torch.rand(4, 5))
    with pytest.raises(InputError, match="NaN or infinite"):
        distance(torch.rand(4, 3), torch.full((4, 3), torch.nan))
