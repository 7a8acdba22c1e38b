"""fit, validate, test, predict: defaults, callbacks, saved config, the lines after a run."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichModelSummary, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from safetensors.torch import load_file

from lit_ssl.callbacks import LastCheckpoint, LastValidation, SlurmRequeue, StepSeeder
from lit_ssl.cli.parser import LitSSLParser

BASE = ["--config", "recipe.yaml"]


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_commands_run(lit_ssl, command):
    result = lit_ssl(command, *BASE)
    assert (result.code, result.err.count("error")) == (0, 0)


def test_defaults(built):
    cli = built("fit", "--model", "toy_project.ToyModel", "--data", "toy_project.ToyData")
    kinds = [type(callback) for callback in cli.trainer.callbacks]
    assert kinds.count(StepSeeder) == 1
    assert RichProgressBar in kinds
    assert sum(issubclass(kind, RichModelSummary) for kind in kinds) == 1
    assert isinstance(cli.trainer.logger, TensorBoardLogger)
    assert cli.config.fit.seed_everything == 0


def test_a_step_seeder_of_the_user_stays_the_only_one(built):
    words = ["--trainer.callbacks+=StepSeeder", "--trainer.callbacks.seed=7"]
    cli = built("fit", *BASE, *words)
    seeders = [c for c in cli.trainer.callbacks if isinstance(c, StepSeeder)]
    assert [seeder.seed for seeder in seeders] == [7]


def test_same_seed_same_weights(built):
    first, second = (built("fit", *BASE).model.layers[1].weight for _ in range(2))
    other = built("fit", *BASE, "--seed_everything", "1").model.layers[1].weight
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_other_seed_other_order_of_the_data(lit_ssl, workdir, monkeypatch):
    def losses(*words):
        monkeypatch.setenv("LOSSES", str(workdir / "losses.txt"))
        (workdir / "losses.txt").unlink(missing_ok=True)
        assert lit_ssl("fit", *BASE, "--model.lr=0", *words).code == 0
        return (workdir / "losses.txt").read_text()

    first = losses("--seed_everything=5")
    assert losses("--seed_everything=5") == first
    # the model is the same in both: only the order of the images differs
    assert losses("--seed_everything=5", "--data.seed=6") != first


def test_run_tells_where_results_lie_and_saves_a_config_that_repeats_it(lit_ssl, workdir, built):
    words = ["--trainer.logger=true", "--trainer.default_root_dir=run", "--model.lr=0.5"]
    result = lit_ssl("fit", *BASE, *words)
    version = "run/lightning_logs/version_0"
    assert f"checkpoints: {version}/checkpoints\nlogs: {version}\n" in result.out
    saved = workdir / version / "config.yaml"
    assert yaml.safe_load(saved.read_text())["model"]["init_args"]["lr"] == 0.5
    assert built("fit", "--config", saved).model.hparams.lr == 0.5


def test_config_is_overwritten_without_a_logger(lit_ssl):
    assert [lit_ssl("fit", *BASE).code for _ in range(2)] == [0, 0]


def test_fast_dev_run_leaves_nothing(lit_ssl, workdir):
    before = set(workdir.iterdir())
    result = lit_ssl("fit", *BASE, "--trainer.fast_dev_run=true")
    assert (result.code, result.out.count("checkpoints:")) == (0, 0)
    assert set(workdir.iterdir()) == before


def test_fast_dev_run_writes_no_last_checkpoint(lit_ssl, workdir):
    before = set(workdir.iterdir())
    words = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.save_last=true"]
    assert lit_ssl("fit", *BASE, *words, "--trainer.fast_dev_run=true").code == 0
    assert set(workdir.iterdir()) == before


def test_config_of_the_user_in_the_working_folder_is_left_alone(lit_ssl, workdir):
    (workdir / "config.yaml").write_text((workdir / "recipe.yaml").read_text())
    for command in ("fit", "test"):
        assert lit_ssl(command, "--config", "config.yaml", "--model.lr=0.5").code == 0
    assert "lr: 0.2" in (workdir / "config.yaml").read_text()
    assert lit_ssl("fit", "--config", "config.yaml", "--trainer.default_root_dir=run").code == 0
    assert "lr: 0.2" in (workdir / "run/config.yaml").read_text()


@pytest.mark.parametrize("epochs", [2, 3, 5])
def test_last_checkpoint_is_the_end_of_the_run(lit_ssl, workdir, epochs):
    often = {"class_path": "ModelCheckpoint", "init_args": {"save_last": True, "every_n_epochs": 2}}
    (workdir / "often.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [often]}}))
    words = ["fit", *BASE, "--config", "often.yaml", "--trainer.max_epochs=6"]
    assert lit_ssl(*words, f"--trainer.max_epochs={epochs}").code == 0
    last = torch.load("checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 6 * epochs
    # and it can be continued to where a longer run would have come
    (workdir / "checkpoints").rename(workdir / "first")
    assert lit_ssl(*words, "--ckpt_path", "first/last.ckpt").code == 0
    resumed = torch.load("checkpoints/last.ckpt", weights_only=True)
    (workdir / "checkpoints").rename(workdir / "second")
    assert lit_ssl(*words).code == 0
    whole = torch.load("checkpoints/last.ckpt", weights_only=True)
    assert resumed["global_step"] == whole["global_step"] == 36
    assert all(torch.equal(resumed["state_dict"][k], v) for k, v in whole["state_dict"].items())


def test_predictions_are_kept(lit_ssl, workdir):
    result = lit_ssl("predict", *BASE, "--trainer.default_root_dir=run")
    assert result.out.splitlines()[-1] == "predictions: run/predictions.pt"
    rows = torch.load("run/predictions.pt", weights_only=True)
    assert rows.shape == (8, 4)
    assert sorted(path.name for path in (workdir / "run").iterdir()) == [
        "predictions.csv",
        "predictions.pt",
        "predictions.safetensors",
    ]
    # images in memory have no names
    assert (workdir / "run/predictions.csv").read_text().splitlines()[:2] == [
        "row,file,label,class",
        "0,,0,a",
    ]
    assert torch.equal(load_file("run/predictions.safetensors")["predictions"], rows)


def test_optimizer_with_options(built):
    words = ["--model.optimizer", "SGD", "--model.optimizer.lr", "0.25"]
    model = built("fit", *BASE, *words).model
    assert model.hparams.optimizer["class_path"] == "torch.optim.SGD"


def test_print_config_round_trip(lit_ssl, workdir, built):
    shown = lit_ssl("fit", *BASE, "--model.lr=0.75", "--print_config")
    assert shown.code == 0
    (workdir / "again.yaml").write_text(shown.out)
    assert built("fit", "--config", "again.yaml").model.hparams.lr == 0.75


@pytest.mark.parametrize("words", [["fit", "--help"], ["fit", "--model.help", "MSN"]])
def test_help(lit_ssl, words):
    result = lit_ssl(*words)
    assert result.code == 0
    assert "--trainer.max_epochs" in result.out or "--model.mask_ratio" in result.out


def test_no_advertisements(lit_ssl):
    result = lit_ssl("fit", *BASE)
    assert "Tip" not in result.out + result.err


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_by_torchrun(workdir, environment):
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "lit_ssl"]
    words += [
        "fit",
        *BASE,
        "--trainer.devices=2",
        "--trainer.strategy=ddp",
        "--trainer.logger=true",
    ]
    done = subprocess.run(
        [sys.executable, *words], cwd=workdir, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("checkpoints: ") == 1
    assert len(list(workdir.glob("lightning_logs/*/config.yaml"))) == 1


def test_callbacks_of_every_run_that_a_user_lists_stay_single(built):
    kinds = [ModelCheckpoint, LastCheckpoint, LastValidation, StepSeeder, SlurmRequeue]
    words = [f"--trainer.callbacks+={kind.__name__}" for kind in kinds]
    callbacks = built("fit", *BASE, *words).trainer.callbacks
    assert [sum(type(c) is kind for c in callbacks) for kind in kinds] == [1] * len(kinds)


class Odd(Callback):
    def __init__(self, part: float | int | None = None):
        pass


def test_a_whole_number_stays_one_whatever_was_imported_first(built):
    parser = LitSSLParser()
    parser.add_lightning_class_args(Odd, "odd")
    for text, value in (("1", 1), ("1.0", 1.0), ("0.5", 0.5), ("null", None)):
        read = parser.parse_args([f"--odd.part={text}"]).odd.part
        assert (read, type(read)) == (value, type(value))
    cli = built("fit", *BASE, "--trainer.limit_val_batches=1")
    assert cli.trainer.limit_val_batches == 1
    assert isinstance(cli.trainer.limit_val_batches, int)


SELDOM = ["--trainer.max_epochs=3", "--trainer.check_val_every_n_epoch=10"]


def test_a_fit_shorter_than_its_interval_ends_with_results_and_a_checkpoint(lit_ssl, recwarn):
    result = lit_ssl("fit", *BASE, *SELDOM)
    assert "results: val/loss" in result.out
    assert sum("validated only at its end" in str(warning.message) for warning in recwarn) == 1
    assert lit_ssl("fit", *BASE, "--ckpt_path=last", "--trainer.max_epochs=4").code == 0


@pytest.mark.parametrize(("data", "steps"), [("Unvalidated", 6), ("MyData", 2)])
@pytest.mark.parametrize(("words", "epochs"), [([], 1), (SELDOM, 3)])
def test_a_fit_without_validation_images_says_so_and_leaves_a_checkpoint(
    lit_ssl, workdir, recwarn, data, steps, words, epochs
):
    result = lit_ssl("fit", *BASE, *words, f"--data=toy_project.{data}")
    assert result.code == 0, result.err
    line = "nothing is validated in this fit: there are no validation data"
    assert sum(line in str(warning.message) for warning in recwarn) == 1
    (path,) = (workdir / "checkpoints").iterdir()
    assert torch.load(path, weights_only=True)["global_step"] == steps * epochs
    assert f"results: step {steps * epochs}\n" in result.out


@pytest.mark.parametrize(
    ("command", "words", "why"),
    [
        ("validate", ["--data=toy_project.Unvalidated"], "Unvalidated has no images for it"),
        ("validate", ["--trainer.limit_val_batches=0"], "limit_val_batches is 0"),
        ("test", ["--trainer.limit_test_batches=0"], "limit_test_batches is 0"),
        ("predict", ["--trainer.limit_predict_batches=0"], "limit_predict_batches is 0"),
    ],
)
def test_an_evaluation_of_nothing_is_refused(lit_ssl, workdir, command, words, why):
    before = set(workdir.iterdir())
    result = lit_ssl(command, *BASE, *words)
    assert (result.code, set(workdir.iterdir())) == (2, before)
    assert f"error: {command} did nothing: {why}\n" in result.err


def test_commands_that_follow_a_fit(lit_ssl, workdir):
    words = ["fit", *BASE, "--trainer.logger=true", "--trainer.default_root_dir=run"]
    result = lit_ssl(*words, "--then=validate,test, predict")
    assert result.code == 0, result.err
    for command in ("validate", "test", "predict"):
        assert f"\n{command}: the end of the training\n" in result.out
    assert result.out.index("Validate metric") < result.out.index("Test metric")
    (saved,) = (workdir / "run").rglob("config.yaml")
    (predictions,) = (workdir / "run").rglob("predictions.pt")
    assert result.out.splitlines()[-1] == f"predictions: {predictions.relative_to(workdir)}"
    assert "then" not in yaml.safe_load(saved.read_text())
    assert lit_ssl("test", "--config", saved).code == 0


def test_what_follows_a_fit_takes_the_checkpoint_that_a_monitor_chose(lit_ssl, workdir):
    best = {"monitor": "val/loss", "filename": "best", "dirpath": "kept"}
    callback = {"class_path": "ModelCheckpoint", "init_args": best}
    (workdir / "best.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [callback]}}))
    words = ["fit", *BASE, "--config=best.yaml", "--data.val_size=4", "--trainer.max_epochs=3"]
    result = lit_ssl(*words, "--then=test")
    assert result.code == 0, result.err
    assert "\ntest: kept/best.ckpt\n" in result.out


@pytest.mark.parametrize("word", ["tset", "fit", "test;validate"])
def test_what_cannot_follow_a_fit_is_refused_before_it(lit_ssl, workdir, word):
    before = set(workdir.iterdir())
    result = lit_ssl("fit", *BASE, f"--then=validate,{word}")
    assert (result.code, set(workdir.iterdir())) == (2, before)
    assert f"--then takes validate, test, predict, with commas between them, not {word!r}" in (
        result.err
    )
