"""Videos side by side."""

from __future__ import annotations

import pytest
import torch

from lit_ssl.errors import InputError
from lit_ssl.video.grid import video_grid


def test_each_video_is_in_its_place():
    random = torch.Generator().manual_seed(0)
    videos = torch.randint(0, 256, (5, 3, 3, 4, 6), generator=random).byte()
    grid = video_grid(videos, columns=2, zoom=2)
    assert grid.shape == (3, 3, 3 * 8 + 2 * 2, 2 * 12 + 2)
    for number, video in enumerate(videos):
        top, left = number // 2 * 10, number % 2 * 14
        cell = grid[..., top : top + 8, left : left + 12]
        for shift in range(4):
            assert torch.equal(cell[..., shift // 2 :: 2, shift % 2 :: 2], video)
    assert (grid[..., 20:, 14:] == 128).all()  # no sixth video


def test_grids_are_about_square_and_small_videos_enlarged():
    assert video_grid(torch.zeros(9, 1, 3, 16, 16).byte()).shape[-2:] == (340, 340)
    assert video_grid(torch.zeros(1, 2, 3, 128, 160).byte()).shape == (2, 3, 128, 160)
    wide = video_grid(torch.zeros(8, 1, 3, 120, 480).byte())
    assert wide.shape[-2:] == (4 * 120 + 6, 2 * 480 + 2)


@pytest.mark.parametrize(
    ("videos", "options", "message"),
    [
        (torch.zeros(0, 1, 3, 4, 4).byte(), {}, r"N >= 1, got torch.uint8 \[0, 1, 3, 4, 4\]"),
        (torch.zeros(1, 1, 3, 4, 4), {}, "got torch.float32"),
        (torch.zeros(1, 3, 1, 4, 4).byte(), {}, "a grid needs videos as"),
        (torch.zeros(1, 1, 3, 4, 4).byte(), {"zoom": 0}, "at least 1, not None and 0"),
    ],
)
def test_mistakes(videos, options, message):
    with pytest.raises(InputError, match=message):
        video_grid(videos, **options)
