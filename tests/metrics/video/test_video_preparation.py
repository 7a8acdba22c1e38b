"""What networks of scores get: grey levels, sizes, channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lit_ssl.errors import InputError
from lit_ssl.metrics import motion_per_video, motion_statistic, to_uint8
from lit_ssl.metrics.video.preparation import for_c3d, for_i3d, read_mean_clip


@pytest.mark.parametrize("case", ["c0", "c1", "c2"])
def test_input_of_i3d_as_in_tats(golden, case):
    values = golden("video_preprocess")
    video = values[f"{case}_video"].permute(0, 4, 1, 2, 3)
    found = for_i3d(video, tuple(values[f"{case}_size"].tolist()))
    torch.testing.assert_close(found, values[f"{case}_out"], rtol=0, atol=1e-6)


def test_input_of_i3d_has_224_pixels_whatever_the_video_has():
    video = torch.randint(256, (2, 3, 1, 5, 3)).byte()
    assert for_i3d(video).shape == (2, 3, 1, 224, 224)
    assert -1 <= for_i3d(video).min() <= for_i3d(video).max() <= 1


def test_grey_levels_of_both_protocols():
    x = torch.tensor([-1.5, -1.0, -0.004, 0.0, 0.5, 0.99, 1.0, 2.0])
    assert to_uint8(x).tolist() == [0, 0, 127, 128, 191, 254, 255, 255]
    assert to_uint8(x, "tats").tolist() == [0, 0, 126, 127, 191, 253, 255, 255]
    assert to_uint8(torch.tensor([0.5]).bfloat16()).tolist() == [191]
    with pytest.raises(InputError, match="2 values that are NaN"):
        to_uint8(torch.tensor([torch.nan, 0, torch.nan]))
    for value in (torch.zeros(2).byte(), np.zeros(2)):
        with pytest.raises(InputError, match=r"needs a float tensor .* got (torch.uint8|ndarray)"):
            to_uint8(value)
    with pytest.raises(InputError, match="'stylegan_v' or 'tats', not 'digan'"):
        to_uint8(x, "digan")


def test_input_of_c3d():
    video = torch.randint(256, (1, 3, 4, 6, 8)).byte()
    mean = torch.rand(3, 4, 112, 112) * 100
    found = for_c3d(video, mean)
    assert found.shape == (1, 3, 4, 112, 112)
    # blue first, corners on corners
    for frame in range(4):
        for channel in range(3):
            level = video[0, 2 - channel, frame, -1, 0] - mean[channel, frame, -1, 0]
            torch.testing.assert_close(found[0, channel, frame, -1, 0], level)
    own = F.interpolate(
        video[0, :, 1].flip(0)[None].float(), (112, 112), mode="bilinear", align_corners=True
    )
    torch.testing.assert_close(found[0, :, 1], own[0] - mean[:, 1])
    with pytest.raises(InputError, match="clips of 4 frames, the mean clip has 16"):
        for_c3d(video, torch.zeros(3, 16, 112, 112))


def test_mean_clip_files(tmp_path):
    mean = np.random.default_rng(0).random((3, 2, 128, 171)) * 255
    np.savez(tmp_path / "mean2.npz", mean=mean)
    found = read_mean_clip(tmp_path / "mean2.npz")
    np.testing.assert_array_equal(found.numpy(), mean[:, :, 8:120, 8:120].astype(np.float32))
    np.save(tmp_path / "cut.npy", mean[:, :, :112, :112])
    assert read_mean_clip(tmp_path / "cut.npy").shape == (3, 2, 112, 112)


def test_mean_clip_mistakes(tmp_path):
    with pytest.raises(InputError, match=r"no mean clip at .*Nothing is downloaded"):
        read_mean_clip(tmp_path / "none.npy")
    (tmp_path / "text.npy").write_text("hello")
    np.savez(tmp_path / "other.npz", other=np.zeros(3))
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    for name in ("text.npy", "other.npz", "objects.npy"):
        with pytest.raises(InputError, match=f"{name} is no .npy"):
            read_mean_clip(tmp_path / name)
    for wrong in (np.zeros((3, 2, 100, 112)), np.zeros((1, 2, 112, 112)), np.zeros((3, 112, 112))):
        np.save(tmp_path / "shape.npy", wrong)
        with pytest.raises(InputError, match="expected a mean clip"):
            read_mean_clip(tmp_path / "shape.npy")
    np.save(tmp_path / "nan.npy", np.full((3, 2, 112, 112), np.nan))
    with pytest.raises(InputError, match="expected a mean clip, finite numbers"):
        read_mean_clip(tmp_path / "nan.npy")


def test_motion_is_in_grey_levels():
    video = torch.zeros(2, 3, 3, 4, 3, dtype=torch.uint8)
    video[0, 1] = 255  # up, and down again: no overflow
    video[1, 2, 0] = 30
    assert motion_per_video(video).tolist() == [255, 30 / 3 / 2]
    assert motion_statistic(video).item() == (255 + 5) / 2
    assert motion_statistic(video[:, :1].expand(2, 5, 3, 4, 3)).item() == 0
    for wrong, message in (
        (video[:, :1], "at least 2 frames"),
        (video.float(), "convert it"),
        (video[:0], "got no video"),
        (video[0], r"uint8 \[B, T, 3, H, W\]"),
    ):
        with pytest.raises(InputError, match=message):
            motion_statistic(wrong)
