"""Runs that meet numbers that are none: exit status, the line that goes on, options."""

from __future__ import annotations

import shlex

import pytest
import torch

OFTEN = """\
trainer:
  max_epochs: 2
  callbacks:
  - class_path: ModelCheckpoint
    init_args: {every_n_train_steps: 2, save_last: true}
  - class_path: spoiler.Spoiler
"""
SPOILER = """\
import lightning.pytorch as pl
import torch


class Spoiler(pl.Callback):
    def on_train_batch_end(self, trainer, pl_module, *args):
        if trainer.global_step == 5 and trainer.ckpt_path is None:
            with torch.no_grad():
                pl_module.layers[1].weight[0] = torch.nan
"""


def test_a_run_stops_with_the_line_that_goes_on(lit_ssl, workdir, monkeypatch):
    (workdir / "often.yaml").write_text(OFTEN)
    (workdir / "spoiler.py").write_text(SPOILER)
    monkeypatch.syspath_prepend(workdir)
    result = lit_ssl("fit", "--config", "recipe.yaml", "--config", "often.yaml")
    assert result.code == 2
    (line,) = (line for line in result.err.splitlines() if line.startswith("error:"))
    assert line.startswith("error: loss of step 6 and weight layers.1.weight are NaN or infinite;")
    assert line.endswith("last.ckpt")
    advice = next(line for line in result.out.splitlines() if line.startswith("stopped at step 6"))
    assert advice.endswith("--data.seed 1 (the data then come in another order)")
    words = shlex.split(advice.partition("to go on: ")[2].partition(" (the data")[0])
    path = words[words.index("--ckpt_path") + 1]
    saved = torch.load(path, weights_only=True)
    assert saved["global_step"] == 4
    assert all(tensor.isfinite().all() for tensor in saved["state_dict"].values())
    with pytest.warns(UserWarning, match="the order of the samples has changed since"):
        again = lit_ssl(*words[1:])
    assert again.code == 0, again.err
    assert "step 12" in again.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.lr=.nan"], "model.lr must be a finite number >= 0, not nan"),
        (["--model.lr=.inf"], "model.lr must be a finite number >= 0, not inf"),
        (["--model.lr=-0.1"], "model.lr must be a finite number >= 0, not -0.1"),
        (
            ["--trainer.gradient_clip_val=.nan"],
            "trainer.gradient_clip_val must be a finite number >= 0, not nan",
        ),
        (
            ["--trainer.strategy=SlowMomentumStrategy", "--trainer.strategy.slow_momentum=.nan"],
            "slow_momentum must be a finite number >= 0, not nan",
        ),
    ],
)
def test_rates_that_are_none_are_one_line(lit_ssl, workdir, words, message):
    result = lit_ssl("fit", "--config", "recipe.yaml", *words)
    assert result.code == 2
    assert message in result.err
    assert len([line for line in result.err.splitlines() if line.startswith("error:")]) == 1
