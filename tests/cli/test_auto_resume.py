"""``--auto_resume``: the same command, started again and again, is one run."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import yaml

from lit_ssl.callbacks import RunLock
from lit_ssl.checkpoints.whole import save_whole
from lit_ssl.cli.auto_resume import earlier_run
from lit_ssl.errors import InputError
from lit_ssl.trainer.claims import FolderLock, last_run_in

STOP = """\
import os
import signal

import lightning.pytorch as pl


class StopOnce(pl.Callback):
    \"\"\"Sends SIGTERM to its process before a step, if no file says that it has.\"\"\"

    def on_train_batch_start(self, trainer, *args):
        if trainer.global_step == 6 and os.environ.get("STOP") == "1":
            signal.raise_signal(signal.SIGTERM)
"""
SETTINGS = """\
trainer:
  max_epochs: 2
  log_every_n_steps: 1
  callbacks:
  - class_path: ModelCheckpoint
    init_args: {every_n_train_steps: 4, save_top_k: -1}
  - once.StopOnce
"""


@pytest.fixture
def command(workdir, monkeypatch):
    (workdir / "settings.yaml").write_text(SETTINGS)
    (workdir / "once.py").write_text(STOP)
    monkeypatch.syspath_prepend(workdir)
    monkeypatch.setenv("STOP", "0")
    return ["fit", "--config", "recipe.yaml", "--config", "settings.yaml", "--auto_resume"]


def losses(path):
    return dict(line.split() for line in path.read_text().splitlines())


CSV = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs"]


@pytest.mark.parametrize("logger", [["--trainer.logger=true"], CSV, ["--trainer.logger=false"]])
def test_a_command_that_is_started_again_goes_on_and_ends_once(
    command, lit_ssl, workdir, monkeypatch, logger
):
    monkeypatch.setenv("LOSSES", str(workdir / "whole.txt"))
    assert lit_ssl(*command[:-1], "--trainer.default_root_dir=whole").code == 0
    words = [*command, *logger, "--trainer.default_root_dir=run"]
    monkeypatch.setenv("LOSSES", str(workdir / "parts.txt"))
    monkeypatch.setenv("STOP", "1")
    stopped = lit_ssl(*words)
    assert stopped.code == 128 + signal.SIGTERM
    last = stopped.out.splitlines()[-1]
    assert last.startswith("stopped at step 7; to go on: lit-ssl fit")
    assert last.endswith("=run")  # the same command
    assert len(losses(workdir / "parts.txt")) == 7
    monkeypatch.setenv("STOP", "0")
    again = lit_ssl(*words)
    assert again.code == 0, again.err
    assert again.out.startswith("--auto_resume: ")
    assert "last.ckpt" in again.out.splitlines()[0]
    assert losses(workdir / "parts.txt") == losses(workdir / "whole.txt")
    done = lit_ssl(*words)
    assert done.code == 0
    assert done.out == f"--auto_resume: the run in {home(logger)} is finished, with step 12\n"
    assert losses(workdir / "parts.txt") == losses(workdir / "whole.txt")  # no batch more
    assert (
        len(list(workdir.rglob("run/**/config.yaml")))
        + len(list(workdir.rglob("logs/**/config.yaml")))
        == 1
    )
    if logger == CSV:
        with (workdir / home(logger) / "metrics.csv").open(newline="") as file:
            assert len({row["step"] for row in csv.DictReader(file)}) > 1


def home(logger):
    if logger == CSV:
        return "logs/lightning_logs/version_0"
    return "run" if "false" in logger[0] else "run/lightning_logs/version_0"


def test_another_configuration_is_another_run(command, lit_ssl, workdir, monkeypatch):
    words = [*command, "--trainer.logger=true", "--trainer.max_epochs=1"]
    assert lit_ssl(*words).code == 0
    other = lit_ssl(*words, "--model.lr=0.3")
    assert other.code == 0
    assert other.out.splitlines()[0] == (
        "--auto_resume: lightning_logs/version_0 is of a run with another configuration "
        "(model.init_args.lr is 0.3, there 0.2); a new run starts"
    )
    assert last_run_in(workdir / "lightning_logs/version_1")["finished"] == 6
    for lr in (0.2, 0.3):  # a sweep: each command finds its own
        again = lit_ssl(*words, f"--model.lr={lr}")
        assert f"version_{int(lr == 0.3)} is finished" in again.out


def test_without_a_logger_another_configuration_is_refused(command, lit_ssl):
    words = [*command, "--trainer.default_root_dir=run", "--trainer.max_epochs=1"]
    assert lit_ssl(*words).code == 0
    refused = lit_ssl(*words, "--model.lr=0.3")
    assert refused.code == 2
    assert "run is of a run with another configuration (model.init_args.lr" in refused.err


def test_a_run_that_is_still_going_is_not_joined(command, lit_ssl, workdir, monkeypatch):
    words = [*command, "--trainer.logger=true"]
    monkeypatch.setenv("STOP", "1")
    assert lit_ssl(*words).code == 143
    folder = workdir / "lightning_logs/version_0"
    lock = FolderLock(folder, last_run_in(folder)["run"])
    refused = lit_ssl(*words)
    lock.release()
    assert refused.code == 2
    assert refused.err.startswith(f"error: {folder} is in use by a run that is still going")


def test_a_run_that_ends_while_another_start_goes_on_with_it_is_not_made_twice(
    command, lit_ssl, workdir, monkeypatch
):
    words = [*command, "--trainer.logger=true"]
    monkeypatch.setenv("STOP", "1")
    assert lit_ssl(*words).code == 143
    folder = workdir / "lightning_logs/version_0"
    claim = RunLock.claim

    def late(*args):  # the other has ended meanwhile
        lock = FolderLock(folder, last_run_in(folder)["run"])
        lock.note(finished=12)
        lock.release(keep_note=True)
        claim(*args)

    monkeypatch.setattr(RunLock, "claim", late)
    refused = lit_ssl(*words)
    assert refused.code == 2
    assert "has just finished, with step 12" in refused.err
    assert last_run_in(folder)["finished"] == 12


def test_a_run_that_has_no_checkpoint_yet_is_not_begun_twice(
    command, lit_ssl, workdir, monkeypatch
):
    words = [*command, "--trainer.logger=true"]
    monkeypatch.setenv("STOP", "1")
    assert lit_ssl(*words).code == 143
    folder = workdir / "lightning_logs/version_0"
    for path in folder.rglob("*.ckpt"):
        path.unlink()
    lock = FolderLock(folder, last_run_in(folder)["run"])
    refused = lit_ssl(*words)
    lock.release(keep_note=True)
    assert refused.code == 2
    assert refused.err.startswith(
        "error: --auto_resume: lightning_logs/version_0 is of this command, which is still going "
        f"(process {os.getpid()} on "
    )
    monkeypatch.setenv("STOP", "0")
    assert lit_ssl(*words).code == 0  # it was killed


@pytest.mark.parametrize("word", [["--auto_resume=true"], ["--auto_resume", "true"], []])
def test_the_line_that_goes_on_is_the_command_however_it_is_written(
    command, lit_ssl, workdir, monkeypatch, word
):
    if not word:
        with (workdir / "settings.yaml").open("a") as file:
            file.write("auto_resume: true\n")
    words = [*command[:-1], "--trainer.logger=true", *word]
    monkeypatch.setenv("STOP", "1")
    stopped = lit_ssl(*words)
    assert stopped.out.splitlines()[-1] == (
        f"stopped at step 7; to go on: lit-ssl {' '.join(words)}"
    )


def test_commands_of_one_job_of_slurm_have_folders_of_their_own(
    command, lit_ssl, workdir, monkeypatch
):
    for name, value in {"NTASKS": "1", "JOB_ID": "7", "JOB_NAME": "x", "PROCID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SLURM_LOCALID", "0")
    words = [*command, "--trainer.logger=true"]
    assert lit_ssl(*words).code == 0
    monkeypatch.setenv("STOP", "1")
    assert lit_ssl(*words, "--model.lr=0.3").code == 143
    monkeypatch.setenv("STOP", "0")
    again = lit_ssl(*words, "--model.lr=0.3")
    assert again.code == 0
    assert again.out.startswith("--auto_resume: lightning_logs/version_7_1/checkpoints/last.ckpt")
    assert {p.name for p in (workdir / "lightning_logs").iterdir()} == {"version_7", "version_7_1"}


def test_a_checkpoint_of_slurm_is_taken_if_it_is_of_this_run(
    command, lit_ssl, workdir, monkeypatch
):
    words = [*command, "--trainer.logger=true"]
    monkeypatch.setenv("STOP", "1")
    assert lit_ssl(*words).code == 143
    last = workdir / "lightning_logs/version_0/checkpoints/last.ckpt"
    saved = torch.load(last, weights_only=True)
    torch.save({**saved, "lit_ssl.run": "of another"}, workdir / "hpc_ckpt_2.ckpt")
    torch.save(saved, workdir / "hpc_ckpt_1.ckpt")
    last.unlink()
    monkeypatch.setenv("STOP", "0")
    assert lit_ssl(*words).out.splitlines()[0] == "--auto_resume: hpc_ckpt_1.ckpt"


def test_a_run_with_only_damaged_checkpoints_does_not_begin_anew(
    command, lit_ssl, workdir, monkeypatch
):
    words = [*command, "--trainer.logger=true"]
    monkeypatch.setenv("STOP", "1")
    assert lit_ssl(*words).code == 143
    for path in workdir.rglob("*.ckpt"):
        path.write_bytes(path.read_bytes()[:1000])
    refused = lit_ssl(*words)
    assert refused.code == 2
    assert "version_0 has only damaged checkpoints" in refused.err
    assert not (workdir / "lightning_logs/version_1").exists()


def test_checkpoints_in_folders_below_a_dirpath_are_found(command, lit_ssl, workdir, monkeypatch):
    text = (workdir / "settings.yaml").read_text()
    options = "{dirpath: kept, filename: 'a/{step}', "  # as of {val/loss}, a slash makes a folder
    (workdir / "settings.yaml").write_text(text.replace("{every", options + "every"))
    words = [*command, "--trainer.logger=true"]
    monkeypatch.setenv("STOP", "1")
    assert lit_ssl(*words).code == 143
    (workdir / "kept/last.ckpt").unlink()
    monkeypatch.setenv("STOP", "0")
    assert lit_ssl(*words).out.splitlines()[0] == "--auto_resume: kept/a/step=4.ckpt"


def test_a_run_whose_configuration_is_lost_is_named(command, lit_ssl, workdir, monkeypatch):
    words = [*command, "--trainer.logger=true"]
    monkeypatch.setenv("STOP", "1")
    assert lit_ssl(*words).code == 143
    (workdir / "lightning_logs/version_0/config.yaml").write_text("")
    assert lit_ssl(*words).out.splitlines()[0] == (
        "--auto_resume: passing over lightning_logs/version_0: its config.yaml, by which a run is "
        "known, cannot be read"
    )


@pytest.mark.parametrize(
    "content", [b"\0\xff\n" * 9, b"epoch,step\n1,2,3\n", b"a\n" + b"\0" * 99 + b"\n"]
)
def test_metrics_that_are_no_table_are_put_aside(command, lit_ssl, workdir, monkeypatch, content):
    words = [*command, *CSV]
    monkeypatch.setenv("STOP", "1")
    assert lit_ssl(*words).code == 143
    path = workdir / "logs/lightning_logs/version_0/metrics.csv"
    path.write_bytes(content)
    monkeypatch.setenv("STOP", "0")
    with pytest.warns(
        UserWarning, match="is no table any more: it is kept as metrics.csv.damaged-1"
    ):
        assert lit_ssl(*words).code == 0
    assert path.with_name("metrics.csv.damaged-1").read_bytes() == content
    assert path.read_text().startswith("epoch,step")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--ckpt_path=last"], "leave out --ckpt_path"),
        ([], "give a --trainer.default_root_dir on this machine, or a logger"),
        (["--trainer.logger=toy_project.Cloud"], "and Cloud keeps none"),
    ],
)
def test_what_belongs_to_no_run_alone_is_refused(command, lit_ssl, words, line):
    result = lit_ssl(*command, *words)
    assert result.code == 2
    assert line in result.err


def test_a_random_seed_is_that_of_the_run(command, lit_ssl, monkeypatch):
    words = [*command, "--trainer.logger=true", "--seed_everything=true"]
    monkeypatch.setenv("STOP", "1")
    assert lit_ssl(*words).code == 143
    monkeypatch.setenv("STOP", "0")
    again = lit_ssl(*words)
    assert again.out.startswith("--auto_resume: lightning_logs/version_0/checkpoints/last.ckpt")


STUB = """\
import sys, time
open("starts", "a").write(".")
try:
    time.sleep(60 if len(open("starts").read()) > 1 else 0)
except KeyboardInterrupt:
    pass
sys.exit(1)
"""


def test_the_loop_of_the_docs_starts_again_and_ends_with_ctrl_c(tmp_path):
    page = (Path(__file__).parents[2] / "docs/reliability.md").read_text(encoding="utf-8")
    (loop,) = [text for text in page.split("```") if "until lit-ssl fit" in text]
    (tmp_path / "stub.py").write_text(STUB)
    script = f'lit-ssl() {{ "{sys.executable}" -S stub.py; }}\n{loop}'
    process = subprocess.Popen(
        ["bash", "-c", script],
        cwd=tmp_path,
        start_new_session=True,
        # a shell that began with it ignored, as in the background, cannot trap it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        for _ in range(300):
            if (tmp_path / "starts").exists() and len((tmp_path / "starts").read_text()) == 2:
                break
            time.sleep(0.1)
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(20) == 130
        assert (tmp_path / "starts").read_text() == ".."
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("rate", [None, 0.5])
def test_a_run_of_an_earlier_version_is_known_where_new_options_are_at_their_defaults(
    tmp_path, rate
):
    trainer = {"logger": False, "default_root_dir": str(tmp_path), "callbacks": []}
    old = {"class_path": "lit_ssl.datamodules.MNIST5kDataModule", "init_args": {"batch_size": 8}}
    config = {"trainer": trainer, "data": {"class_path": "x.Whole", "init_args": {"dataset": old}}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "checkpoints").mkdir()
    save_whole({"global_step": 3}, tmp_path / "checkpoints" / "a.ckpt")
    changed = {**old["init_args"], "prefetch_factor": rate, "decode": "worker"}
    new = {**old, "init_args": changed}
    here = {
        **config, "data": {"class_path": "x.Whole", "init_args": {"dataset": new}},
        "global_batch": 8, "execution": {"compile": "none"},
    }  # fmt: skip
    if rate is None:
        assert earlier_run(here).checkpoint.name == "a.ckpt"
    else:
        with pytest.raises(InputError, match=r"prefetch_factor is 0\.5, there 'not set'\);"):
            earlier_run(here)
