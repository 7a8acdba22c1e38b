"""Two living runs never write into one folder; loggers go on with the files of a run."""

from __future__ import annotations

import csv
import importlib.util
import os
import signal
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lit_ssl.callbacks import RunLock
from lit_ssl.errors import InputError
from lit_ssl.trainer.claims import NAME, FolderLock, last_run_in

SCRIPT = Path(__file__).with_name("run_kinds.py")
SPEC = importlib.util.spec_from_file_location("lit_ssl_run_kinds", SCRIPT)
kinds = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(kinds)


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def living():
    """Lets another process hold folders until the end of the test."""
    children = []

    def hold(*folders):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                for folder in folders:
                    FolderLock(Path(folder), "theirs")
                os.write(write, b".")
                signal.pause()
            finally:
                os._exit(1)
        children.append(child)
        assert os.read(read, 1) == b"."

    yield hold
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.parametrize("kind", ["tensorboard", "csv"])
def test_a_claimed_run_takes_the_next_free_version(kind, living):
    living("lightning_logs/version_0")
    lock = RunLock()
    trainer = kinds.make(kind, ".", lock)
    lock.claim(trainer)
    assert last_run_in(Path("lightning_logs/version_1"))["run"] == lock.run
    trainer.fit(kinds.Model())
    assert Path(trainer.log_dir) == Path("lightning_logs/version_1")
    with pytest.raises(InputError, match="version_1 is in use"):  # until all is done
        FolderLock(Path("lightning_logs/version_1"), "other")
    trainer.test(kinds.Model(), verbose=False)
    lock.release()
    FolderLock(Path("lightning_logs/version_1"), "other").release()


def test_in_python_the_second_run_of_a_version_stops(living):
    living("logs/same")
    logger = TensorBoardLogger("logs", name="", version="same")
    trainer = kinds.make("none", None, RunLock(), max_epochs=1)
    trainer.loggers = [logger]
    with pytest.raises(InputError, match="logs/same is in use by a run that is still going"):
        trainer.fit(kinds.Model())


@pytest.mark.parametrize("where", ["checkpoints", "mine/checkpoints"])
def test_checkpoints_of_two_living_runs_are_kept_apart(where, living):
    living(where)
    saver = ModelCheckpoint(None if where == "checkpoints" else where)
    trainer = kinds.make("none", ".", RunLock(), saver, enable_checkpointing=True)
    with pytest.raises(InputError, match=f"{where} is in use by a run that is still going"):
        trainer.fit(kinds.Model())
    assert [p.name for p in Path(where).iterdir()] == [NAME]


def test_a_run_in_python_gives_its_folders_back():
    for number in range(2):
        saver = ModelCheckpoint("mine")
        trainer = kinds.make("none", ".", RunLock(), saver, enable_checkpointing=True)
        trainer.fit(kinds.Model())
        assert len(list(Path("mine").glob("*.ckpt"))) == number + 1


def test_fast_dev_run_takes_no_folder():
    lock = RunLock()
    trainer = kinds.make("tensorboard", ".", lock, fast_dev_run=True)
    lock.claim(trainer, Path("home"))
    trainer.fit(kinds.Model())
    assert list(Path().iterdir()) == []


def rows(folder):
    with open(Path(folder, "metrics.csv"), newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_goes_on_with_the_logs_of_its_folder(tmp_path):
    """Each logger in its own; a row that a kill has cut is dropped, all others stay."""
    home = None
    for run in range(2):
        lock = RunLock()
        trainer = kinds.make("none", ".", lock)
        loggers = [TensorBoardLogger("."), CSVLogger("."), CSVLogger("other", name="")]
        trainer.loggers = loggers
        lock.claim(trainer, home, goes_on=home is not None)
        for logger in loggers[1:]:
            logger.log_metrics({"loss": run + 0.5}, step=run)
            logger.save()
        loggers[0].log_metrics({"loss": run}, step=run)
        loggers[0].save()
        home = Path(loggers[0].log_dir)
        lock.release()
        if run == 0:
            with open("lightning_logs/version_1/metrics.csv", "a") as file:
                file.write("0.12")
    assert home == Path("lightning_logs/version_0")
    assert len(list(home.glob("events*"))) == 2
    assert sorted(p.name for p in Path("lightning_logs").iterdir()) == ["version_0", "version_1"]
    for folder in ("lightning_logs/version_1", "other/version_0"):
        assert [(row["loss"], row["step"]) for row in rows(folder)] == [("0.5", "0"), ("1.5", "1")]


def test_new_columns_do_not_cost_the_rows_of_before(tmp_path):
    for run, metrics in enumerate([{"loss": 1.0}, {"acc": 0.5}]):
        lock = RunLock()
        trainer = kinds.make("none", ".", lock)
        trainer.loggers = [CSVLogger(".", version=3)]  # chosen by the user both times
        lock.claim(trainer)
        trainer.logger.log_metrics(metrics, step=run)
        trainer.logger.save()
        lock.release()
    found = rows("lightning_logs/version_3")
    assert [(row["loss"], row["acc"]) for row in found] == [("1.0", ""), ("", "0.5")]
