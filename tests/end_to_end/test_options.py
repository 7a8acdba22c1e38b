"""Recipes with other options: a printed configuration, precision, two processes."""

from __future__ import annotations

import re

import pytest
import torch
import yaml

from lit_ssl.cli.recipes import list_configs

RECIPES = [name for name in list_configs() if name.startswith("msn/")]


@pytest.mark.parametrize("name", RECIPES)
def test_printed_configuration_is_the_recipe(lit_ssl, tmp_path, name):
    shown = lit_ssl("fit", "--config", name, "--print_config")
    assert shown.code == 0, shown.err
    (tmp_path / "printed.yaml").write_text(shown.out)
    again = lit_ssl("fit", "--config", "printed.yaml", "--print_config")
    assert again.out == shown.out


def test_printed_configuration_builds_the_same(lit_ssl, built, tmp_path, imagenet):
    name = "msn/imagenet_vits16.yaml"
    words = ["--data.root", imagenet, "--model.optimizer=SGD", "--model.optimizer.lr=0.5"]
    (tmp_path / "printed.yaml").write_text(
        lit_ssl("fit", "--config", name, *words, "--print_config").out
    )
    with torch.device("meta"):
        recipe = built("fit", "--config", name, *words)
        printed = built("fit", "--config", "printed.yaml")
    assert printed.model.hparams == recipe.model.hparams
    assert printed.datamodule.hparams == recipe.datamodule.hparams
    kinds = [[type(c) for c in made.trainer.callbacks] for made in (recipe, printed)]
    assert kinds[0] == kinds[1]


def test_saved_configuration_repeats_the_run(trained, lit_ssl, finished, tmp_path):
    result = lit_ssl("fit", "--config", trained.logs / "config.yaml")
    assert result.code == 0, result.err
    assert finished().losses == trained.losses
    saved = [
        yaml.safe_load((run.logs / "config.yaml").read_text()) for run in (trained, finished())
    ]
    assert saved[0] == saved[1]


@pytest.mark.parametrize("augment", ["device", "worker"])
def test_bf16(trained, lit_ssl, finished, recipe, augment):
    words = [
        "--trainer.precision=bf16-mixed",
        "--trainer.max_epochs=1",
        f"--data.augment={augment}",
    ]
    result = lit_ssl("fit", *recipe, *words)
    assert result.code == 0, result.err
    run = finished()
    assert {w.dtype for w in run.last["state_dict"].values() if w.is_floating_point()} == {
        torch.float32
    }
    if augment == "device":  # the same start, in another precision
        exact, rounded = (float.fromhex(r.losses["1"]) for r in (trained, run))
        assert exact != rounded
        assert exact == pytest.approx(rounded, rel=0.02)


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes(console_script, lit_ssl, finished, recipe, tmp_path):
    words = ["--trainer.devices=2", "--trainer.strategy=ddp", "--data.batch_size=32"]
    result = console_script("fit", *recipe, *words, "--trainer.max_epochs=1")
    assert result.code == 0, result.err
    assert len(list(tmp_path.glob("lightning_logs/*/events*"))) == 1
    assert [result.out.count(word) for word in ("results: ", "checkpoints: ", "logs: ")] == [
        1,
        1,
        1,
    ]
    assert finished().last["global_step"] == 6

    # one process evaluates the checkpoint to the same numbers
    alone = lit_ssl("validate", *recipe, "--ckpt_path=last")
    assert alone.code == 0, alone.err
    shown = re.findall(r"(val/\w+) ([\d.]+)", result.out.split("results: ")[1])
    assert len(shown) == 6
    for name, value in shown:
        (found,) = re.findall(rf"{name}\D+([\d.]+)", alone.out)
        assert float(found) == pytest.approx(float(value), abs=1e-4)
