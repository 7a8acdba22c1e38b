"""Clips that are resized, cropped and mirrored as one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as F

from lit_ssl.errors import InputError
from lit_ssl.transforms.video import covering_side, evaluation_clip, frame_size, training_clip


@pytest.fixture
def clip():
    """uint8 [3, 20, 30, 3]: green is the row, blue the column."""
    video = np.zeros((3, 20, 30, 3), dtype=np.uint8)
    video[..., 0] = np.arange(3)[:, None, None]
    video[..., 1] = np.arange(20)[:, None]
    video[..., 2] = np.arange(30)
    return video


def test_the_smallest_frame_that_covers():
    rng = np.random.default_rng(0)
    for height, width, *size in rng.integers(1, 400, (300, 4)).tolist():
        side = covering_side(height, width, tuple(size))
        short = min(height, width)

        def covers(side, height=height, width=width, size=size, short=short):
            return height * side // short >= size[0] and width * side // short >= size[1]

        assert covers(side)
        assert side == 1 or not covers(side - 1)


def test_frames_that_need_no_resizing_are_only_cut(clip):
    cut = evaluation_clip(clip, (20, 8))
    assert cut.shape == (3, 3, 20, 8)
    assert cut.is_contiguous()
    assert cut[:, 0].unique(dim=0).shape[0] == 3
    assert cut[0, 2, 0].tolist() == list(range(11, 19))
    assert cut[0, 1, :, 0].tolist() == list(range(20))


@pytest.mark.parametrize("size", [(10, 15), (10, 10), (7, 3), (40, 30), (2, 2), (33, 50)])
def test_resizing(clip, size):
    cut = evaluation_clip(clip, size)
    assert cut.shape == (3, 3, *size)
    assert cut.dtype == torch.uint8
    side = covering_side(20, 30, size)
    frames = torch.from_numpy(clip).permute(0, 3, 1, 2).contiguous()
    whole = F.resize(frames, [side, 30 * side // 20], antialias=True)
    top, left = ((whole.shape[2 + axis] - size[axis]) // 2 for axis in (0, 1))
    assert torch.equal(cut, whole[:, :, top : top + size[0], left : left + size[1]])


def test_random_parts_are_a_function_of_the_seed(clip):
    places, mirrored = set(), []
    for seed in range(300):
        cut = training_clip(clip, (18, 20), seed, hflip=True)
        assert torch.equal(cut, training_clip(clip, (18, 20), seed, hflip=True))
        plain = training_clip(clip, (18, 20), seed)
        flipped = not torch.equal(cut, plain)
        assert torch.equal(cut, plain.flip(3) if flipped else plain)
        mirrored.append(flipped)
        left = int(plain[0, 2, 0, 0])
        places.add(left)
        assert plain.shape == (3, 3, 18, 20)
        assert all(torch.equal(frame[1:], plain[0, 1:]) for frame in plain)
    # 20 x 30 becomes 18 x 27, which leaves 8 places
    assert len(places) == 8
    assert 0.4 < np.mean(mirrored) < 0.6


def test_frame_size():
    assert frame_size(8) == (8, 8)
    assert frame_size([8, 9]) == (8, 9)
    for wrong in (1, (3,), (3, -1), (2.5, 3)):
        with pytest.raises(InputError, match="size must be pixels"):
            frame_size(wrong)
