"""What the scores of videos depend on."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from lit_ssl.errors import InputError
from lit_ssl.models import (
    ClipDiscriminator,
    DiscriminatorBlock,
    FrameDiscriminator,
    MatchingDiscriminator,
)

Y = torch.tensor([0, 2, 1])


def networks(reduction="sum"):
    """With what they judge: networks by name, each a function of (video, condition, y)."""
    torch.manual_seed(5)
    options = {"num_classes": 3, "channels": 2, "score_reduction": reduction}
    frames = FrameDiscriminator((16, 24), num_frames=2, **options).eval()
    clips = ClipDiscriminator((16, 24), 5, **options).eval()
    low = MatchingDiscriminator((8, 12), 6, **options).eval()
    high = MatchingDiscriminator((16, 24), 6, matching_space="high", **options).eval()
    chosen = torch.tensor([[0, 3], [4, 1], [2, 3]])
    return {
        "frames": lambda v, c, y: frames(v, y, chosen[: len(v)]),
        "clips": lambda v, c, y: clips(v[:, :5], y),
        "low": low,
        "high": high,
    }


@pytest.fixture(scope="module")
def by_name():
    return networks()


@pytest.mark.parametrize("name", ["frames", "clips", "low", "high"])
def test_a_score_depends_on_its_own_video_and_label_only(by_name, name):
    judge = by_name[name]
    video, condition = torch.randn(3, 6, 3, 16, 24), torch.randn(3, 3, 3, 8, 12)
    scores = judge(video, condition, Y)
    assert scores.shape == (3,)
    other = video.clone()
    other[1] = 0
    pairs = [(video, torch.tensor([0, 1, 1])), (other, Y)]
    for changed in (judge(v, condition, y) for v, y in pairs):
        assert ((changed - scores).abs() > 1e-4).tolist() == [False, True, False]
    assert_close(judge(video[:1], condition[:1], Y[:1]), scores[:1])


@pytest.mark.parametrize("space", ["low", "high"])
def test_matching_sees_which_condition_it_is(by_name, space):
    video, condition = torch.randn(3, 6, 3, 16, 24), torch.randn(3, 3, 3, 8, 12)
    judge = by_name[space]
    shuffled = judge(video, condition[[0, 2, 1]], Y)
    same = (shuffled - judge(video, condition, Y)).abs() < 1e-5
    assert same.tolist() == [True, False, False]


def test_the_low_space_hides_what_the_condition_cannot_know(by_name):
    video, condition = torch.randn(3, 6, 3, 16, 24), torch.randn(3, 3, 3, 8, 12)
    details = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(8, 12)
    for name, hidden in (("low", True), ("high", False)):
        judge = by_name[name]
        moved = judge(video + details, condition, Y) - judge(video, condition, Y)
        assert (moved.abs().max() < 1e-4) == hidden


def test_means_of_frames_are_sums_divided(by_name):
    averaged = networks("mean")
    video, condition = torch.randn(3, 6, 3, 16, 24), torch.randn(3, 3, 3, 8, 12)
    # two frames are drawn; 5 and 6 frames are paired once at the small size, twice at the large one
    for name, count in (("frames", 2), ("clips", 3), ("low", 3), ("high", 2)):
        mean, total = (d[name](video, condition, Y) for d in (averaged, by_name))
        assert_close(mean * count, total)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 7])
def test_clips_of_any_length(length):
    d = ClipDiscriminator(16, length, channels=2)
    video = torch.randn(1, length, 3, 16, 16, requires_grad=True)
    d(video, torch.tensor([0])).sum().backward()
    assert (video.grad.abs().amax(dim=(0, 2, 3, 4)) > 0).all()  # no frame is forgotten


def test_the_last_of_an_odd_number_of_frames_stays_alone():
    block = DiscriminatorBlock(2, 2, down=True, dims=3)
    x = torch.randn(1, 2, 3, 4, 4)
    pooled = block._pooled(x)
    assert pooled.shape == (1, 2, 2, 2, 2)
    assert_close(pooled[:, :, 1], torch.nn.functional.avg_pool2d(x[:, :, 2], 2))


def test_frames_are_drawn_for_each_video_anew():
    """Each video's frames differ in brightness, so the draw shows in what the network sees."""
    d = FrameDiscriminator(8, num_frames=3, channels=1)
    seen = []
    d.blocks.register_forward_pre_hook(lambda _, args: seen.append(args[0].mean(dim=(1, 2, 3))))
    video = torch.arange(5.0).expand(40, 5)[:, :, None, None, None].expand(-1, -1, 3, 8, 8)
    y = torch.zeros(40, dtype=torch.long)
    for _ in range(2):
        torch.manual_seed(4)
        d(video, y)
    drawn = seen[0].view(40, 3).round().long()
    assert seen[0].equal(seen[1])
    assert all(len(set(row)) == 3 for row in drawn.tolist())
    assert len({tuple(row) for row in drawn.tolist()}) > 10
    assert drawn.flatten().bincount(minlength=5).min() >= 12  # 24 expected
    d(video, y)
    assert not seen[2].equal(seen[0])


def test_all_weights_are_normalised_and_learn():
    d = MatchingDiscriminator(8, 2, channels=2)
    names = [name for name, _ in d.named_parameters()]
    assert all(name.endswith((".original", ".bias")) for name in names)
    d(torch.randn(2, 2, 3, 16, 16), torch.randn(2, 1, 3, 8, 8), Y[:2] * 0).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in d.parameters())


def test_scores_are_of_full_precision():
    d = ClipDiscriminator(8, 1, channels=2)
    with torch.autocast("cpu", torch.bfloat16):
        assert d(torch.randn(2, 1, 3, 8, 8), Y[:2] * 0).dtype == torch.float32
    d.to(torch.bfloat16)
    assert d(torch.randn(2, 1, 3, 8, 8), Y[:2] * 0).dtype == torch.float32


def test_wrong_values():
    y = Y[:2]
    d = FrameDiscriminator(8, num_frames=3, channels=1, num_classes=3)
    with pytest.raises(InputError, match="3 frames cannot be drawn of videos of 2: let the frame"):
        d(torch.zeros(2, 2, 3, 8, 8), y)
    with pytest.raises(InputError, match=r"must be float \[B, T, 3, 8, 8\], got"):
        d(torch.zeros(2, 3, 3, 8, 16), y)
    with pytest.raises(InputError, match=r"frames must be int64 \[2, k\], got \[1, 3\]"):
        d(torch.zeros(2, 3, 3, 8, 8), y, torch.zeros(1, 3, dtype=torch.long))
    with pytest.raises(InputError, match="score_reduction must be 'sum' or 'mean'"):
        FrameDiscriminator(8, score_reduction="max")
    with pytest.raises(InputError, match="too small for the clip discriminator"):
        ClipDiscriminator(6, 2)
    with pytest.raises(InputError, match=r"must be float \[B, 2, 3, 8, 8\], got"):
        ClipDiscriminator(8, 2, channels=1)(torch.zeros(2, 3, 3, 8, 8), y)
    with pytest.raises(InputError, match="choose num_frames as a multiple of temporal_factor"):
        MatchingDiscriminator(8, 3)
    with pytest.raises(InputError, match="matching_space must be 'low' or 'high'"):
        MatchingDiscriminator(8, 2, matching_space="mid")
    m = MatchingDiscriminator(8, 2, channels=1)
    with pytest.raises(InputError, match="a condition does not go with its video"):
        m(torch.zeros(2, 2, 3, 16, 16), torch.zeros(2, 2, 3, 8, 8), y)
