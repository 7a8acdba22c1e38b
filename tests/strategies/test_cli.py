"""Strategies from the command line: class paths, short names, overrides, printed configs."""

from __future__ import annotations

import sys

import pytest
import yaml

from lit_ssl.__main__ import main
from lit_ssl.cli.training import LitSSLCLI
from lit_ssl.strategies import DiLoCoStrategy, LocalSGDStrategy, SlowMomentumStrategy

RECIPE = """\
model: lightning.pytorch.demos.boring_classes.BoringModel
data: lightning.pytorch.demos.boring_classes.BoringDataModule
trainer:
  accelerator: cpu
  devices: 1
  logger: false
  strategy:
    class_path: lit_ssl.strategies.SlowMomentumStrategy
    init_args: {sync_every: 12, slow_momentum: 0.6, buffers: reset, warmup_steps: 1000}
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def build(*words):
    return LitSSLCLI(args=list(words), run=False).trainer.strategy


def test_class_path_with_arguments(recipe):
    strategy = build("--config", "recipe.yaml")
    assert isinstance(strategy, SlowMomentumStrategy)
    options = strategy.options
    assert (options.sync_every, options.buffers, options.warmup_steps) == (12, "reset", 1000)
    assert strategy.slow_momentum == 0.6


def test_typed_values_win(recipe):
    strategy = build(
        "--config", "recipe.yaml", "--trainer.strategy.sync_every=2",
        "--trainer.strategy.bucket_cap_mb=5", "--trainer.strategy.static_graph=false",
        "--trainer.strategy.eval_params=slow",
    )  # fmt: skip
    assert (strategy.options.sync_every, strategy.options.eval_params) == (2, "slow")
    assert strategy.options.bucket_cap_mb == strategy._ddp_kwargs["bucket_cap_mb"] == 5
    assert strategy.slow_momentum == 0.6


def test_other_class_and_its_arguments(recipe):
    words = ["--trainer.strategy", "DiLoCoStrategy", "--trainer.strategy.sync_every", "100"]
    words += ["--trainer.strategy.outer_optimizer", "torch.optim.SGD"]
    words += ["--trainer.strategy.outer_optimizer.lr", "0.5"]
    (recipe / "plain.yaml").write_text(RECIPE[: RECIPE.index("  strategy:")])
    strategy = build("--config", "plain.yaml", *words)
    assert isinstance(strategy, DiLoCoStrategy)
    assert strategy.options.sync_every == 100
    assert strategy.outer_optimizer is not None


@pytest.mark.parametrize(
    ("name", "cls", "setting"),
    [
        ("local_sgd", LocalSGDStrategy, ("warmup_steps", 0)),
        ("post_local_sgd", LocalSGDStrategy, ("warmup_steps", 0.5)),
        ("slowmo", SlowMomentumStrategy, ("sync_every", 8)),
        ("slowmo_bmuf", SlowMomentumStrategy, ("sync_every", 8)),
        ("diloco", DiLoCoStrategy, ("sync_every", 500)),
    ],
)
def test_short_names(recipe, name, cls, setting):
    strategy = build("--config", "recipe.yaml", f"--trainer.strategy={name}")
    assert type(strategy) is cls
    assert getattr(strategy.options, setting[0]) == setting[1]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("[[0, 4], [1000, 8]]", [4, 8]), ("{coefficient: 0.2, max_every: 64}", 64)],
)
def test_schedules(recipe, schedule, expected):
    (recipe / "s.yaml").write_text(RECIPE.replace("sync_every: 12", f"sync_schedule: {schedule}"))
    schedule = build("--config", "s.yaml").schedule
    assert (schedule.rule.max_every if schedule.rule else schedule.periods) == expected


def run(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["lit-ssl", "fit", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code, *capsys.readouterr()


def test_printed_config_can_be_read_again(recipe, monkeypatch, capsys):
    code, printed, error = run(monkeypatch, capsys, "--config", "recipe.yaml", "--print_config")
    assert code == 0, error
    arguments = yaml.safe_load(printed)["trainer"]["strategy"]["init_args"]
    assert (arguments["sync_every"], arguments["buffers"]) == (12, "reset")
    assert arguments["find_unused_parameters"] is False  # of DistributedDataParallel
    (recipe / "again.yaml").write_text(printed)
    code, again, error = run(monkeypatch, capsys, "--config", "again.yaml", "--print_config")
    assert code == 0, error
    assert again == printed


def test_mistyped_option_is_explained_in_one_line(recipe, monkeypatch, capsys):
    words = ("--config", "recipe.yaml", "--trainer.strategy.sync_evry=3")
    code, _, error = run(monkeypatch, capsys, *words)
    assert code == 2
    assert "SlowMomentumStrategy has no option 'sync_evry'. Did you mean sync_every?" in error
