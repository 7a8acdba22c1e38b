"""A user's own classes in the working folder, by class path."""

from __future__ import annotations

import re

import pytest
import torch
import yaml

CALLBACKS = [
    {"class_path": "LinearProbeEvaluator", "init_args": {"lr": 0.1}},
    {"class_path": "KNNEvaluator", "init_args": {"k": 5}},
    {"class_path": "LowShotEvaluator", "init_args": {"shots": [1, 3]}},
    "CollapseMonitor",
    "ViewLogger",
    "SpeedMonitor",
    "RepresentationReport",
]
OWN = """\
model: user_project.AutoEncoder
data: user_project.Patterns
trainer:
  max_epochs: 4
  accelerator: cpu
  log_every_n_steps: 3
  callbacks: {callbacks}
"""


def metrics(out, group):
    """The values in a table of Lightning's."""
    return {k: float(v) for k, v in re.findall(rf"{group}/(\w+)[ │]+([\d.e-]+)", out)}


def test_subclass_of_a_method_with_an_own_option(lit_ssl, finished, recipe):
    words = ["--model=user_project.ScaledMSN", "--model.feature_scale=2.0"]
    fitted = lit_ssl("fit", *recipe, *words, "--trainer.max_epochs=1")
    assert fitted.code == 0, fitted.err
    hparams = finished().last["hyper_parameters"]
    assert hparams["_class_path"] == "user_project.ScaledMSN"
    assert hparams["feature_scale"] == 2.0
    assert hparams["backbone_kwargs"]["in_chans"] == 1  # of the recipe

    # the option comes from the checkpoint, unless it is given
    rows = []
    for number, more in enumerate(([], ["--model.feature_scale=6.0"])):
        words = [words[0], *more, "--ckpt_path=last", "--trainer.logger=TensorBoardLogger"]
        words += ["--trainer.logger.save_dir=.", f"--trainer.logger.version={number + 7}"]
        assert lit_ssl("predict", *recipe, *words).code == 0
        folder = finished().folder / f"lightning_logs/version_{number + 7}"
        rows.append(torch.load(folder / "predictions.pt", weights_only=True))
    assert torch.allclose(3 * rows[0], rows[1])

    # the checkpoint names the class, but only the user may choose code
    words = ["--data=MNIST5kDataModule", "--ckpt_path=last", "--trainer.accelerator=cpu"]
    words += ["--trainer.callbacks+=KNNEvaluator", "--trainer.callbacks.feature_method=features"]
    refused = lit_ssl("validate", *words)
    assert refused.code == 2
    assert "name it yourself, --model user_project.ScaledMSN" in refused.err
    alone = lit_ssl("validate", "--model=user_project.ScaledMSN", *words)
    assert alone.code == 0, alone.err
    again = lit_ssl("validate", *recipe, "--model=user_project.ScaledMSN", "--ckpt_path=last")
    shown, known = metrics(alone.out, "val"), metrics(again.out, "val")
    assert shown["knn_acc1"] == known["knn_acc1"]
    assert set(shown) == {"knn_acc1", "knn_acc5"}


def test_method_and_data_that_follow_only_the_contract(lit_ssl, tmp_path, finished):
    (tmp_path / "own.yaml").write_text(
        OWN.format(callbacks=yaml.safe_dump(CALLBACKS, default_flow_style=True))
    )
    fitted = lit_ssl("fit", "--config", "own.yaml")
    assert fitted.code == 0, fitted.err
    run = finished()
    assert (run.logs / "views/epoch_0000.png").is_file()
    checkpoint = torch.load(next(run.logs.glob("checkpoints/*.ckpt")), weights_only=True)
    assert checkpoint["callbacks"]["LinearProbeEvaluator"]["head"]["steps"] == 24
    results = metrics(fitted.out, "val")
    assert results["knn_acc1"] > 0.9  # three patterns in little noise
    assert results["linear_acc1"] > 0.9

    validated = lit_ssl("validate", "--config", "own.yaml", "--ckpt_path=last")
    assert validated.code == 0, validated.err
    table = metrics(validated.out, "val")
    assert {name: table[name] for name in results} == pytest.approx(results, abs=1e-3)
    tested = lit_ssl("test", "--config", "own.yaml", "--ckpt_path=last")
    assert tested.code == 0, tested.err
    assert "What the frozen features are worth (AutoEncoder)" in tested.out
    assert re.search(r"untrained +┃", tested.out)
    assert metrics(tested.out, "test")["linear_acc1"] > 0.9


def test_what_breaks_the_contract_is_told_before_it_trains(lit_ssl, tmp_path):
    words = ["--model=user_project.AutoEncoder", "--data=user_project.WithoutBank"]
    result = lit_ssl("fit", *words, "--trainer.callbacks+=KNNEvaluator")
    assert result.code == 2
    assert "error: KNNEvaluator: data module WithoutBank has no bank_dataloader()" in result.err
    assert list(tmp_path.iterdir()) == []
