"""Moving digits as arrays: straight lines, bounces, places between pixels, half the size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lit_ssl.datamodules.video.digit_motion import (
    SPEEDS,
    Motion,
    box_average,
    draw_digits,
    draw_motion,
    places_of,
)

ROOM = 12.0
FRAMES = np.arange(40)


@pytest.fixture(scope="module")
def motion():
    return draw_motion((3, 0), 50, 2, ROOM)


def test_digits_keep_their_speed_and_stay_inside(motion):
    for video in range(50):
        places = places_of(motion, video, FRAMES, ROOM)
        assert places.shape == (40, 2, 2)
        assert places.min() >= 0
        assert places.max() <= ROOM
        steps, speed = np.abs(np.diff(places, axis=0)), np.abs(motion.velocities[video])
        inside = np.isclose(steps, speed).all(axis=-1)
        assert inside.mean() > 0.6  # a bounce takes one step at most
        assert (steps <= speed + 1e-9).all()
    assert np.array_equal(places_of(motion, 0, np.array([0]), ROOM)[0], motion.starts[0])


def test_a_bounce_by_hand():
    motion = Motion(np.array([[[10.0, 1.0]]]), np.array([[[1.5, -0.75]]]))
    places = places_of(motion, 0, np.arange(4), ROOM)[:, 0]
    assert places.tolist() == [[10, 1], [11.5, 0.25], [11, 0.5], [9.5, 1.25]]


def test_frames_are_a_function_of_their_number(motion):
    some = np.array([7, 2, 7, 15])
    expected = places_of(motion, 4, FRAMES, ROOM)[some]
    assert np.array_equal(places_of(motion, 4, some, ROOM), expected)


def test_motion_is_a_function_of_seed_split_and_number(motion):
    fewer = draw_motion((3, 0), 20, 2, ROOM)
    assert np.array_equal(fewer.starts, motion.starts[:20])
    assert np.array_equal(fewer.velocities, motion.velocities[:20])
    for keys in ((4, 0), (3, 1)):
        other = draw_motion(keys, 50, 2, ROOM)
        assert not np.isclose(other.starts, motion.starts).any()
    speed = np.linalg.norm(motion.velocities, axis=-1) / ROOM
    assert SPEEDS[0] <= speed.min() < 0.06
    assert 0.11 < speed.max() <= SPEEDS[1]
    # all quarters of directions, and no digit moves as the other one does
    assert len(np.unique(np.sign(motion.velocities).reshape(-1, 2), axis=0)) == 4
    assert not np.isclose(motion.velocities[:, 0], motion.velocities[:, 1]).any()


def test_whole_pixels_copy_and_halves_interpolate():
    stroke = np.random.default_rng(0).integers(0, 256, (1, 1, 5, 5)).astype(float)
    places = np.array([[[2.0, 3.0]], [[2.0, 2.5]]])
    whole, half = draw_digits(stroke, places, 9)[..., 0]
    expected = np.zeros((9, 9))
    expected[2:7, 3:8] = stroke[0, 0]
    assert np.array_equal(whole, expected)
    between = np.zeros((9, 9))
    between[2:7, 2:7] = stroke[0, 0] / 2
    between[2:7, 3:8] += stroke[0, 0] / 2
    assert np.abs(half - between).max() <= 0.5


def test_places_between_pixels_are_torchs_bilinear_ones():
    stroke = torch.rand(1, 1, 6, 6, dtype=torch.float64) * 255
    down, right = 1.3, 2.65
    rows = torch.arange(11.0, dtype=torch.float64)
    grid_y, grid_x = torch.meshgrid(rows - down, rows - right, indexing="ij")
    grid = torch.stack([grid_x, grid_y], dim=-1) * 2 / 5 - 1
    sampled = torch.nn.functional.grid_sample(
        stroke, grid[None], align_corners=True, padding_mode="zeros"
    )
    drawn = draw_digits(stroke.numpy(), np.array([[[down, right]]]), 11)
    assert np.abs(drawn[0, ..., 0] - sampled[0, 0].numpy()).max() <= 0.5 + 1e-3


def test_the_larger_value_shows_in_each_channel():
    strokes = np.zeros((2, 3, 2, 2))
    strokes[0, 0], strokes[1, 0], strokes[1, 1] = 200, 90, 255
    drawn = draw_digits(strokes, np.array([[[0, 0], [1, 1]]]), 3)[0]
    assert drawn[1, 1].tolist() == [200, 255, 0]
    assert drawn[2, 2].tolist() == [90, 255, 0]
    assert drawn[0, 2].tolist() == [0, 0, 0]


def test_box_average_is_the_rounded_mean():
    frames = np.random.default_rng(1).integers(0, 256, (3, 6, 4, 2)).astype(np.uint8)
    mean = frames.reshape(3, 3, 2, 2, 2, 2).mean(axis=(2, 4))
    assert np.array_equal(box_average(frames, 2), np.floor(mean + 0.5))
    assert box_average(frames, 1) is frames
    white = np.full((1, 8, 8, 3), 255, dtype=np.uint8)
    assert (box_average(white, 4) == 255).all()
