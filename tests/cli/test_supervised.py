"""The supervised recipes, and strategies in recipes, on the command line."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import yaml

from lit_ssl.checkpoints.newest import newest_checkpoint
from lit_ssl.cli.recipes import packaged_config
from lit_ssl.strategies import LocalSGDStrategy, SlowMomentumStrategy

IMAGENET = ("ddp", "local_sgd", "slowmo", "post_local")
QUICK = [
    "--trainer.max_epochs=2",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.check_val_every_n_epoch=1",
]


def load(name):
    return yaml.safe_load(packaged_config(name).read_text())


def test_classifier_learns_real_digits_and_its_checkpoint_is_tested(lit_ssl, workdir):
    words = ["--config=supervised/mnist5k.yaml", *QUICK, "--trainer.default_root_dir=runs"]
    few = ["--data.subset.fraction=0.8", "--data.val_size=2000", "--model.warmup_epochs=0.5"]
    assert lit_ssl("fit", *words, *few).code == 0
    result = lit_ssl("test", *words, "--ckpt_path=last")
    assert result.code == 0, result.err
    path = newest_checkpoint([workdir / "runs"]).path
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["hyper_parameters"]["num_classes"] == 10
    accuracy = float(result.out.partition("test/acc1")[2].split("│")[1])
    assert accuracy > 0.5


def test_optimizer_and_data_of_the_command_line(built):
    cli = built(
        "fit", "--config=supervised/mnist5k.yaml", "--model.optimizer=AdamW", "--model.lr=1e-3"
    )  # fmt: skip
    assert isinstance(
        cli.model.optimizer_factory([torch.nn.Parameter(torch.ones(1))]), torch.optim.AdamW
    )
    assert (cli.model.num_classes, cli.model.lr) == (10, 1e-3)


def test_a_classifier_without_classes_is_refused_in_one_line(lit_ssl):
    data = ["--data", "toy_project.UnnamedData"]
    result = lit_ssl("fit", "--config=recipe.yaml", "--model=ImageClassifier", *data)
    assert result.code == 2
    assert "error: ImageClassifier needs num_classes" in result.err


def test_imagenet_recipes_differ_in_the_strategy_only():
    configs = {name: load(f"supervised/imagenet_rn50_{name}.yaml") for name in IMAGENET}
    strategies = {name: config["trainer"].pop("strategy") for name, config in configs.items()}
    assert all(config == configs["ddp"] for config in configs.values())
    inits = {name: strategies[name]["init_args"] for name in IMAGENET[1:]}
    assert strategies["ddp"] == "ddp"
    for name in IMAGENET[1:]:
        common = {"sync_every": 12, "group_size": 8, "buffers": "reset"}
        assert common.items() <= inits[name].items()
    # 30 of 90 epochs, whatever their length: the first drop of the learning rate
    share = inits["post_local"]["warmup_steps"]
    assert configs["ddp"]["model"]["init_args"]["milestones"][0] == 30
    for per_epoch in (156, 312, 5004):
        assert round(share * 90 * per_epoch) == 30 * per_epoch


@pytest.mark.parametrize("name", IMAGENET[1:])
def test_imagenet_recipes_build_their_strategies(built, name, tmp_path):
    # no ImageNet here: the data is another's, the rest is the recipe's
    config = load(f"supervised/imagenet_rn50_{name}.yaml")
    config["data"] = {"class_path": "MNIST5kDataModule"}
    config["trainer"] |= {"accelerator": "cpu", "devices": 1, "precision": "32"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(config))
    strategy = built("fit", "--config=recipe.yaml").trainer.strategy
    expected = SlowMomentumStrategy if name == "slowmo" else LocalSGDStrategy
    assert type(strategy) is expected
    assert strategy.options.sync_every == 12


def test_msn_slowmo_is_msn_without_collectives_in_local_steps():
    plain, slow = load("msn/mnist5k.yaml"), load("msn/mnist5k_slowmo.yaml")
    assert slow["model"]["init_args"].pop("gather") is False
    assert slow["model"] == plain["model"]
    per_process = slow["data"]["init_args"].pop("batch_size")
    assert slow["trainer"]["devices"] * per_process == plain["data"]["init_args"].pop("batch_size")
    assert slow["data"] == plain["data"]
    names = [c["class_path"] for c in slow["trainer"]["callbacks"]]
    assert "LinearProbeEvaluator" not in names
    assert "SyncMonitor" in names


@pytest.mark.slow
@pytest.mark.distributed
def test_msn_slowmo_trains_on_two_processes(workdir, environment):
    words = [*QUICK, "--trainer.max_epochs=5", "--data.subset.fraction=0.1"]
    words += ["--trainer.callbacks=SyncMonitor", "--trainer.num_sanity_val_steps=0"]
    words += ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=runs"]
    done = subprocess.run(
        [sys.executable, "-m", "lit_ssl", "fit", "--config", "msn/mnist5k_slowmo.yaml", *words],
        env=environment, cwd=workdir, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    checkpoint = torch.load(newest_checkpoint([workdir / "runs"]).path, weights_only=True)
    assert checkpoint["global_step"] == 10  # one round of 8, and two steps of the next
    log = next((workdir / "runs").rglob("metrics.csv")).read_text().splitlines()
    column = log[0].split(",").index("strategy/H")
    assert [row.split(",")[column] for row in log[1:] if row.split(",")[column]] == ["8.0"]
