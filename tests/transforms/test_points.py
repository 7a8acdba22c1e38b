"""Points: the unit sphere, a fixed number of them, random distortions."""

from __future__ import annotations

import math

import pytest
import torch

from lit_ssl.transforms.points import PointAugmentation, PointSample, sample_points, unit_sphere


@pytest.fixture
def cloud():
    return torch.randn(37, 3, generator=torch.Generator().manual_seed(3)) * 5 + 100


def test_unit_sphere(cloud):
    points = unit_sphere(cloud)
    assert points.dtype == torch.float32
    torch.testing.assert_close(points.mean(0), torch.zeros(3), atol=1e-6, rtol=0)
    assert points.norm(dim=1).max().item() == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(unit_sphere(cloud * 1000 - 7), points, atol=1e-4, rtol=0)


@pytest.mark.parametrize("count", [1, 4])
def test_one_place_is_the_origin_and_not_nan(count):
    assert unit_sphere(torch.full((count, 3), 0.1)).tolist() == [[0.0] * 3] * count
    assert unit_sphere(torch.zeros(count, 3)).tolist() == [[0.0] * 3] * count


def test_enough_points_come_once(cloud):
    chosen = sample_points(cloud, 36, seed=0)
    assert len({tuple(point) for point in chosen.tolist()}) == 36
    assert torch.equal(chosen, sample_points(cloud, 36, seed=0))
    assert not torch.equal(chosen, sample_points(cloud, 36, seed=1))


def test_too_few_points_all_come_about_equally_often(cloud):
    chosen = sample_points(cloud, 100, seed=0)
    counts = torch.unique(chosen, dim=0, return_counts=True)[1]
    assert len(counts) == 37
    assert set(counts.tolist()) == {2, 3}


def test_points_lie_in_the_same_place_whichever_are_chosen(cloud):
    whole = {tuple(point) for point in unit_sphere(cloud).tolist()}
    for seed in range(3):
        assert {tuple(point) for point in PointSample(5)(cloud, seed).tolist()} < whole


def test_scale_and_shift_stay_in_range_and_are_those_of_the_seed():
    cube = torch.tensor([[0.0, 0, 0], [1, 1, 1]])
    seen = [PointAugmentation()(cube, seed) for seed in range(200)]
    shifts = torch.stack([points[0] for points in seen])
    factors = torch.stack([points[1] - points[0] for points in seen])
    assert shifts.abs().max() <= 0.2
    assert shifts.min() < -0.17
    assert shifts.max() > 0.17
    assert 2 / 3 - 1e-6 <= factors.min() < 0.72
    assert 1.44 < factors.max() <= 1.5 + 1e-6
    assert (factors.std(dim=1) > 0.01).float().mean() > 0.9  # each axis by itself
    assert torch.equal(PointAugmentation()(cube, 7), seen[7])


@pytest.mark.parametrize("up", [0, 1, 2])
def test_rotation_about_the_axis_that_is_up(cloud, up):
    turn = PointAugmentation(scale=(1, 1), shift=0, rotate=True)
    angles = []
    for seed in range(50):
        turned = turn(cloud, seed, up_axis=up)
        torch.testing.assert_close(turned[:, up], cloud[:, up])
        torch.testing.assert_close(turned.norm(dim=1), cloud.norm(dim=1))
        first, second = (axis for axis in range(3) if axis != up)
        corner = turn(torch.eye(3), seed, up_axis=up)[first]
        assert torch.linalg.det(turn(torch.eye(3), seed, up_axis=up)) == pytest.approx(1, abs=1e-5)
        angles.append(math.atan2(corner[second], corner[first]))
    assert min(angles) < -2.8
    assert max(angles) > 2.8
    with pytest.raises(ValueError, match="which axis is up: leave out rotate"):
        turn(cloud, 0)


def test_nothing_on_leaves_points_as_they_are(cloud):
    assert torch.equal(PointAugmentation(scale=(1, 1), shift=0)(cloud, 5), cloud)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": (2, 1)}, "scale must be a pair"),
        ({"scale": (0, 1)}, "scale must be a pair"),
        ({"scale": 2}, "scale must be a pair"),
        ({"scale": (1, math.inf)}, "scale must be a pair"),
        ({"shift": -0.1}, "shift must be >= 0"),
        ({"shift": math.nan}, "shift must be >= 0"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        PointAugmentation(**options)
