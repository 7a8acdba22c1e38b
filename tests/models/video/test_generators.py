"""What a frame of a generated video depends on: its class and noise, and which other frames."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lit_ssl.errors import InputError
from lit_ssl.models import ConditionalBatchNorm2d, DVDGenerator, UpsamplingGenerator
from lit_ssl.models.video.standing_statistics import standing_statistics

SMALL = {"z_dim": 5, "embed_dim": 4, "num_classes": 3}


@pytest.fixture(scope="module")
def first():
    """With statistics of its own batches, so that nothing saturates."""
    torch.manual_seed(3)
    g = DVDGenerator(3, (16, 24), channels=2, **SMALL)
    return measured(g, lambda: g(torch.randn(4, 5), torch.tensor([0, 1, 2, 0])))


@pytest.fixture(scope="module")
def upper():
    torch.manual_seed(3)
    g = UpsamplingGenerator(channels=2, channel_multipliers=(4, 2, 2), **SMALL)
    return measured(
        g, lambda: g(torch.randn(4, 5), torch.tensor([0, 1, 2, 0]), torch.randn(4, 5, 3, 4, 3))
    )


def measured(g, sample):
    for norm in g.modules():  # gains and shifts that matter
        if isinstance(norm, ConditionalBatchNorm2d):
            nn.init.normal_(norm.gain.weight, std=0.3)
            nn.init.normal_(norm.shift.weight, std=0.3)
    with torch.no_grad():
        for _ in range(10):
            sample()
    standing_statistics(g, lambda _: sample(), 4)
    return g


def forward(g, z, y, condition, **more):
    with torch.no_grad():
        return g(z, y, **more) if isinstance(g, DVDGenerator) else g(z, y, condition, **more)


@pytest.mark.parametrize("which", ["first", "upper"])
def test_a_video_depends_on_its_own_label_and_noise_only(which, request):
    g = request.getfixturevalue(which)
    z, y, c = torch.randn(3, 5), torch.tensor([0, 1, 2]), torch.randn(3, 3, 3, 4, 3)
    videos = forward(g, z, y, c)
    relabelled = forward(g, z, torch.tensor([0, 2, 2]), c)
    moved = z.clone()
    moved[1] = 0
    for other in (relabelled, forward(g, moved, y, c)):
        changed = (other - videos).flatten(2).norm(dim=2) > 1e-4  # [B, T]
        assert changed.tolist() == [[i == 1] * videos.shape[1] for i in range(3)]
    order = torch.tensor([2, 0, 1])
    assert_close(forward(g, z[order], y[order], c[order]), videos[order], rtol=0, atol=1e-4)


def test_shapes_of_odd_sizes(first, upper):
    z, y = torch.randn(1, 5), torch.tensor([2])
    for length in (None, 1, 2, 5):
        video = first(z, y, num_frames=length)
        assert video.shape == (1, length or 3, 3, 16, 24)
        assert video.abs().max() <= 1
    for shape in ((1, 3, 4, 3), (3, 3, 5, 7)):
        video = upper(z, y, torch.randn(1, *shape))
        assert video.shape == (1, 2 * shape[0], 3, 2 * shape[2], 2 * shape[3])
    g = UpsamplingGenerator(channels=1, temporal_factor=3, spatial_factor=1, **SMALL)
    assert g(z, y, torch.randn(1, 2, 3, 4, 4)).shape == (1, 6, 3, 4, 4)


def test_frames_of_the_first_level_do_not_depend_on_later_ones(first):
    z, y = torch.randn(2, 5), torch.tensor([0, 1])
    with torch.no_grad():
        long = first(z, y, num_frames=7)
        assert_close(first(z, y, num_frames=4), long[:, :4], rtol=1e-5, atol=1e-5)
    assert (long[:, 1:] - long[:, :-1]).abs().amax(dim=(0, 2, 3, 4)).min() > 1e-3  # it moves


def test_frames_of_the_upper_level_see_as_far_as_the_radius(upper):
    assert UpsamplingGenerator(channels=1).receptive_radius == 6
    radius = upper.receptive_radius
    z, y, c = torch.randn(1, 5), torch.tensor([1]), torch.randn(1, 12, 3, 4, 3)
    videos = forward(upper, z, y, c)
    c[:, 6] += 1  # frames 12 and 13
    distance = (forward(upper, z, y, c) - videos).abs().amax(dim=(0, 2, 3, 4))
    seen = [12 - radius <= t <= 13 + radius for t in range(24)]
    assert (distance > 0).tolist() == seen


@pytest.mark.parametrize("chunk", [1, 4, 5])
def test_chunks_with_a_halo_are_the_whole(upper, chunk):
    halo = -(-upper.receptive_radius // upper.temporal_factor)
    z, y, c = torch.randn(2, 5), torch.tensor([1, 0]), torch.randn(2, 11, 3, 4, 3)
    parts = []
    for start in range(0, 11, chunk):
        left = max(0, start - halo)
        end = min(11, start + chunk)
        part = forward(upper, z, y, c[:, left : min(11, end + halo)])
        parts.append(part[:, 2 * (start - left) : 2 * (end - left)])
    assert_close(torch.cat(parts, dim=1), forward(upper, z, y, c), rtol=1e-5, atol=1e-5)


def test_residual_output_adds_the_enlarged_condition():
    plain, added = (
        UpsamplingGenerator(channels=1, residual_output=r, **SMALL).eval() for r in (False, True)
    )
    added.load_state_dict(plain.state_dict())
    z, y, c = torch.randn(1, 5), torch.tensor([0]), torch.rand(1, 2, 3, 4, 3) - 0.5
    with torch.no_grad():
        difference = added(z, y, c).atanh() - plain(z, y, c).atanh()
    assert_close(difference[:, ::2, :, ::2, 1::2], c, rtol=0, atol=1e-4)
    assert_close(difference[:, 1::2, :, 1::2, ::2], c, rtol=0, atol=1e-4)


def test_half_precision_inside_full_precision_outside(first, upper):
    z, y, c = torch.randn(2, 5), torch.tensor([1, 0]), torch.randn(2, 2, 3, 4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        for g in (first, upper):
            assert forward(g, z, y, c).dtype == torch.float32
    half = deepcopy(upper).to(torch.bfloat16)
    assert forward(half, z, y, c).dtype == torch.float32


def test_synchronised_batch_norm(first):
    """As ``Trainer(sync_batchnorm=True)`` converts it; in evaluation nothing changes."""
    z, y = torch.randn(2, 5), torch.tensor([1, 0])
    before = forward(first, z, y, None)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(deepcopy(first))
    kinds = [type(m) for m in converted.modules()]
    assert kinds.count(nn.SyncBatchNorm) == 2 * 2 * 2 + 1  # two stages, two blocks, two norms
    assert nn.BatchNorm2d not in kinds
    assert forward(converted, z, y, None).equal(before)
    assert converted.state_dict().keys() == first.state_dict().keys()


def test_start():
    g = DVDGenerator(2, 16, channels=4)
    for module in g.modules():
        if isinstance(module, ConditionalBatchNorm2d):
            assert module.gain.weight.std().item() == pytest.approx(0.02, rel=0.2)
            assert module.gain.bias is None
    w = g.stages[0].block.conv1.parametrizations.weight.original.flatten(1)
    assert_close(w @ w.T, torch.eye(len(w)), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("resolution", "first", "stages"),
    [(64, (4, 4), 4), (48, (6, 6), 3), ((32, 64), (4, 8), 3), ((72, 128), (9, 16), 3)],
)
def test_sizes(resolution, first, stages):
    with torch.device("meta"):
        g = DVDGenerator(2, resolution, channels=1)
    assert g.first_shape[1:] == first
    assert len(g.stages) == stages
    assert g.resolution == ((resolution,) * 2 if isinstance(resolution, int) else resolution)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 34}, "resolution 34x34 is not a small size doubled several times"),
        ({"resolution": (16, 3)}, "resolution 16x3 is not a small size"),
        ({"resolution": 7}, "resolution 7x7 is too small for a generator"),
        ({"resolution": (8, 8, 8)}, r"one size or \(height, width\)"),
        ({"channel_multipliers": (1, 2)}, r"must be 3 numbers for this resolution.*\[1, 2\]"),
        ({"channels": 0}, "channels and channel_multipliers must be at least 1"),
        ({"num_frames": 0}, "num_frames must be at least 1, not 0"),
        ({"num_classes": 0}, "num_classes must be at least 1, not 0"),
        ({"candidate_act": "gelu"}, "candidate_act must be"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(InputError, match=message):
        DVDGenerator(**{"num_frames": 2, "resolution": 16, "channels": 1} | options)


def test_wrong_inputs(first, upper):
    z, y = torch.randn(2, 5), torch.tensor([1, 0])
    with pytest.raises(InputError, match=r"z must be \[B, 5\], got \[2, 4\]"):
        first(z[:, :4], y)
    with pytest.raises(InputError, match=r"labels must be int64 \[2\], one per video"):
        first(z, y[:1])
    with pytest.raises(InputError, match=r"labels must be int64 \[2\].*float32"):
        first(z, y.float())
    with pytest.raises(InputError, match="num_frames must be at least 1"):
        first(z, y, num_frames=0)
    with pytest.raises(InputError, match=r"the condition must be float \[B, T, 3, H, W\], got"):
        upper(z, y, torch.zeros(2, 3, 4, 4, 4))
    with pytest.raises(InputError, match=r"the condition must be float.*uint8"):
        upper(z, y, torch.zeros(2, 4, 3, 4, 4, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"labels must be int64 \[3\]"):
        upper(z, y, torch.zeros(3, 4, 3, 4, 4))
    with pytest.raises(InputError, match="at least one block"):
        UpsamplingGenerator(channel_multipliers=())
    with pytest.raises(InputError, match="7 frames cannot be shared by 2 conditions"):
        ConditionalBatchNorm2d(3, 2)(torch.zeros(7, 3, 2, 2), torch.zeros(2, 2))
