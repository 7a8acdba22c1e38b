"""Files of levels below: foreign, damaged, diverged, changed; nothing in them is trusted."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch

from lit_ssl.callbacks import FiniteGuard
from lit_ssl.errors import InputError, NonFiniteError
from lit_ssl.methods import CascadedVideoGAN
from lit_ssl.methods.video.stored_cascade import load_generators

sys.path.insert(0, str(Path(__file__).parents[2]))
from small_cascades import Blobs, fit, level1, level2, trainer


def changed(source, folder, change):
    """A copy of a checkpoint in which something is different."""
    content = torch.load(source, weights_only=True)
    change(content)
    torch.save(content, folder / "changed.ckpt")
    return folder / "changed.ckpt"


def described(**values):
    return lambda content: content["lit_ssl.cascade"]["levels"][0].update(values)


def with_nan(content):
    content["state_dict"]["generator_ema.out_conv.bias"].fill_(float("nan"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["lit_ssl.cascade"].update(levels=[]), "describes no level"),
        (lambda c: c.update(state_dict=[1]), "holds other things than weights"),
        (lambda c: c.update(state_dict={"generator_ema.x": "y"}), "other things than weights"),
        # terabytes, if they were made before they are compared
        (described(channels=100_000), "lacks weights of the levels that it describes"),
        (described(num_classes=10**18), "levels too large to be made|lacks weights"),
        (described(candidate_act="gelu"), "candidate_act must be 'relu' or 'tanh'"),
        (with_nan, r"no finite numbers \(levels.0.out_conv.bias\): its training has diverged"),
    ],
)
def test_damaged_files_are_one_line(change, words, trained_level1, tmp_path):
    with pytest.raises(InputError, match=words):
        load_generators(changed(trained_level1, tmp_path, change))


def test_what_is_no_file_of_a_checkpoint(trained_level1, tmp_path):
    (tmp_path / "cut.ckpt").write_bytes(trained_level1.read_bytes()[:5000])
    (tmp_path / "empty.ckpt").touch()
    for name, words in (
        ("cut.ckpt", "cannot be read as a checkpoint"),
        ("empty.ckpt", "cannot be read as a checkpoint"),
        (".", "is a folder: give a checkpoint in it"),
    ):
        with pytest.raises(InputError, match=words):
            level2(str(tmp_path / name)).setup("fit")


def test_weights_do_not_hang_on_the_file(trained_level1, tmp_path):
    shutil.copy(trained_level1, tmp_path / "copy.ckpt")
    cascade = load_generators(tmp_path / "copy.ckpt")
    before = {name: value.clone() for name, value in cascade.state_dict().items()}
    with open(tmp_path / "copy.ckpt", "r+b") as file:  # in place, as if written anew
        file.write(bytes(Path(file.name).stat().st_size))
    assert all(torch.equal(value, before[n]) for n, value in cascade.state_dict().items())
    assert not any(p.requires_grad for p in cascade.parameters())


def test_a_previous_file_that_has_changed_since(trained_level1, tmp_path):
    shutil.copy(trained_level1, tmp_path / "below.ckpt")
    module = level2(str(tmp_path / "below.ckpt"))
    fit(module, tmp_path, 1).save_checkpoint(tmp_path / "level2.ckpt", weights_only=False)
    fit(level1(), tmp_path, 1).save_checkpoint(tmp_path / "below.ckpt", weights_only=False)
    with pytest.warns(UserWarning, match=r"has changed since .* inside the checkpoint are used"):
        again = CascadedVideoGAN.load_from_checkpoint(tmp_path / "level2.ckpt", weights_only=True)
    wanted = torch.load(trained_level1, weights_only=True)["state_dict"]
    for name, value in again.lower.levels[0].state_dict().items():
        assert torch.equal(value, wanted[f"generator_ema.{name}"])


def test_a_diverged_training_stops(tmp_path):
    module = level1()
    with torch.no_grad():
        module.discriminators["clip"].head.linear.bias.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match=r"weight discriminators.clip.head.linear.bias is NaN"):
        fit(module, tmp_path, 5, callbacks=[FiniteGuard()])


def test_a_level_without_training_says_so(trained_level1, tmp_path):
    for door in ("validate", "predict"):
        with pytest.warns(UserWarning, match="level 2 has not been trained"):
            getattr(trainer(1, tmp_path), door)(level2(str(trained_level1)), datamodule=Blobs(2))
        with pytest.raises(InputError, match="no trained level 2 here: give its checkpoint"):
            getattr(trainer(1, tmp_path), door)(level2(None), datamodule=Blobs(2))


def test_a_checkpoint_without_its_steps_is_one_line(trained_level1, tmp_path):
    path = changed(trained_level1, tmp_path, lambda c: c["state_dict"].pop("g_step"))
    with pytest.raises(InputError, match="lacks its number of steps"):
        CascadedVideoGAN.load_from_checkpoint(path, weights_only=True)
