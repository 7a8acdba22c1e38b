"""`lit-ssl video-score`: folders of files to a table and a card."""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_ssl.cli.video.folders import ClipFolder, indexed_videos, read_fitted
from lit_ssl.metrics import frechet_distance_from_features, polynomial_mmd
from lit_ssl.metrics.video.preparation import for_i3d
from lit_ssl.video import open_reader

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "metrics" / "video"))
from clip_networks import Small
from video_files import bar_frames, bar_video, encode, truncated


def moving(seed, frames, size):
    rng = np.random.default_rng(seed)
    video = np.full((frames, *size, 3), 60, dtype=np.uint8)
    top, colour = rng.integers(2, size[0] - 8), rng.integers(3)
    for number, frame in enumerate(video):
        frame[top : top + 6, (number * 2) % (size[1] - 6) :][:, :6, colour] = 220
    return video


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """Real and generated videos, of other sizes and kinds of file, and networks for them."""
    root = tmp_path_factory.mktemp("scores")
    for number in range(6):
        encode(root / "real" / f"class{number % 2}" / f"{number}.avi", moving(number, 9, (32, 48)))
        encode(root / "fake" / f"{number}.mp4", moving(50 + number, 6, (16, 24)))
    encode(root / "real" / "short.avi", moving(7, 3, (32, 48)))
    truncated(encode(root / "real" / "broken.mp4", moving(8, 9, (32, 48))))
    (root / "real" / "notes.txt").write_text("no video")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Small()), root / "small.pt")
    return root


FOUR = ("--clip-length", 4)


def test_without_files_of_networks(lit_ssl, videos, workdir):
    words = ("video-score", videos / "real", videos / "fake", *FOUR, "--bootstrap", 20)
    result = lit_ssl(*words, "--out", "card.json", "--split", "train")
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert lines[0] == (
        f"real:      6 of 8 videos in {videos / 'real'} (1 cannot be read, 1 are too short)"
    )
    assert lines[1] == f"generated: 6 of 6 videos in {videos / 'fake'}"
    assert lines[2] == "clips:     4 frames, 16 x 24 (that of the generated videos)"
    assert "no --extractor, so no FVD" in result.out
    assert "\nFVD" not in result.out
    card = json.loads((workdir / "card.json").read_text())
    assert list(card["scores"]) == ["random-feature distance", "motion, real", "motion, generated"]
    distance = card["scores"]["random-feature distance"]
    assert distance["protocol"] == "random features, not FVD"
    assert distance["resolution_before_resize"] == [16, 24]
    low, high = distance["interval_95"]
    assert low < distance["value"] < high
    assert distance["self_distance"] > 0
    assert card["data"]["reader"] == "pyav"
    real = card["data"]["real"]
    assert (real["split"], real["unreadable"], real["shorter_than_a_clip"]) == ("train", 1, 1)
    assert (real["start"], card["data"]["generated"]["start"]) == ("random", "first frame")
    assert card["scores"]["motion, generated"]["value"] > 1
    # the same numbers again, and never over a file
    again = lit_ssl(*words)
    assert again.out.splitlines()[:8] == lines[:8]
    result = lit_ssl(*words, "--out", "card.json")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "--out card.json exists" in result.err


@pytest.mark.parametrize(("protocol", "divisor"), [("stylegan_v", "N"), ("tats", "N - 1")])
def test_with_an_extractor_and_a_classifier(lit_ssl, videos, workdir, protocol, divisor):
    network, real, fake = videos / "small.pt", videos / "real", videos / "fake"
    few = protocol == "stylegan_v"
    words = ["--extractor", network, "--num-features", 6, "--protocol", protocol]
    if not few:  # ten parts need ten clips
        np.save("mean.npy", np.zeros((3, 4, 112, 112)))
        words += ["--classifier", network, "--num-classes", 6, "--mean-clip", "mean.npy"]
    result = lit_ssl(
        "video-score", real, fake, *FOUR, *words, "--batch-size", 4, "--out", "card.json",
        "--size", "16x24", "--max-items", 5, "--seed", 3,
    )  # fmt: skip
    assert result.code == 0, result.err
    card = json.loads((workdir / "card.json").read_text())
    fvd, kvd = card["scores"]["FVD"], card["scores"]["KVD"]
    assert fvd["name"] == "fvd5_4f"
    assert fvd["extractor"]["sha256"] == hashlib.sha256(network.read_bytes()).hexdigest()
    assert fvd["covariance_divided_by"] == divisor
    assert "covariance_divided_by" not in kvd
    rows = [
        Small()(for_i3d(clips) if protocol == "tats" else clips).detach()
        for clips in (chosen(real, True), chosen(fake, False))
    ]
    expected = frechet_distance_from_features(*rows, unbiased=protocol == "tats").item()
    assert fvd["value"] == pytest.approx(expected, rel=1e-5)
    assert kvd["value"] == pytest.approx(polynomial_mmd(*rows).item(), rel=1e-4, abs=1e-6)
    assert "note: FrechetVideoDistance of 5 real and 5 fake clips" in result.out
    assert "favour the quality of single frames" in result.out
    assert ("Inception Score" in card["scores"]) != few
    if not few:
        score = card["scores"]["Inception Score"]
        assert (score["protocol"], score["splits"], score["std"]) == ("tgan2", 1, None)
        assert 1 <= score["value"] <= 6


def chosen(folder, is_real):
    """The five clips of a folder, [B, 3, T, H, W]."""
    clips = ClipFolder(indexed_videos(folder), 4, 1, 5, 3, random_start=is_real)
    return torch.cat(list(clips.batches(open_reader(), (16, 24), 2))).transpose(1, 2)


def test_generated_videos_shorter_than_a_clip(lit_ssl, videos):
    result = lit_ssl("video-score", videos / "real", videos / "fake", *FOUR, "--stride", 2)
    assert result.code == 2
    assert "the generated folder" in result.err
    assert "gives 0 clips, 2 are needed: 6 have fewer than 7 frames" in result.err


def test_clips_are_cut_in_the_middle_and_cover_the_size(videos):
    reader = open_reader()
    path = videos / "real" / "class0" / "0.avi"
    for size in ((16, 24), (16, 16), (10, 31), (33, 7), (32, 48), (40, 3)):
        clip = read_fitted(reader, path, np.arange(3), (32, 48), size)
        assert clip.shape == (3, *size, 3)
    whole = reader.read(path, np.arange(3))
    np.testing.assert_array_equal(
        read_fitted(reader, path, np.arange(3), (32, 48), (32, 46)), whole[:, :, 1:47]
    )


def test_other_seeds_choose_other_videos_and_starts(videos):
    index = indexed_videos(videos / "real")

    def clips(seed, items=None):
        folder = ClipFolder(index, 4, 1, items, seed, random_start=True)
        found = torch.cat(list(folder.batches(open_reader(), (16, 24), 4)))
        return folder, found

    folder, all_of_them = clips(0)
    assert (folder.used, folder.unreadable, folder.short) == (6, ["broken.mp4"], ["short.avi"])
    assert torch.equal(clips(0)[1], all_of_them)
    assert torch.equal(clips(0, 2)[1], all_of_them[:2])
    assert not torch.equal(clips(1)[1], all_of_them)
    assert clips(1, 2)[0].used == 2


def test_mistakes_are_one_line(lit_ssl, videos, tmp_path):
    real, fake = videos / "real", videos / "fake"
    (tmp_path / "empty").mkdir()
    bar_video(tmp_path / "mixed" / "a.mp4", 5, size=(16, 16))
    encode(tmp_path / "mixed" / "b.mp4", bar_frames(5, (24, 16)))
    for words, message in (
        ((videos, fake), "keep real and generated videos apart"),
        ((real, videos), "keep real and generated videos apart"),
        ((real, "nowhere"), "no videos (.3gp, .avi"),
        ((real, tmp_path / "empty"), "empty is empty"),
        ((real, tmp_path / "mixed", *FOUR), "several sizes (16x16, 24x16): say by --size"),
        ((real, fake, "--size", "0x4"), "--size takes H or HxW in pixels"),
        ((real, fake, "--bootstrap", 3), "--bootstrap needs at least 20 replicates"),
        ((real, fake, "--clip-length", 0), "--clip-length must be at least 1"),
        ((real, fake, "--clip-length", 60), "the real folder"),
        ((real, fake, "--extractor", "none.pt"), "no feature extractor at none.pt"),
        ((real, fake, "--classifier", videos / "small.pt"), "needs mean_clip"),
        ((real, fake, "--mean-clip", "mean.npy"), "--mean-clip goes with --classifier"),
        ((real, fake, "--protocol", "tats"), "--protocol goes with --extractor"),
        ((real, fake, "--num-classes", 101), "--num-classes goes with --classifier"),
        ((real, fake, "--device", "abacus"), "--device abacus cannot be used here"),
        ((real, fake, *FOUR, "--extractor", videos / "small.pt"), "gives 6 features for each"),
        ((real,), "the following arguments are required: FAKE_DIR"),
    ):
        result = lit_ssl("video-score", *words)
        assert result.code == 2, words
        assert message in result.err
        assert result.err.count("\n") == 1, result.err
