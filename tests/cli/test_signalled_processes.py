"""Real processes of `lit-ssl` and the signals of schedulers: nobody hangs, nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytestmark = [pytest.mark.slow, pytest.mark.distributed]

MODULE = """\
import os
import time

from toy_project import ToyModel


class Slow(ToyModel):
    \"\"\"Leaves the number of its process in a file for each stage, and takes its time.\"\"\"

    def here(self, stage):
        with open(f"{stage}{self.global_rank}.pid", "w") as file:
            file.write(str(os.getpid()))
        time.sleep(float(os.environ.get("TAKES", "0.1")))

    def training_step(self, batch, batch_idx):
        self.here("train")
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        self.here("val")

    test_step = validation_step
"""
SETTINGS = """\
model: slow_project.Slow
trainer:
  max_epochs: 1000
  default_root_dir: run
  callbacks:
  - class_path: ModelCheckpoint
    init_args: {every_n_train_steps: 1000}
"""
FIT = ["fit", "--config", "recipe.yaml", "--config", "settings.yaml"]
TWO = ["--trainer.devices=2", "--trainer.strategy=ddp"]
WITHIN = 60  # seconds, on a busy machine


@pytest.fixture
def start(workdir, environment):
    """Starts the console script in a group of processes of its own."""
    (workdir / "slow_project.py").write_text(MODULE)
    (workdir / "settings.yaml").write_text(SETTINGS)
    script = str(Path(sys.executable).with_name("lit-ssl"))
    begun = []

    def run(*words, program=(script,), **variables):
        out = (workdir / f"out{len(begun)}.txt").open("w+")
        process = subprocess.Popen(
            [*program, *words], cwd=workdir, env={**environment, **variables}, stdout=out,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        process.out = out
        begun.append(process)
        return process

    yield run
    for process in begun:
        if members(process):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def members(process):
    """The living processes of a group."""
    found = subprocess.run(
        ["ps", "-o", "pid=,stat=", "-g", str(process.pid)], capture_output=True, text=True
    ).stdout
    rows = [line.split() for line in found.splitlines()]
    return [int(number) for number, state in rows if not state.startswith("Z")]


def wait_for(name, workdir, process):
    """The number in a file that a stage leaves."""
    for _ in range(10 * WITHIN):
        assert process.poll() is None, text_of(process)
        if (path := workdir / name).exists() and path.read_text():
            time.sleep(0.5)
            return int(path.read_text())
        time.sleep(0.1)
    raise AssertionError(text_of(process))


def text_of(process):
    process.out.seek(0)
    return process.out.read()


def saved(workdir):
    (path,) = workdir.rglob("last.ckpt")
    return torch.load(path, weights_only=True)["global_step"]


@pytest.mark.parametrize("strategy", ["ddp", "slowmo"])
@pytest.mark.parametrize("rank", [0, 1])
def test_one_process_of_two_takes_the_other_along(start, workdir, rank, strategy):
    run = start(*FIT, "--trainer.devices=2", f"--trainer.strategy={strategy}")
    os.kill(wait_for(f"train{rank}.pid", workdir, run), signal.SIGTERM)
    assert run.wait(WITHIN) == 143, text_of(run)
    last = text_of(run).splitlines()[-1]
    assert last.startswith(f"stopped at step {saved(workdir)}; to go on: lit-ssl fit")
    assert members(run) == []


@pytest.mark.parametrize("command", ["test", "validate"])
def test_an_evaluation_on_two_processes_leaves_none_behind(start, workdir, command):
    run = start(command, *FIT[1:], *TWO, TAKES="2")
    os.kill(wait_for("val0.pid", workdir, run), signal.SIGTERM)
    assert run.wait(WITHIN) == 143, text_of(run)
    assert members(run) == []


def test_a_signal_to_all_processes_of_a_job_with_workers(start, workdir):
    run = start(*FIT, *TWO, "--data.num_workers=1", "--trainer.max_epochs=100000")
    wait_for("train1.pid", workdir, run)
    os.killpg(run.pid, signal.SIGTERM)
    assert run.wait(WITHIN) == 143, text_of(run)
    assert saved(workdir) > 0
    assert "Error" not in text_of(run)


def test_torchrun_passes_the_signal_on(start, workdir):
    program = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "lit_ssl")
    run = start(*FIT, *TWO, program=program)
    wait_for("train1.pid", workdir, run)
    os.killpg(run.pid, signal.SIGTERM)  # the agent, which passes it on, and the workers
    assert run.wait(WITHIN) != 0
    assert f"stopped at step {saved(workdir)}; to go on" in text_of(run)
    assert members(run) == []


def test_a_second_signal_ends_a_step_that_takes_too_long(start, workdir):
    run = start(*FIT, TAKES="1000")
    number = wait_for("train0.pid", workdir, run)
    os.kill(number, signal.SIGTERM)
    time.sleep(0.5)
    os.kill(number, signal.SIGTERM)  # a copy
    time.sleep(3)
    assert run.poll() is None
    os.kill(number, signal.SIGTERM)
    assert run.wait(WITHIN) == -signal.SIGTERM


def test_before_the_first_step_nothing_is_left(start, workdir):
    run = start(*FIT, *TWO, "--trainer.num_sanity_val_steps=1", TAKES="3")
    os.kill(wait_for("val0.pid", workdir, run), signal.SIGTERM)
    assert run.wait(WITHIN) == 143, text_of(run)
    assert not (workdir / "run").exists() or list((workdir / "run").rglob("*.ckpt")) == []
    assert members(run) == []


def test_two_that_start_together_get_a_folder_each(start, workdir):
    words = [*FIT, "--trainer.logger=true", "--trainer.max_epochs=2"]
    runs = [start(*words), start(*words)]
    for run in runs:
        assert run.wait(3 * WITHIN) == 0, text_of(run)
    for number in range(2):
        names = {p.name for p in (workdir / f"run/lightning_logs/version_{number}").iterdir()}
        assert names >= {"checkpoints", "config.yaml"}
        assert len([name for name in names if name.startswith("events")]) == 1


def test_a_killed_run_is_gone_on_with_at_once(start, workdir):
    words = [*FIT, "--trainer.logger=true", "--auto_resume", "--data.num_workers=1"]
    often = ["--trainer.callbacks.every_n_train_steps=2"]
    run = start(*words, *often)
    number = wait_for("train0.pid", workdir, run)
    time.sleep(2)
    second = start(*words, *often)
    assert second.wait(WITHIN) == 2
    assert f"in use by a run that is still going (process {number}" in text_of(second)
    os.kill(number, signal.SIGKILL)  # its worker lives on for some seconds
    run.wait()
    (workdir / "train0.pid").unlink()
    third = start(*words, *often)
    wait_for("train0.pid", workdir, third)
    os.kill(third.pid, signal.SIGTERM)
    assert third.wait(WITHIN) == 143
    assert "--auto_resume: run/lightning_logs/version_0/checkpoints/" in text_of(third)
    assert [p.name for p in (workdir / "run/lightning_logs").iterdir()] == ["version_0"]
