"""The distance without trained weights: the same everywhere, and in the right order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lit_ssl.errors import InputError
from lit_ssl.metrics import RandomFeatureDistance
from lit_ssl.metrics.video.random_features import RandomVideoFeatures


def discs(count, seed, frames=8, size=24):
    """Discs of three colours that move evenly and bounce, uint8 [count, T, 3, H, W]."""
    rng = np.random.default_rng(seed)
    video = np.full((count, frames, 3, size, size), 40, dtype=np.uint8)
    rows, columns = np.mgrid[:size, :size]
    for one in video:
        place, step = rng.uniform(5, size - 5, 2), rng.normal(size=2) * 1.5
        colour, radius = rng.integers(3), rng.uniform(3, 5)
        for frame in one:
            y, x = np.abs((place % (2 * size)) - size)
            frame[colour][(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = 230
            place = place + step
    return torch.from_numpy(video)


@pytest.fixture(scope="module")
def real():
    return discs(160, 0)


def distance(real, fake, **options):
    metric = RandomFeatureDistance(32, **options)
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return metric.compute().item()


def test_worse_videos_are_farther_away(real):
    other = discs(160, 1)
    frames = other.flatten(0, 1).float()
    blurred = F.avg_pool2d(frames, 5, 1, 2).byte().view_as(other)
    found = {
        "same kind": distance(real, other),
        "blurred": distance(real, blurred),
        "frozen": distance(real, other[:, :1].expand_as(other)),
        "shuffled": distance(real, other[:, [3, 0, 6, 1, 7, 4, 2, 5]]),
        "three videos": distance(real, other[:3].repeat(54, 1, 1, 1, 1)[:160]),
        "noise": distance(real, torch.randint(256, other.shape).byte()),
    }
    assert found["same kind"] == min(found.values())
    assert found["noise"] == max(found.values())
    for name in ("blurred", "frozen", "shuffled", "three videos"):
        assert found[name] > 1.5 * found["same kind"], name
    assert abs(distance(real, real.flip(0))) < 1e-9


def test_weights_hang_on_the_seed_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    network = RandomVideoFeatures(7, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert not list(network.parameters())
    # of any release, on any machine
    assert network.projection.shape == (7, 512)
    expected = torch.tensor(PROJECTION)
    torch.testing.assert_close(network.projection[0, :4], expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        network(torch.arange(96).byte().view(1, 3, 2, 4, 4))[0, :4],
        torch.tensor(FEATURES), rtol=1e-3, atol=1e-4,
    )  # fmt: skip
    weights = torch.cat(
        [buffer.flatten() * buffer[0].numel() ** 0.5 for buffer in network.buffers()]
    )
    assert abs(weights.mean().item()) < 0.1
    other = RandomVideoFeatures(7, seed=4)
    assert not torch.allclose(network.projection, other.projection)


PROJECTION = [0.1435782, 0.1467443, -0.3496796, 0.4031873]
FEATURES = [-0.20657, 0.29746, 0.18199, 0.29302]


@pytest.mark.parametrize("size", [(1, 1, 3), (1, 2, 1), (5, 7, 3), (3, 16, 31)])
def test_any_size_of_clips(size):
    frames, *rest = size
    video = torch.randint(256, (41, frames, 3, *rest)).byte()
    metric = RandomFeatureDistance(5)
    metric.update(video, real=True)
    metric.update(video[:1], real=False)
    for one in video[1:].split(13):
        metric.update(one, real=False)
    assert abs(metric.compute().item()) < 1e-3
    assert metric.card()["protocol"] == "random features, not FVD"
    assert metric.card()["clip_length"] == frames


def test_no_features_are_refused():
    with pytest.raises(InputError, match="num_features must be at least 1, not 0"):
        RandomFeatureDistance(0)
