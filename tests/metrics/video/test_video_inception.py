"""Video Inception Score: values of both released codes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lit_ssl.errors import InputError
from lit_ssl.metrics import VideoInceptionScore, inception_score

CASES = ["c0", "c1", "c2"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("protocol", "short"), [("stylegan_v", "sgv"), ("tgan2", "tgan2")])
def test_scores_as_in_released_code(golden, case, protocol, short):
    values = golden("video_inception")
    splits = int(values[f"{case}_splits"])
    logits = values[f"{case}_logits"]
    # stylegan-v adds up float32
    close = {"rel": 1e-5 if protocol == "stylegan_v" else 2e-7}
    for outputs in (logits, logits.softmax(dim=1)):
        found = inception_score(outputs, splits, protocol)
        assert found.mean.item() == pytest.approx(values[f"{case}_{short}_mean"].item(), **close)
        expected = values[f"{case}_{short}_std"].item()
        assert found.std.item() == pytest.approx(expected, rel=1e-4, abs=1e-7)
        assert found.num_clips == len(logits)


@pytest.mark.parametrize("case", CASES)
def test_one_part_by_default_as_in_tgan2(golden, case):
    values = golden("video_inception")
    found = inception_score(values[f"{case}_logits"])
    assert found.mean.item() == pytest.approx(values[f"{case}_tgan2_split1"].item(), rel=2e-7)
    assert found.std.item() == 0


def test_certain_answers_give_the_number_of_classes():
    sure = torch.eye(4).repeat(3, 1)
    assert inception_score(sure, 1, "stylegan_v").mean.item() == pytest.approx(4)
    assert inception_score(torch.full((5, 4), 0.25)).mean.item() == pytest.approx(1)


def test_mistakes():
    with pytest.raises(InputError, match=r"in 10 parts needs outputs .* at least 10 clips"):
        inception_score(torch.rand(9, 4), protocol="stylegan_v")
    with pytest.raises(InputError, match="NaN or infinite"):
        inception_score(torch.full((3, 4), torch.inf))
    with pytest.raises(InputError, match="needs mean_clip, a file"):
        VideoInceptionScore(Levels())
    with pytest.raises(InputError, match="takes no mean_clip"):
        VideoInceptionScore(Levels(), protocol="stylegan_v", mean_clip="mean.npz")
    options = {"protocol": "stylegan_v", "clip_length": 1}
    with pytest.raises(InputError, match="gives 3 features for each clip, num_classes is 101"):
        VideoInceptionScore(Levels(), **options).update(torch.zeros(1, 1, 3, 2, 2).byte())
    with pytest.raises(InputError, match="num_classes must be at least 1, not 0"):
        VideoInceptionScore(Levels(), num_classes=0, **options)
    with pytest.raises(InputError, match="splits must be at least 1"):
        VideoInceptionScore(Levels(), splits=0, protocol="stylegan_v")


class Levels(nn.Module):
    """Logits by the levels of the channels; remembers what it saw."""

    def forward(self, video):
        self.seen = video
        return video.float().mean(dim=(2, 3, 4)) / 8


def test_the_metric_of_each_protocol(tmp_path):
    generator = torch.Generator().manual_seed(0)
    base = torch.randint(200, (12, 1, 3, 1, 1), generator=generator)
    video = (base + torch.randint(50, (12, 3, 3, 9, 11), generator=generator)).byte()
    options = {"num_classes": 3, "clip_length": 3}
    metric = VideoInceptionScore(Levels(), splits=2, protocol="stylegan_v", **options)
    for part in video.split([5, 1, 6]):
        metric.update(part)
    with pytest.warns(UserWarning, match="12 fake clips: published numbers are of 2,048"):
        found = metric.compute()
    logits = video.transpose(1, 2).float().mean(dim=(2, 3, 4)) / 8
    assert found.mean.item() == pytest.approx(
        inception_score(logits, 2, "stylegan_v").mean.item(), rel=1e-6
    )
    assert metric.card()["classifier_gives"] == "logits"
    assert metric.card()["resolution_before_resize"] == [9, 11]

    np.save(tmp_path / "mean.npy", np.full((3, 3, 112, 112), 60.0))
    network = Levels()
    metric = VideoInceptionScore(network, mean_clip=tmp_path / "mean.npy", **options)
    metric.update(video)
    assert network.seen.shape == (12, 3, 3, 112, 112)
    # blue first, minus the mean
    corner = video[:, :, :, 0, 0].transpose(1, 2).flip(1) - 60.0
    torch.testing.assert_close(network.seen[..., 0, 0], corner)
    with pytest.warns(UserWarning, match="VideoInceptionScore of 12"):
        assert metric.compute().std.item() == 0
