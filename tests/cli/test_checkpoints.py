"""--ckpt_path: what is given beats the checkpoint, which beats the defaults; `last` is found."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from lit_ssl.checkpoints import whole
from lit_ssl.checkpoints.newest import newest_checkpoint
from lit_ssl.cli.resume import run_folders

sys.path.insert(0, str(Path(__file__).parents[1]))
from damages import flip_bit

BASE = ["--config", "recipe.yaml"]


@pytest.fixture
def trained(lit_ssl, workdir):
    """Runs `fit` with the given words; returns the checkpoint."""

    def run(*words):
        assert lit_ssl("fit", *BASE, *words, "--trainer.default_root_dir=made").code == 0
        return newest_checkpoint([workdir / "made"]).path

    return run


@pytest.fixture
def made_in_python(workdir):
    """Trains a module in Python; returns its checkpoint."""

    def run(module, name="python.ckpt"):
        from toy_project import ToyData

        trainer = pl.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        )  # fmt: skip
        trainer.fit(module, ToyData())
        trainer.save_checkpoint(workdir / name)
        return workdir / name

    return run


def test_given_beats_checkpoint_beats_default(trained, built):
    path = trained("--model.width=5", "--model.mode=gelu", "--model.lr=0.4")
    hparams = built("fit", *BASE, "--ckpt_path", path).model.hparams
    assert (hparams.lr, hparams.width, hparams.mode) == (0.2, 5, "gelu")
    hparams = built("fit", *BASE, "--ckpt_path", path, "--model.lr=0.6").model.hparams
    assert (hparams.lr, hparams.width) == (0.6, 5)


def test_given_class_beats_the_class_of_the_checkpoint(trained, built):
    path = trained()
    words = ["--model", "toy_project.OtherModel", "--ckpt_path", path]
    model = built("fit", "--data", "toy_project.ToyData", *words).model
    assert (type(model).__name__, model.lr) == ("OtherModel", 0.3)


def test_checkpoint_names_the_model(trained, lit_ssl, built):
    path = trained("--model.width=5", "--model.optimizer=SGD", "--model.optimizer.lr=0.3")
    words = ["--data", "toy_project.ToyData", "--ckpt_path", path, "--trainer.logger=false"]
    model = built("test", *words).model
    assert (type(model).__name__, model.hparams.width) == ("ToyModel", 5)
    assert model.hparams.optimizer["init_args"]["lr"] == 0.3
    assert lit_ssl("test", *words, "--trainer.accelerator=cpu").code == 0


def test_checkpoint_made_in_python_can_be_used(made_in_python, lit_ssl, workdir):
    import toy_project

    path = made_in_python(toy_project.ToyModel(lr=0.3))
    for command in ("validate", "test", "predict"):
        assert lit_ssl(command, *BASE, "--ckpt_path", path).code == 0
    assert lit_ssl("fit", *BASE, "--trainer.max_epochs=2", "--ckpt_path", path).code == 0
    result = lit_ssl("test", "--data", "toy_project.ToyData", "--ckpt_path", path)
    assert (result.code, result.err.splitlines()[-1][:20]) == (2, "error: model missing")


def test_module_made_by_the_cli_loads_in_python_and_resumes(trained, lit_ssl):
    import toy_project

    path = trained("--model.width=5")
    model = toy_project.ToyModel.load_from_checkpoint(path, weights_only=True)
    state = torch.load(path, weights_only=True)["state_dict"]
    assert model.hparams.width == 5
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    words = ["--trainer.max_epochs=2", "--model.width=5", "--ckpt_path", path]
    assert lit_ssl("fit", *BASE, *words).code == 0


def test_checkpoint_with_an_option_that_no_longer_exists(trained, built):
    path = trained("--model.width=5")
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["hyper_parameters"]["gone"] = 1
    torch.save(checkpoint, path)
    assert built("fit", *BASE, "--ckpt_path", path).model.hparams.width == 5


# last


def write(path, when, content=b""):
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is not None:
        torch.save({}, path)
    else:
        path.write_bytes(b"PK\x03\x04 cut off")
    os.utime(path, (when, when))
    return path


def test_run_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = str(tmp_path)

    def folders(**trainer):
        return [str(path) for path in run_folders(trainer)]

    assert folders() == [f"{here}/lightning_logs", f"{here}/checkpoints"]
    assert folders(logger=False, default_root_dir="run") == ["run"]
    logger = {"class_path": "TensorBoardLogger", "init_args": {"save_dir": "tb", "name": "msn"}}
    assert folders(logger=logger)[2:] == ["tb/msn"]
    logger["init_args"]["version"] = 3
    assert folders(logger=[logger])[2:] == ["tb/msn/version_3"]
    logger["init_args"] = {"save_dir": "s3://bucket"}
    assert folders(logger=logger, default_root_dir="run") == ["run"]
    callback = {"class_path": "ModelCheckpoint", "init_args": {"dirpath": "kept"}}
    assert folders(callbacks=[callback], default_root_dir="run") == ["run", "kept"]


def test_run_folders_of_other_loggers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def newest(options, kind="lightning.pytorch.loggers.WandbLogger"):
        logger = {"class_path": kind, "init_args": options}
        return newest_checkpoint(run_folders({"logger": logger})).path

    mine = write(tmp_path / "digits/a1b2/checkpoints/last.ckpt", 100)
    other = write(tmp_path / "faces/c3d4/checkpoints/last.ckpt", 200)
    write(tmp_path / "own.ckpt", 300)  # in the working folder, of no run
    write(tmp_path / "old/deep/down/here/checkpoints/last.ckpt", 300)
    assert newest({"project": "digits", "name": "first try"}) == mine
    assert newest({"project": "digits", "save_dir": str(tmp_path)}) == mine
    assert newest({"name": "first try"}) == newest(None) == other
    assert newest({"id": "a1b2"}) == newest({"version": "a1b2"}) == mine
    run = write(tmp_path / "mlruns/7/e5f6/checkpoints/last.ckpt", 400)
    assert newest({"experiment_name": "7"}, "MLFlowLogger") == run
    assert newest({}, "MLFlowLogger") == run
    assert newest({"save_dir": "elsewhere"}) is None


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--trainer.logger=true"],
        ["--trainer.logger=TensorBoardLogger", "--trainer.logger.save_dir=tb"],
        ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.dirpath=kept"],
        ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=x"],
        ["--trainer.logger=toy_project.Cloud"],
        ["--trainer.logger=toy_project.Cloud", "--trainer.logger.project=mine"],
    ],
    ids=["no logger", "default", "own logger", "own folder", "csv", "other", "project"],
)  # fmt: skip
def test_last_is_the_checkpoint_of_the_run_before(lit_ssl, workdir, words):
    first = lit_ssl("fit", *BASE, *words)
    folder = first.out[first.out.index("checkpoints: ") :].splitlines()[0].split()[1]
    (path,) = os.listdir(folder)
    for command in ("validate", "test", "predict"):
        result = lit_ssl(command, *BASE, *words, "--ckpt_path", "last")
        assert result.code == 0
        assert result.out.startswith(f"--ckpt_path last: {folder}/{path}\n")
    second = lit_ssl("fit", *BASE, *words, "--ckpt_path", "last", "--trainer.max_epochs=2")
    assert second.out.startswith(f"--ckpt_path last: {folder}/{path}\n")
    third = lit_ssl("fit", *BASE, *words, "--ckpt_path", "last", "--trainer.max_epochs=3")
    assert "epoch=1" in third.out.splitlines()[0]


def test_an_evaluation_without_a_logger_finds_the_last_run_of_any(lit_ssl, workdir):
    """As with the presets, which switch the logger off; a training goes on with its own runs."""
    cloud = ["--trainer.logger=toy_project.Cloud", "--trainer.logger.save_dir=runs"]
    for logger in (["--trainer.logger=true"], cloud):
        first = lit_ssl("fit", *BASE, *logger)
        folder = first.out[first.out.index("checkpoints: ") :].splitlines()[0].split()[1]
        result = lit_ssl("test", *BASE, "--ckpt_path=last")
        assert result.out.startswith(f"--ckpt_path last: {folder}/"), result.err
    second = lit_ssl("fit", *BASE, "--ckpt_path=last", "--trainer.max_epochs=2")
    assert second.out.startswith("--ckpt_path last: lightning_logs/version_0/")


def test_last_without_a_checkpoint(lit_ssl, workdir):
    result = lit_ssl("fit", *BASE, "--ckpt_path", "last", "--trainer.default_root_dir=run")
    assert result.code == 0
    line = "--ckpt_path last: no checkpoint under run, starting from scratch\n"
    assert result.out.startswith(line)
    result = lit_ssl("test", *BASE, "--ckpt_path", "last", "--trainer.default_root_dir=other")
    assert result.code == 2
    assert result.err == "error: --ckpt_path last: no checkpoint under other.\n"


def test_last_passes_over_a_file_that_was_cut_off(lit_ssl, workdir):
    lit_ssl("fit", *BASE)
    cut = write(workdir / "checkpoints/epoch=9.ckpt", 4_000_000_000, content=None)
    result = lit_ssl("test", *BASE, "--ckpt_path", "last")
    assert result.code == 0
    assert result.out.startswith(
        f"passing over checkpoints/{cut.name}: it was cut short\n--ckpt_path last: "
    )


def test_last_stops_where_only_damaged_files_are(lit_ssl, workdir):
    """Starting from scratch would hide what a training of weeks has come to."""
    cut = write(workdir / "checkpoints/last.ckpt", 100, content=None)
    write(workdir / "checkpoints/step=3.ckpt", 100, content=None)
    for command in ("fit", "test"):
        result = lit_ssl(command, *BASE, "--ckpt_path", "last")
        assert result.code == 2
        line = result.err.splitlines()[-1]
        assert f"checkpoints/{cut.name}: it was cut short, and so are 1 more" in line
        assert ("start from scratch" in line) == (command == "fit")


def test_a_damaged_file_is_refused_at_every_door(lit_ssl, workdir):
    """Also by what reads only weights; the line names the file to go on from instead."""
    words = ["--trainer.max_epochs=2", "--trainer.callbacks+=ModelCheckpoint"]
    assert lit_ssl("fit", *BASE, *words, "--trainer.callbacks.save_top_k=-1").code == 0
    older, newer = sorted((workdir / "checkpoints").glob("*.ckpt"))
    flip_bit(newer)
    told = f"The newest whole checkpoint before it is checkpoints/{older.name}"
    for command in ("fit", "validate", "test", "predict"):
        result = lit_ssl(command, *BASE, "--ckpt_path", newer)
        assert (result.code, told in result.err, len(result.err.splitlines())) == (2, True, 1)
    assert told in lit_ssl("export", newer, "x.safetensors", "--class=toy_project.ToyModel").err
    last = lit_ssl("test", *BASE, "--ckpt_path=last")
    assert last.code == 0
    lines = last.out.splitlines()
    assert lines[0].startswith(f"passing over checkpoints/{newer.name}: it is damaged: Bad CRC-32")
    assert lines[1] == f"--ckpt_path last: checkpoints/{older.name}"


def test_a_disk_that_fills_up_ends_a_run_with_one_line(lit_ssl, workdir, monkeypatch):
    """The checkpoint before stays, and the line names it."""
    write_to = whole._Target.write

    def full(self, data):
        if list(workdir.glob("checkpoints/*.ckpt")):
            self.error = OSError(errno.ENOSPC, "No space left on device")
            return len(data)
        return write_to(self, data)

    monkeypatch.setattr(whole._Target, "write", full)
    words = ["--trainer.max_epochs=3", "--trainer.callbacks+=ModelCheckpoint"]
    result = lit_ssl("fit", *BASE, *words, "--trainer.callbacks.every_n_train_steps=2")
    assert result.code == 2
    line = result.err.splitlines()[-1]
    assert line.startswith("error: cannot write ")
    assert "No space left on device (0.0 MB needed, " in line
    (kept,) = (workdir / "checkpoints").iterdir()
    assert line.endswith(f"{kept} is whole: go on from it")


def test_last_fills_in_hyper_parameters_too(lit_ssl, workdir):
    lit_ssl("fit", *BASE, "--model.width=5")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert lit_ssl("test", *BASE, "--ckpt_path", "last").code == 0


def test_a_misfit_names_the_config_of_the_run_that_wrote_the_checkpoint(lit_ssl, workdir):
    """Without a logger, runs of one root share the folder of their checkpoints."""
    root = "--trainer.default_root_dir=run"
    for width in (5, 6):
        assert lit_ssl("fit", *BASE, root, f"--model.width={width}").code == 0
    first = workdir / "run/config.yaml"
    second = workdir / "run/lit_ssl_runs/version_0/config.yaml"
    assert ("width: 5" in first.read_text(), "width: 6" in second.read_text()) == (True, True)

    def advice(path):
        stored = torch.load(path, weights_only=True)["hyper_parameters"]
        result = lit_ssl("test", *BASE, "--ckpt_path", path, "--model.width=7")
        assert result.code == 2
        return stored["width"], result.err

    paths = sorted((workdir / "run/checkpoints").iterdir())
    told = dict(map(advice, paths))
    assert "--config run/config.yaml" in told[5]
    assert "--config run/lit_ssl_runs/version_0/config.yaml" in told[6]
    second.unlink()
    assert "repeat them" in dict(map(advice, paths))[6]
