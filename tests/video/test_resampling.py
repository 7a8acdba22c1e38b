"""Videos at the rate and size of the level below, and back."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from lit_ssl.errors import InputError
from lit_ssl.video import downsample_video, upsample_condition


def test_down_is_the_inverse_of_up():
    c = torch.randn(2, 3, 3, 4, 3)
    high = upsample_condition(c, 3, 2)
    assert high.shape == (2, 9, 3, 8, 6)
    assert_close(downsample_video(high, 3, 2), c)
    assert_close(high[:, 5, :, 3, 4], c[:, 1, :, 1, 2])


def test_every_other_frame_and_means_of_boxes():
    video = torch.randn(1, 5, 3, 4, 6)
    low = downsample_video(video, 2, 2)
    assert low.shape == (1, 3, 3, 2, 3)
    assert_close(low[0, 2, 1, 1, 2], video[0, 4, 1, 2:, 4:].mean())
    assert downsample_video(video, 1, 1).equal(video)


def test_wrong_values():
    c = torch.randn(2, 3, 3, 4, 3)
    with pytest.raises(InputError, match="frames of 4x3 cannot be made smaller by 2"):
        downsample_video(c, 1, 2)
    with pytest.raises(InputError, match=r"videos must be \[B, T, C, H, W\]"):
        upsample_condition(c[0])
    with pytest.raises(InputError, match="factors between levels must be at least 1, not 0"):
        downsample_video(c, 0, 2)
