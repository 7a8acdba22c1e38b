"""Runs that are stopped: by Ctrl-C, by SIGTERM, and by SLURM."""

from __future__ import annotations

import os
import shlex
import signal

import pytest
import torch

OFTEN = """\
trainer:
  max_epochs: 2
  callbacks:
  - class_path: ModelCheckpoint
    init_args: {every_n_train_steps: 2, save_top_k: -1}
"""
STOP = """\
import os
import signal

import lightning.pytorch as pl


class Stop(pl.Callback):
    def __init__(self, step: int, signum: int):
        self.step, self.signum = step, signum

    def on_train_batch_start(self, trainer, *args):
        if trainer.global_step == self.step:
            signal.raise_signal(self.signum)


class StopIn(pl.Callback):
    def __init__(self, hook: str):
        setattr(self, hook, lambda *args, **kwargs: signal.raise_signal(signal.SIGTERM))
"""


@pytest.fixture
def often(workdir, monkeypatch):
    (workdir / "often.yaml").write_text(OFTEN)
    (workdir / "stopper.py").write_text(STOP)
    monkeypatch.syspath_prepend(workdir)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    yield ["fit", "--config", "recipe.yaml", "--config", "often.yaml"]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning leaves it ignored


def stop(step, signum):
    return [
        "--trainer.callbacks+=stopper.Stop", f"--trainer.callbacks.step={step}",
        f"--trainer.callbacks.signum={int(signum)}",
    ]  # fmt: skip


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_stopped_run_ends_with_the_line_that_resumes(often, lit_ssl, signum, workdir):
    result = lit_ssl(*often, "--model.lr=0.3", *stop(5, signum))
    assert result.code == (1 if signum == signal.SIGINT else 143)
    line = result.out.splitlines()[-1]
    assert line.startswith("stopped at step ")
    words = shlex.split(line.partition(": ")[2])
    path = words[words.index("--ckpt_path") + 1]
    assert torch.load(path, weights_only=True)["global_step"] == 4 + 2 * (signum == signal.SIGTERM)
    assert words[:6] == ["lit-ssl", *often]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    again = lit_ssl(*words[1:])  # the same signal in the same step, if that is still to come
    assert again.code == (1 if signum == signal.SIGINT else 0)
    if signum == signal.SIGINT:
        assert again.out.splitlines()[-1].count("--ckpt_path") == 1


def test_a_run_stopped_before_its_first_checkpoint_says_so(often, lit_ssl, workdir):
    lit_ssl(*often)
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*.ckpt")}
    for path in before:  # of an earlier run
        os.utime(path, (1, 1))
    result = lit_ssl(*often, *stop(1, signal.SIGINT))
    assert result.out.splitlines()[-1] == "stopped before a checkpoint was written"


def stop_in(hook):
    return ["--trainer.callbacks+=stopper.StopIn", f"--trainer.callbacks.hook={hook}"]


@pytest.mark.parametrize("hook", ["setup", "on_fit_start", "on_train_start", "on_sanity_check_end"])
def test_nothing_is_left_of_a_run_that_sigterm_ends_before_its_first_step(
    often, lit_ssl, workdir, hook
):
    before = signal.getsignal(signal.SIGTERM)
    words = ["--trainer.logger=true", "--trainer.num_sanity_val_steps=1"]
    result = lit_ssl(*often, *words, *stop_in(hook))
    assert result.code == 143
    assert result.out.splitlines()[-1] == "stopped before a checkpoint was written"
    assert not (workdir / "lightning_logs").exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_in_a_validation_saves_the_step_before_it(often, lit_ssl, workdir, monkeypatch):
    monkeypatch.setenv("LOSSES", str(workdir / "losses.txt"))
    words = [*often, "--trainer.limit_train_batches=5"]
    result = lit_ssl(*words, *stop_in("on_validation_start"))
    assert result.code == 143
    path = result.out.split()[-1]
    assert path == "checkpoints/last.ckpt"
    assert torch.load(path, weights_only=True)["global_step"] == 5
    again = lit_ssl(*words, "--ckpt_path", path)
    assert again.code == 0
    steps = [line.split()[0] for line in (workdir / "losses.txt").read_text().splitlines()]
    assert steps == [str(step) for step in range(10)]


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_sigterm_ends_an_evaluation_at_once(often, lit_ssl, workdir, command):
    names = {"validate": "validation"}
    hook = stop_in(f"on_{names.get(command, command)}_batch_start")
    result = lit_ssl(command, "--config", "recipe.yaml", "--config", "often.yaml", *hook)
    assert result.code == 143
    assert list(workdir.glob("predictions*")) == []


def test_what_should_follow_a_terminated_fit_does_not(often, lit_ssl):
    result = lit_ssl(*often, "--then=test", *stop_in("on_train_end"))
    assert result.code == 143
    assert "test:" not in result.out


@pytest.fixture
def slurm(workdir, monkeypatch):
    (workdir / "bin").mkdir()
    (workdir / "bin" / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {workdir}/asked.txt\n')
    (workdir / "bin" / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{workdir / 'bin'}:{os.environ['PATH']}")
    values = {"NTASKS": "1", "NTASKS_PER_NODE": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in {**values, "JOB_ID": "77", "JOB_NAME": "train"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)


@pytest.mark.parametrize("strategy", ["auto", "slowmo"])
def test_job_of_one_process_goes_on_where_it_was_saved(
    often, lit_ssl, slurm, workdir, monkeypatch, strategy
):
    words = [*often, f"--trainer.strategy={strategy}"]
    losses = {}
    for name, more in {"whole": [], "job": stop(3, signal.SIGUSR1), "again": []}.items():
        monkeypatch.setenv("LOSSES", str(workdir / f"{name}.txt"))
        root = "whole" if name == "whole" else "job"
        result = lit_ssl(*words, f"--trainer.default_root_dir={root}", *more)
        assert result.code == 0, result.err
        losses[name] = (workdir / f"{name}.txt").read_text().splitlines()
    assert losses["job"] == losses["whole"]
    assert losses["again"] == losses["whole"][4:]  # saved after the step in which it was told
    assert (workdir / "asked.txt").read_text() == "requeue 77\n"
    monkeypatch.setenv("SLURM_JOB_ID", "78")
    with pytest.warns(UserWarning, match="This is job 78, but it continues from .* job 77 left"):
        lit_ssl(*words, "--trainer.default_root_dir=job")


def test_last_is_also_what_slurm_made_the_run_save(often, lit_ssl, slurm, workdir):
    assert lit_ssl(*often, *stop(3, signal.SIGUSR1), "--trainer.max_steps=5").code == 0
    for path in workdir.rglob("*.ckpt"):  # the rest was written when the job was going to end
        os.utime(path, (9, 9) if path.name.startswith("hpc") else (1, 1))
    result = lit_ssl(*often, "--ckpt_path", "last")
    assert result.out.startswith("--ckpt_path last: hpc_ckpt_1.ckpt")


def test_gradients_that_are_being_accumulated_are_not_lost(often, lit_ssl, slurm, workdir):
    words = ["--trainer.accumulate_grad_batches=2", *stop(1, signal.SIGUSR1)]
    assert lit_ssl(*often, *words).code == 0
    saved = torch.load(workdir / "hpc_ckpt_1.ckpt", weights_only=True)
    assert saved["global_step"] == 2
    progress = saved["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]
    assert progress["processed"] == 4
