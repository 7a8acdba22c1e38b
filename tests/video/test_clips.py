"""Which frames form a clip."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lit_ssl.errors import InputError
from lit_ssl.video.clips import all_clips, clip_span, even_clips, random_clip, resampled_frames

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "video_clip_index.npz")


@pytest.mark.parametrize("case", range(len(GOLDEN["rows"])))
def test_all_clips_are_those_of_torchvision(case):
    frames, fps, length, step, target = GOLDEN["rows"][case]
    rates = {"fps": fps, "target_fps": target} if target else {}
    clips = all_clips(int(frames), int(length), int(step), **rates)
    assert clips.dtype == np.int64
    np.testing.assert_array_equal(clips, GOLDEN[f"c{case}_clips"])


def test_a_rate_that_is_no_multiple_does_not_lose_frames_to_rounding():
    # i · 30 / 25 is whole for every fifth frame, where i · 1.2 may fall just below
    numbers = resampled_frames(600, 30, 25)
    assert len(numbers) == 500
    np.testing.assert_array_equal(numbers, np.arange(500) * 6 // 5)


def test_every_nth_frame_is_taken_to_the_end():
    np.testing.assert_array_equal(resampled_frames(7, 30, 15), [0, 2, 4, 6])


def test_a_higher_rate_repeats_frames():
    np.testing.assert_array_equal(resampled_frames(3, 10, 20), [0, 0, 1, 1, 2, 2])


@pytest.mark.parametrize("rates", [(0, 10), (25, 0), (float("nan"), 10), (25, float("inf"))])
def test_rates_must_be_positive_numbers(rates):
    with pytest.raises(InputError, match="frames per second"):
        resampled_frames(10, *rates)


def test_random_clips_are_uniform_over_all_starts_and_a_function_of_the_seed():
    starts = Counter()
    for seed in range(3000):
        clip = random_clip(12, 4, 3, seed)
        np.testing.assert_array_equal(np.diff(clip), 3)
        starts[int(clip[0])] += 1
    assert sorted(starts) == [0, 1, 2]
    assert all(abs(count - 1000) < 120 for count in starts.values())
    np.testing.assert_array_equal(random_clip(500, 16, 2, 7), random_clip(500, 16, 2, 7))


def test_a_video_just_as_long_as_the_clip():
    assert clip_span(4, 3) == 10
    np.testing.assert_array_equal(random_clip(10, 4, 3, 1), [0, 3, 6, 9])
    np.testing.assert_array_equal(even_clips(10, 4, 3, 2), [[0, 3, 6, 9]] * 2)


def test_even_clips_go_from_the_first_frame_to_the_last():
    clips = even_clips(101, 16, 2, 5)
    assert clips.shape == (5, 16)
    assert (clips[0, 0], clips[-1, -1]) == (0, 100)
    assert set(np.diff(clips[:, 0])) <= {17, 18}


def test_one_even_clip_lies_in_the_middle():
    np.testing.assert_array_equal(even_clips(10, 4, 1, 1), [[3, 4, 5, 6]])


@pytest.mark.parametrize("make", [random_clip, even_clips])
def test_short_videos_and_values_below_one_are_refused(make):
    with pytest.raises(InputError, match="spans 31 frames, and the video has 30"):
        make(30, 16, 2, 1)
    for wrong in ((30, 0, 1, 1), (30, 4, 0, 1)):
        with pytest.raises(InputError, match="at least 1, not 0"):
            make(*wrong)


def test_resampling_needs_the_rate_of_the_video():
    with pytest.raises(InputError, match="target_fps needs fps"):
        all_clips(30, 8, 1, target_fps=10)
