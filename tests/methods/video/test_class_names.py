"""Names of classes: from the data into checkpoints, and never mixed up."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from lit_ssl.errors import InputError
from lit_ssl.methods import CascadedVideoGAN
from lit_ssl.methods.video.stored_cascade import load_cascade

sys.path.insert(0, str(Path(__file__).parents[2]))
from small_cascades import Blobs, level1, level2, trainer


class Named(Blobs):
    """Moving squares whose classes have names."""

    def __init__(self, level, *names):
        super().__init__(level)
        self.class_names = names


def trained(module, folder, *names, **options):
    """Train a step; returns the checkpoint."""
    runs = trainer(1, folder)
    runs.fit(module, datamodule=Named(module.level, *names), **options)
    runs.save_checkpoint(folder / f"{module.level}.ckpt")
    return folder / f"{module.level}.ckpt"


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Level 1 of the classes right and down."""
    return trained(level1(), tmp_path_factory.mktemp("one"), "go right", "down")


def test_they_are_in_checkpoints_of_every_level(one, tmp_path):
    assert load_cascade(one).class_names == ("go right", "down")
    assert CascadedVideoGAN.load_from_checkpoint(one).class_names == ("go right", "down")
    # level 2 has those of the level below where its data have none, or spell them otherwise
    for names in ((), ("Go_Right", "DOWN")):
        two = trained(level2(str(one)), tmp_path, *names)
        assert load_cascade(two).class_names == (names or ("go right", "down"))
    assert load_cascade(two).class_counts.tolist() == [4, 4]


def test_without_classes_there_are_none(tmp_path):
    assert load_cascade(trained(level1(num_classes=1), tmp_path, "videos")).class_names == ()


def test_checkpoints_from_before(one, tmp_path):
    content = torch.load(one, weights_only=True)
    del content["lit_ssl.cascade"]["class_names"]
    torch.save(content, tmp_path / "old.ckpt")
    assert load_cascade(tmp_path / "old.ckpt").class_names == ()
    module = level1()
    trainer(2, tmp_path).fit(
        module, datamodule=Named(1, "right", "down"), ckpt_path=tmp_path / "old.ckpt"
    )
    assert module.class_names == ("right", "down")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("down", "go right"), "knows class 0 as 'go right', and the data have 'down' in its"),
        (("go right", "up"), "knows class 1 as 'down', and the data have 'up' in its place"),
    ],
)
def test_other_classes_are_refused_at_every_door(names, words, one, tmp_path):
    data = Named(1, *names)
    for door in ("fit", "validate", "predict"):
        with pytest.raises(InputError, match=f"the checkpoint {words}"):
            getattr(trainer(3, tmp_path), door)(level1(), datamodule=data, ckpt_path=one)
        module = CascadedVideoGAN.load_from_checkpoint(one)
        with pytest.raises(InputError, match=f"this model {words}"):
            getattr(trainer(3, tmp_path), door)(module, datamodule=data)
    with pytest.raises(InputError, match=f"1.ckpt {words}"):
        trained(level2(str(one)), tmp_path, *names)
    assert not (tmp_path / "2.ckpt").exists()


@pytest.mark.parametrize("entry", [["one"], [0, 1], "ab", {"a": 1, "b": 2}, [["a"], ["b"]]])
def test_what_is_no_list_of_names(entry, one, tmp_path):
    content = torch.load(one, weights_only=True)
    content["lit_ssl.cascade"]["class_names"] = entry
    torch.save(content, tmp_path / "odd.ckpt")
    for read in (load_cascade, CascadedVideoGAN.load_from_checkpoint):
        with pytest.raises(InputError, match="does not hold names of its 2 classes"):
            read(tmp_path / "odd.ckpt")


@pytest.mark.parametrize("counts", [None, [1.0], [0.0, 0.0], [-1.0, 2.0], [float("nan"), 1.0]])
def test_how_often_classes_come_is_checked(counts, one, tmp_path):
    content = torch.load(one, weights_only=True)
    del content["state_dict"]["class_counts"]
    if counts is not None:
        content["state_dict"]["class_counts"] = torch.tensor(counts)
    torch.save(content, tmp_path / "odd.ckpt")
    with pytest.raises(InputError, match="does not say how often its classes come"):
        load_cascade(tmp_path / "odd.ckpt")
