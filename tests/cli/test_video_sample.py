"""`lit-ssl video-sample`: what is written, what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from small_cascades import fit, level1, level2


@pytest.fixture(autouse=True, scope="module")
def _packages():
    pytest.importorskip("av")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Of level 1 without classes, and of both levels with two, after a step each."""
    folder = tmp_path_factory.mktemp("cascade")
    found = {}
    previous = None
    for name, make in (("plain", lambda _: level1(num_classes=1)), ("one", lambda _: level1()),
                       ("two", level2)):  # fmt: skip
        torch.manual_seed(0)
        runs = fit(make(previous), folder, steps=1)
        found[name] = folder / f"{name}.ckpt"
        runs.save_checkpoint(found[name])
        previous = str(found[name])
    return found


def frames_of(path):
    """The frames of a file, uint8 [T, H, W, 3]."""
    import av

    with av.open(str(path)) as file:
        return np.stack([f.to_ndarray(format="rgb24") for f in file.decode(video=0)])


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_grid_clips_and_sheet(lit_ssl, workdir, checkpoints):
    out = lit_ssl(
        "video-sample", checkpoints["two"], "all.mp4", "--num", 3, "--folder", "clips",
        "--sheet", "all.png", "--classes", "1,0", "--fps", 5,
    )  # fmt: skip
    assert out.code == 0, out.err
    assert "level 2, 12 frames of 16 x 16 pixels, 5 frames per second" in out.out
    assert "wrote 3 clips into clips\n" in out.out
    assert "in order: class 1, class 0, class 1\n" in out.out
    names = ["00000_class1.mp4", "00001_class0.mp4", "00002_class1.mp4"]
    assert files(workdir / "clips") == names
    grid = frames_of("all.mp4")
    assert grid.shape == (12, 226, 226, 3)
    first = frames_of(workdir / "clips" / names[0])
    assert first.shape == (12, 16, 16, 3)
    shown = grid[:, 3:112:7, 3:112:7].astype(float)  # the first video, seven times as large
    third = frames_of(workdir / "clips" / names[2])
    # all are compressed, noise badly
    near, far = (np.abs(shown - clip).mean() for clip in (first, third))
    assert near < far / 2
    assert np.asarray(Image.open("all.png")).shape[2] == 3


def test_videos_depend_on_seed_number_and_class_alone(lit_ssl, workdir, checkpoints):
    runs = {
        "a": (4,), "b": (2, "--batch-size", 1), "c": (4, "--chunk", 4), "d": (4, "--seed", 1),
    }  # fmt: skip
    for name, (num, *more) in runs.items():
        words = ("--num", num, "--folder", name, "--classes", "0", *more)
        assert lit_ssl("video-sample", checkpoints["two"], *words).code == 0

    def clip(name, number):
        return frames_of(workdir / name / f"0000{number}_class0.mp4").astype(float)

    for number in (0, 1):
        assert np.abs(clip("a", number) - clip("b", number)).max() <= 3
        assert np.abs(clip("a", number) - clip("c", number)).max() <= 3
    assert np.abs(clip("a", 0) - clip("d", 0)).max() > 3
    assert np.abs(clip("a", 0) - clip("a", 1)).max() > 3


def test_longer_videos_of_a_level_without_classes(lit_ssl, workdir, checkpoints):
    words = ("--num", 1, "--frames", 11)
    out = lit_ssl("video-sample", checkpoints["plain"], "one.avi", *words)
    assert out.code == 0, out.err
    assert "level 1 alone, 11 frames of 8 x 8 pixels" in out.out
    assert "in order" not in out.out
    assert frames_of("one.avi").shape == (11, 8, 8, 3)
    assert lit_ssl("video-sample", checkpoints["plain"], "--folder", "f", *words).code == 0
    assert files(workdir / "f") == ["00000.mp4"]
    longer = lit_ssl("video-sample", checkpoints["two"], "l.mp4", "--frames", 20, "--chunk", 5)
    assert longer.code == 0, longer.err
    assert len(frames_of("l.mp4")) == 20


def test_classes_come_as_in_the_training(lit_ssl, workdir, checkpoints):
    checkpoint = torch.load(checkpoints["one"], weights_only=False)
    checkpoint["state_dict"]["class_counts"] = torch.tensor([0.0, 7.0], dtype=torch.float64)
    torch.save(checkpoint, "ones.ckpt")
    assert lit_ssl("video-sample", "ones.ckpt", "--folder", "f", "--num", 5).code == 0
    assert all(name.endswith("_class1.mp4") for name in files(workdir / "f"))
    out = lit_ssl("video-sample", "ones.ckpt", "o.mp4", "--num", 5, "--classes", "all")
    assert "in order: class 0, class 1, class 0, class 1, class 0\n" in out.out


@pytest.fixture
def named(checkpoints, workdir):
    """Writes a checkpoint whose classes have names."""

    def write(*names):
        checkpoint = torch.load(checkpoints["one"], weights_only=True)
        checkpoint["lit_ssl.cascade"]["class_names"] = list(names)
        torch.save(checkpoint, "named.ckpt")

    return write


def test_classes_by_name(lit_ssl, workdir, named, monkeypatch):
    captions = []
    monkeypatch.setattr(
        "lit_ssl.video.sheet.contact_sheet",
        lambda videos, names: captions.extend(names) or np.zeros((4, 4, 3), np.uint8),
    )
    named("Yo Yo/2", "a\x1b[2Jb")
    words = ("--num", 3, "--folder", "f", "--sheet", "s.png", "--classes")
    out = lit_ssl("video-sample", "named.ckpt", *words, "1, Yo Yo/2")
    assert out.code == 0, out.err
    assert captions == ["a\ufffd[2Jb", "Yo Yo/2", "a\ufffd[2Jb"]
    assert f"in order: {', '.join(captions)}\n" in out.out
    assert files(workdir / "f") == ["00000_a_2Jb.mp4", "00001_YoYo_2.mp4", "00002_a_2Jb.mp4"]


@pytest.mark.parametrize(
    ("names", "classes", "message"),
    [
        # digits: a number is a name, and not the place of another name
        (("1", "0"), "2", "no class '2' among 1, 0: give names, or all"),
        (
            ("cat", "dog"),
            "cet",
            "no class 'cet' among cat, dog (did you mean cat?): give names, or",
        ),
        (
            ("cat", "dog"),
            "2",
            "no class '2' among cat, dog: give names, or numbers from 0 to 1, or",
        ),
        (("cat", "cat"), "cat", "several classes are called cat: give their numbers"),
    ],
)
def test_words_that_name_no_class(names, classes, message, lit_ssl, named):
    named(*names)
    result = lit_ssl("video-sample", "named.ckpt", "o.mp4", "--classes", classes)
    assert result.code == 2
    assert result.err.startswith(f"error: --classes: {message}")
    assert result.err.count("\n") == 1


def test_digits_are_names(lit_ssl, named):
    named("1", "0")
    out = lit_ssl("video-sample", "named.ckpt", "o.mp4", "--num", 2, "--classes", "0")
    assert "in order: 0, 0\n" in out.out


# words after `video-sample CKPT`; below them, what the line says
WRONG = """
TWO
    say where to write: OUT.mp4, --folder DIR or --sheet OUT.png
TWO there.mp4
    there.mp4 is there already: give OUT another name, or remove it
TWO new.mp4 --folder full
    full is there already: give --folder another name, or remove it
TWO new.mp4 --sheet there.mp4
    there.mp4 is there already: give --sheet another name, or remove it
TWO --sheet new.jpg
    --sheet new.jpg: the file must end in .png
TWO new.gif
    new.gif: the file must end in
TWO new.mp4 --num 0
    --num must be at least 1, not 0
TWO new.mp4 --num 65
    65 videos do not fit side by side: give --num 64 at most, or only --folder DIR
TWO new.mp4 --chunk 0
    --chunk must be at least 1, not 0
TWO new.mp4 --fps nan
    --fps must lie between 0.01 and 1000, not nan
TWO new.mp4 --classes 0,2
    --classes: no class '2' among class 0, class 1: give names, or numbers from 0 to 1, or all
TWO new.mp4 --classes one
    --classes: no class 'one' among class 0, class 1
PLAIN new.mp4 --classes 0
    this cascade has no classes: leave out --classes
TWO new.mp4 --frames 11
    num_frames must be a multiple of 2
TWO new.mp4 --device nowhere
    --device nowhere: no such device here
none.ckpt new.mp4
    no checkpoint none.ckpt
there.mp4 new.mp4
    there.mp4
"""


def test_mistakes_are_one_line_and_leave_nothing(lit_ssl, workdir, checkpoints):
    (workdir / "there.mp4").write_bytes(b"mine")
    (workdir / "full").mkdir()
    (workdir / "full" / "mine").touch()
    lines = [line.strip() for line in WRONG.strip().splitlines()]
    for words, message in zip(lines[::2], lines[1::2], strict=True):
        for name in ("two", "plain"):
            words = words.replace(name.upper(), str(checkpoints[name]))
        result = lit_ssl("video-sample", *words.split())
        assert result.code == 2, words
        assert result.err.startswith(f"error: {message}"), result.err
        assert result.err.count("\n") == 1
    assert (workdir / "there.mp4").read_bytes() == b"mine"
    assert files(workdir) == ["full", "recipe.yaml", "there.mp4"]


def test_weights_that_are_no_numbers_are_refused(lit_ssl, checkpoints):
    checkpoint = torch.load(checkpoints["one"], weights_only=False)
    for name, value in checkpoint["state_dict"].items():
        if name.startswith("generator_ema.") and value.is_floating_point():
            value.fill_(float("nan"))
    torch.save(checkpoint, "nan.ckpt")
    result = lit_ssl("video-sample", "nan.ckpt", "new.mp4")
    assert result.code == 2
    assert result.err.startswith("error: nan.ckpt holds weights that are no finite numbers")
