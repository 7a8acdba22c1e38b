from __future__ import annotations

import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest

from lit_ssl.callbacks import SpeedMonitor
from lit_ssl.callbacks.monitors import speed

sys.path.insert(0, str(Path(__file__).parent))
import caption_toys


class Clock:
    """A clock that moves only when told to."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(speed.time, "perf_counter", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def timed_module(toys, clock, step=2.0, validation=50.0):
    class Timed(toys.ToyModule):
        def training_step(self, batch, batch_idx):
            clock.now += step if batch_idx else 10 * step  # a slow first step
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            clock.now += validation
            return super().validation_step(batch, batch_idx)

    return Timed()


def timed_data(toys, clock, wait=0.5):
    class Waiting(toys.ToyData):
        def on_before_batch_transfer(self, batch, dataloader_idx):
            if self.trainer.training:
                clock.now += wait
            return batch

    return Waiting


class Log(pl.Callback):
    def __init__(self):
        self.values = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if "perf/images_per_second" in trainer.logged_metrics:
            self.values.append({k: v.item() for k, v in trainer.logged_metrics.items()})


def test_rates_leave_out_the_first_steps_and_validation(toys, clock, make_trainer):
    log = Log()
    trainer = make_trainer(
        callbacks=[SpeedMonitor(every_n_batches=2, skip=1), log],
        max_epochs=1,
        val_check_interval=2,  # validation falls inside the second window
    )
    data = timed_data(toys, clock)(train=48)
    trainer.fit(timed_module(toys, clock), data)
    values = {k: v.item() for k, v in trainer.logged_metrics.items()}
    assert values["perf/step_seconds"] == pytest.approx(2.5)
    assert values["perf/data_seconds"] == pytest.approx(0.5)
    assert values["perf/images_per_second"] == pytest.approx(8 / 2.5)
    for earlier in log.values:
        assert earlier["perf/step_seconds"] == pytest.approx(2.5)


def test_samples_not_views_are_counted(toys, clock, make_trainer):
    trainer = make_trainer(callbacks=[SpeedMonitor(every_n_batches=2, skip=0)], max_steps=2)
    trainer.fit(timed_module(toys, clock, step=1.0), timed_data(toys, clock, 0.0)(views=True))
    rate = trainer.logged_metrics["perf/images_per_second"].item()
    assert rate == pytest.approx(16 / 11)


def test_samples_of_dictionaries_are_counted(clock, make_trainer):
    class Reads(caption_toys.CaptionModule):
        def training_step(self, batch, batch_idx):
            clock.now += 1.0
            return super().training_step(batch, batch_idx)

    trainer = make_trainer(callbacks=[SpeedMonitor(every_n_batches=2, skip=0)], max_steps=2)
    trainer.fit(Reads(), caption_toys.CaptionData(batch_size=5))
    assert trainer.logged_metrics["perf/images_per_second"].item() == pytest.approx(5.0)


def test_window_defaults_to_the_logging_interval_in_batches(toys, clock, make_trainer):
    module, data = timed_module(toys, clock), timed_data(toys, clock)(train=64)
    settings = {"max_epochs": 1, "log_every_n_steps": 2, "accumulate_grad_batches": 2}
    trainer = make_trainer(callbacks=[SpeedMonitor(skip=5)], **settings)
    trainer.fit(module, data)  # 3 of 8 batches count, 4 make a window
    assert "perf/images_per_second" not in trainer.logged_metrics
    trainer = make_trainer(callbacks=[SpeedMonitor(skip=4)], **settings)
    trainer.fit(module, data)
    assert "perf/images_per_second" in trainer.logged_metrics


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="every_n_batches >= 1"):
        SpeedMonitor(every_n_batches=0)
