"""Where a run writes, and that it never writes over what it did not make."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
from lightning.pytorch.loggers import CSVLogger

from lit_ssl.cli.output import remove_unused_run
from lit_ssl.trainer.run import is_logged, new_folders

SCRIPT = Path(__file__).with_name("run_kinds.py")
SPEC = importlib.util.spec_from_file_location("lit_ssl_run_kinds", SCRIPT)
kinds = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(kinds)

COMMANDS = ("fit", "validate", "test", "predict")
# first and second run in a working folder where nothing was chosen, and in a root given on purpose
HERE = {
    "tensorboard": ("lightning_logs/version_0", "lightning_logs/version_1"),
    "csv": ("lightning_logs/version_0", "lightning_logs/version_1"),
    "shared": ("lit_ssl_runs/version_0", "lit_ssl_runs/version_1"),
    "none": (".", "lit_ssl_runs/version_0"),
}
CHOSEN = {**HERE, "shared": HERE["none"]}


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def files():
    return {str(p.parent): p.read_text() for p in Path().rglob("report.json")}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", HERE)
@pytest.mark.parametrize("root", [None, "root"])
def test_two_runs_keep_their_files_apart(kind, command, root):
    for text in ("first", "second"):
        writer = kinds.Writer(text=text)
        getattr(kinds.make(kind, root, writer), command)(kinds.Model())
    wanted = [Path(root or "", place) for place in (CHOSEN if root else HERE)[kind]]
    assert files() == {str(wanted[0]): "first", str(wanted[1]): "second"}


@pytest.mark.parametrize("kind", HERE)
def test_files_of_a_person_are_never_touched(kind, capsys):
    theirs = ("config.yaml", "report.json", "report.csv", "views")
    for name in theirs:
        Path(name).write_text("theirs")
    writers = [kinds.Writer(name) for name in theirs]
    kinds.make(kind, None, *writers).fit(kinds.Model())
    assert [Path(name).read_text() for name in theirs] == ["theirs"] * 4
    (folder,) = {writer.folders[0] for writer in writers}  # all in one place
    assert [Path(folder, name).read_text() for name in theirs] == ["mine"] * 4
    assert capsys.readouterr().err.count("this run writes into") <= 1


def test_a_run_says_once_where_it_writes(caplog):
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        trainer = kinds.make("none", "root", kinds.Writer(), kinds.Writer("other.json"))
        trainer.fit(kinds.Model())
    assert caplog.text.count("this run writes into root") == 1


@pytest.mark.parametrize("kind", ["none", "tensorboard"])
def test_calls_of_one_trainer_are_runs_of_their_own(kind, tmp_path):
    """But what follows a fit, with the weights of its end, may complete the fit's files."""
    writer = kinds.Writer()
    trainer = kinds.make(kind, "root", writer)
    model = kinds.Model()
    trainer.fit(model)
    trainer.test(model, verbose=False)
    assert len(set(writer.folders)) == 1
    trainer.validate(model, verbose=False)
    assert len(set(writer.folders)) == 2
    trainer.validate(model, verbose=False)  # perhaps on other data, or with other weights
    assert len(set(writer.folders)) == 3
    trainer.save_checkpoint("other.ckpt")
    trainer.validate(model, ckpt_path="other.ckpt", verbose=False)
    trainer.validate(kinds.Model(), verbose=False)
    assert len(set(writer.folders)) == 5
    assert len(files()) == 5


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_evaluations_of_one_trainer_keep_their_files_apart(command, tmp_path):
    """Of the same module on the same data, before and after training, and on other data."""
    model, writer = kinds.Model(), kinds.Writer()
    trainer = kinds.make("none", "root", writer)
    evaluate = getattr(trainer, command)
    data = model.val_dataloader()
    for text in ("untrained", "trained", "other data"):
        writer.text = text
        evaluate(model, dataloaders=data if text != "other data" else model.val_dataloader())
        if text == "untrained":
            trainer.fit(model)
    assert sorted(files().values()) == ["other data", "trained", "untrained"]


def test_another_checkpoint_does_not_complete_the_files_of_a_fit(tmp_path):
    writer, model = kinds.Writer(text="fit"), kinds.Model()
    trainer = kinds.make("tensorboard", "root", writer)
    trainer.fit(model)
    trainer.save_checkpoint("other.ckpt")
    writer.text = "test"
    trainer.test(model, ckpt_path="other.ckpt", verbose=False)
    assert sorted(files().values()) == ["fit", "test"]


def test_an_explicit_output_is_used_but_not_over_what_is_there():
    for text in ("first", "second"):
        writer = kinds.Writer(output="out", text=text)
        kinds.make("tensorboard", None, writer).test(kinds.Model(), verbose=False)
    assert files() == {"out": "first", "out/lit_ssl_runs/version_0": "second"}


def test_a_logger_of_one_version_is_not_shared_by_two_runs():
    for text in ("first", "second"):
        logger = kinds.TensorBoardLogger(".", version="same")
        trainer = kinds.make("none", None, kinds.Writer(text=text))
        trainer.loggers = [logger]
        trainer.test(kinds.Model(), verbose=False)
    assert sorted(files().values()) == ["first", "second"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", HERE)
def test_fast_dev_run_writes_nothing(kind, command):
    writer = kinds.Writer(output="out")
    trainer = kinds.make(kind, "root", writer, fast_dev_run=True)
    getattr(trainer, command)(kinds.Model())
    assert writer.folders == [None]
    assert new_folders(trainer) == []
    assert [p for p in Path().rglob("*") if p.is_file()] == []


@pytest.mark.parametrize(("every", "wanted"), [(1, True), (2, False), (0, False)])
def test_is_logged(every, wanted):
    assert is_logged(kinds.make("none", "root", log_every_n_steps=every)) == wanted


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("kind", "command"),
    [
        ("tensorboard", "fit"),
        pytest.param("csv", "validate", marks=pytest.mark.slow),
        pytest.param("shared", "test", marks=pytest.mark.slow),
        pytest.param("none", "predict", marks=pytest.mark.slow),
    ],
)
def test_all_processes_agree(kind, command, tmp_path):
    """Also where rank zero finds that a file of a person is in the way."""
    (tmp_path / "report.json").write_text("theirs")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), kind, command, str(tmp_path)],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert one == two
    place = HERE[kind][kind == "none"]
    assert (tmp_path / one[0]).resolve() == tmp_path / place
    assert (tmp_path / "report.json").read_text() == "theirs"
    told = (done.stdout + done.stderr).count("this run writes into")
    assert told == (kind in ("shared", "none"))  # the folder of a logger goes without saying


@pytest.mark.parametrize("name", ["config.yaml", "events.out.tfevents.1"])
def test_a_start_that_failed_deletes_only_its_own_files(name):
    trainer = pl.Trainer(logger=CSVLogger(os.getcwd(), name="", version=""), accelerator="cpu")
    Path(name).write_text("theirs")
    remove_unused_run(trainer, Path(name).stat().st_mtime + 1)  # begun after that was written
    assert Path(name).read_text() == "theirs"
    remove_unused_run(trainer, Path(name).stat().st_mtime - 1)
    assert not Path(name).exists()
