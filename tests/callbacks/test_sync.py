from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import torch.distributed as dist

from lit_ssl.callbacks import SyncMonitor
from lit_ssl.callbacks.monitors import sync, sync_advice
from lit_ssl.callbacks.monitors.sync_advice import Advice, StepClock
from lit_ssl.strategies import LocalSGDStrategy, SlowMomentumStrategy

CPU = torch.device("cpu")


class Clock:
    """A clock that moves only when told to."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        for module in (sync, sync_advice):
            monkeypatch.setattr(module.time, "perf_counter", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def _no_group_left():
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


class Lines(pl.loggers.logger.DummyLogger):
    """Keeps what is logged under strategy/."""

    def __init__(self):
        super().__init__()
        self.rows = {}

    def log_metrics(self, metrics, step=None):
        for name, value in metrics.items():
            if name.startswith("strategy/"):
                self.rows.setdefault(name, {})[step] = value


# ----------------------------------------------------------------------- advice


def test_period_is_the_smallest_that_keeps_to_the_share():
    for compute, all_reduce, overhead in [(0.01, 0.2, 0.1), (0.02, 0.09, 0.25), (1.0, 0.1, 0.1)]:
        advice = Advice(compute, 0.0, all_reduce, overhead, 10)
        assert advice.share(advice.period) <= overhead + 1e-12
        assert advice.period == 1 or advice.share(advice.period - 1) > overhead
    assert Advice(0.01, 0.0, 0.2, 0.1, 10).period == 180


def test_the_line_fits_the_case():
    slow = Advice(0.010, 0.006, 0.200, 0.1, 25_000_000).line(8)
    assert "a step computes for 10 ms and averaging 25 M parameters takes 200 ms" in slow
    assert "sync_every=180 keeps communication at 10% of the time (sync_every=8: 71%)" in slow
    assert "accuracy falls" in slow
    hidden = Advice(0.010, 0.006, 0.004, 0.1, 10).line(8)
    assert "sync_every=4 " in hidden
    assert "DDP can hide" in hidden
    assert "even DDP" in Advice(0.010, 0.006, 0.001, 0.1, 10).line(8)


@pytest.mark.parametrize(("communicates", "expected"), [(False, 15.5), (True, 7.5)])
def test_clock_leaves_out_communication_waits_and_the_first_batches(clock, communicates, expected):
    steps = StepClock(skip=1, count=2)
    for batch in range(4):
        clock.now += 0.5  # waiting for data belongs to a step
        steps.start_batch(CPU)
        clock.now += 2 if batch else 1000
        steps.end_forward(CPU)
        clock.now += 12
        steps.end_backward(CPU)
        clock.now += 1
        clock.now += 7
        steps.leave_out(7)
        if batch == 2:
            steps.pause()
        steps.end_batch(CPU, communicates)
        assert steps.is_running == (batch < 3)
    assert steps.compute == [pytest.approx(expected)] * 2
    assert steps.backward == [4.0 if communicates else 12.0] * 2


def test_several_backward_passes_and_accumulation(clock, make_trainer):
    steps = StepClock(skip=1, count=1)
    for _ in range(2):
        steps.start_batch(CPU)
        for _ in range(2):
            clock.now += 1
            steps.end_forward(CPU)
            clock.now += 3
            steps.end_backward(CPU)
        steps.end_batch(CPU, communicates=True)
    trainer = make_trainer(accumulate_grad_batches=4)
    advice = steps.advice(trainer, all_reduce=2.0, numel=7, share=0.5)
    assert advice == Advice(4 * (2 + 4), 4.0, 2.0, 0.5, 7)


# ---------------------------------------------------------------------- logging


@pytest.mark.usefixtures("_no_group_left")
def test_what_a_round_logs(toys, clock, make_trainer):
    class Slow(SlowMomentumStrategy):
        def _outer_step(self, unit, mean):
            clock.now += 0.25 * (1 + self.rounds % 2)
            return super()._outer_step(unit, mean)

    lines = Lines()
    strategy = Slow(sync_every=3, slow_momentum=0.5)
    trainer = make_trainer(
        strategy=strategy,
        callbacks=[SyncMonitor()],
        logger=lines,
        log_every_n_steps=4,
        max_steps=14,
    )
    trainer.fit(toys.ToyModule(), toys.ToyData(train=64))
    # rounds end at 3, 6, 9, 12; written at the first, then at least 4 steps apart, and at the end
    assert list(lines.rows["strategy/H"].values()) == [3.0] * 3
    assert list(lines.rows["strategy/sync_ms"].values()) == pytest.approx([250, 375, 500])
    assert list(lines.rows["strategy/drift"].values()) == [0.0]
    norms = list(lines.rows["strategy/slow_norm"].values())
    assert norms[-1] == pytest.approx(strategy.slow_norm())
    assert min(norms) > 0
    assert trainer.callback_metrics["strategy/H"] == 3
    assert "strategy/advised_H" not in lines.rows  # one process has nothing to communicate


@pytest.mark.usefixtures("_no_group_left")
def test_no_time_is_told_where_averages_run_in_the_background(toys, make_trainer):
    lines = Lines()
    trainer = make_trainer(
        strategy=LocalSGDStrategy(sync_every=3, delay=1), callbacks=[SyncMonitor()], logger=lines
    )
    trainer.fit(toys.ToyModule(), toys.ToyData(train=64))
    assert "strategy/H" in lines.rows
    assert "strategy/sync_ms" not in lines.rows
    assert "strategy/slow_norm" not in lines.rows


def test_silent_without_rounds(toys, make_trainer, capsys):
    lines = Lines()
    trainer = make_trainer(callbacks=[SyncMonitor()], logger=lines)
    trainer.fit(toys.ToyModule(), toys.ToyData())
    assert lines.rows == {}
    assert "SyncMonitor" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong", [{"drift_every": -1}, {"overhead": 1.0}, {"skip": 0}, {"timed_batches": 0}]
)
def test_bad_settings_are_named(wrong):
    with pytest.raises(ValueError, match="SyncMonitor needs drift_every >= 0"):
        SyncMonitor(**wrong)


# ---------------------------------------------------------------- two processes


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sync")
    command = [sys.executable, str(Path(__file__).with_name("run_sync.py")), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    results = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    return results, done.stdout


@pytest.mark.distributed
def test_watching_does_not_change_the_training(two_processes):
    results, _ = two_processes
    assert results["with"]["weights"] == results["without"]["weights"]


@pytest.mark.distributed
def test_two_processes_drift_apart_and_send(two_processes):
    results, _ = two_processes
    rows = [values for _, values in results["with"]["rows"]]
    assert all(values["strategy/drift"] > 1e-5 for values in rows if "strategy/drift" in values)
    sent = [values["strategy/bytes"] for values in rows if "strategy/bytes" in values]
    assert sent == sorted(sent)
    parameters = len(results["with"]["weights"])
    assert sent[0] >= 2 * 4 * parameters  # a round's average and one for the drift
    assert results["without"]["bytes_sent"] < results["with"]["bytes_sent"]


@pytest.mark.distributed
def test_advice_is_given_once_in_the_warm_up_and_without_one(two_processes):
    results, out = two_processes
    assert out.count("SyncMonitor: ") == 2
    for name in ("with", "warmup"):
        advised = [v for _, v in results[name]["rows"] if "strategy/advised_H" in v]
        assert len(advised) == 1
        assert advised[0]["strategy/compute_ms"] > 0
        assert advised[0]["strategy/allreduce_ms"] > 0
    steps = [step for step, v in results["warmup"]["rows"] if "strategy/H" in v]
    assert min(steps) >= 8  # 6 steps of DDP before the first round
