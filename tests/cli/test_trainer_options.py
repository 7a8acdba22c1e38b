"""Options that do less than they seem, words that are nearly right, and help that can be read."""

from __future__ import annotations

import os
import subprocess
import sys
import types

import pytest

from lit_ssl import __main__ as program
from lit_ssl.cli import words as word_table
from lit_ssl.cli.training import LitSSLCLI

BASE = ["fit", "--config", "recipe.yaml"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("slowmoo", "Did you mean slowmo?"),
        ("ddp_spwan", "Did you mean ddp_spawn?"),
        ("SlowMomentumStrateg", "Did you mean SlowMomentumStrategy?"),
    ],
)
def test_a_strategy_that_is_nearly_right(lit_ssl, name, hint):
    result = lit_ssl(*BASE, "--trainer.strategy", name)
    assert result.code == 2
    line = result.err.splitlines()[-1]
    assert line.startswith(f"error: trainer.strategy: no strategy {name!r}.")
    assert hint in line


def test_a_strategy_of_a_recipe_is_traced(lit_ssl, workdir):
    (workdir / "second.yaml").write_text("trainer: {strategy: slowmoo}")
    result = lit_ssl(*BASE, "--config=second.yaml")
    assert result.err.splitlines()[-1].endswith("(strategy: slowmoo is set in second.yaml)")


def test_checkpoints_of_a_recipe_can_be_switched_off(lit_ssl, workdir):
    (workdir / "second.yaml").write_text(
        "trainer: {callbacks: [{class_path: ModelCheckpoint, init_args: {save_last: true}}]}"
    )
    words = [*BASE, "--config=second.yaml", "--trainer.enable_checkpointing", "false"]
    result = lit_ssl(*words)
    assert result.code == 0, result.err
    assert "enable_checkpointing false: without the recipe's ModelCheckpoint\n" in result.out
    assert list(workdir.rglob("*.ckpt")) == []


CALLBACKS = """\
trainer:
  callbacks:
    - {class_path: KNNEvaluator, init_args: {k: 1}}
    - class_path: SpeedMonitor
"""


def test_an_option_for_the_last_callback(lit_ssl, workdir, monkeypatch):
    (workdir / "second.yaml").write_text(CALLBACKS)
    words = [*BASE, "--config=second.yaml"]
    result = lit_ssl(*words, "--trainer.callbacks.k=5")
    assert result.err == (
        "error: trainer.callbacks.k is for SpeedMonitor, the last of 2, which has no such option; "
        "KNNEvaluator has: give the list again, with it, in a config\n"
    )
    assert lit_ssl(*words, "--trainer.callbacks.init_args.k=5").err == result.err
    monkeypatch.setattr(LitSSLCLI, "_run_subcommand", lambda self, subcommand: None)
    said = "--trainer.callbacks.skip: for SpeedMonitor, the last of 2 callbacks\n"
    assert said in lit_ssl(*words, "--trainer.callbacks.skip=3").out
    result = lit_ssl(*words, "--trainer.callbacks+=KNNEvaluator", "--trainer.callbacks.k=5")
    assert "the last of" not in result.out


@pytest.mark.parametrize("command", ["validate", "test"])
def test_an_evaluation_that_measures_nothing_says_so(lit_ssl, workdir, monkeypatch, command):
    import toy_project

    def step(self, batch, batch_idx):
        pass

    words = [command, "--config", "recipe.yaml"]
    assert "measured nothing" not in lit_ssl(*words).out  # it logs val/loss
    for name in ("validation_step", "test_step"):
        monkeypatch.setattr(toy_project.ToyModel, name, step)
    result = lit_ssl(*words, "--trainer.callbacks+=SpeedMonitor")
    assert result.code == 0, result.err
    assert f"{command} has measured nothing: ToyModel logs no metric by itself" in result.out
    (workdir / "mine.py").write_text(
        "import lightning.pytorch as pl\n\nclass Mine(pl.Callback):\n"
        "    def on_validation_end(self, *args): pass\n    on_test_end = on_validation_end\n"
    )
    monkeypatch.syspath_prepend(workdir)
    assert "nothing" not in lit_ssl(*words, "--trainer.callbacks+=mine.Mine").out


def test_a_logger_without_its_package(lit_ssl, monkeypatch):
    import lightning.pytorch.loggers.wandb as wandb

    class Missing(types.SimpleNamespace):
        def __bool__(self):
            return False

        def __str__(self):
            return "Requirement 'wandb>=0.12.10' not met. HINT: Try running `pip install wandb`"

    monkeypatch.setattr(wandb, "_WANDB_AVAILABLE", Missing())
    result = lit_ssl(*BASE, "--trainer.logger=WandbLogger")
    assert result.code == 2
    assert result.err.splitlines()[-1].startswith("error: Requirement 'wandb>=0.12.10' not met.")
    assert "Traceback" not in result.err


def test_help_of_a_class_is_short(lit_ssl):
    result = lit_ssl("fit", "--model.help", "MSN")
    assert result.code == 0
    assert len(result.out.splitlines()) < 200
    assert "torch.nn.Identity" not in result.out
    assert "--model.mask_ratio" in result.out
    words = lit_ssl("fit", "--data.help", "CIFAR10DataModule").out.split()
    assert "known subclasses: lit_ssl.transforms.MultiCrop" in " ".join(words)


def test_help_of_the_class_that_was_named(lit_ssl, workdir):
    wanted = lit_ssl("fit", "--data.help", "CIFAR10DataModule").out
    assert "--data.root" in wanted
    assert lit_ssl("fit", "--data", "CIFAR10DataModule", "--data.help").out == wanted
    (workdir / "data.yaml").write_text("data: {class_path: CIFAR10DataModule}")
    assert lit_ssl("fit", "--config", "data.yaml", "--data.help").out == wanted
    for part, example in (("model", "MSN"), ("data", "CIFAR10DataModule")):
        result = lit_ssl("fit", f"--{part}.help")
        assert result.err == (
            f"error: --{part}.help of which class? Write it behind, as --{part}.help {example}\n"
        )


def test_a_reader_that_has_seen_enough(tmp_path):
    """`lit-ssl configs | head -1`: no traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "lit_ssl", "configs"], cwd=tmp_path, stdout=writing,
        stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode == 1


def test_a_broken_pipe_of_others_keeps_its_traceback(monkeypatch):
    space = {"__name__": "multiprocessing.connection"}
    exec("def send(words): raise BrokenPipeError('a worker is gone')", space)
    section = {"configs": word_table.Word("", space["send"])}
    monkeypatch.setattr(word_table, "WORDS", {"": section})
    monkeypatch.setattr(sys, "argv", ["lit-ssl", "configs"])
    with pytest.raises(BrokenPipeError):
        program.main()
