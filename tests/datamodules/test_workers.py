"""Workers of loaders and the signals of schedulers."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

import pytest
import torch
from jsonargparse import ArgumentParser
from torch.utils.data import DataLoader

import lit_ssl.datamodules as modules
from lit_ssl.datamodules.loading.rows_module import RowsModule
from lit_ssl.datamodules.loading.workers import begin_worker
from lit_ssl.errors import InputError
from lit_ssl.trainer.termination import end_workers


class Pids(torch.utils.data.Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, index):
        return os.getpid()


def test_workers_go_on_after_a_sigterm_and_go_at_a_second_one():
    """As where a scheduler sends it to all processes of a job."""
    loader = DataLoader(Pids(), batch_size=2, num_workers=1, worker_init_fn=begin_worker)
    batches = iter(loader)
    worker = int(next(batches)[0])
    os.kill(worker, signal.SIGTERM)
    assert [int(batch[0]) for batch in batches] == [worker] * 19
    del batches

    batches = iter(DataLoader(Pids(), num_workers=1, worker_init_fn=begin_worker))
    next(batches)
    (worker,) = batches._workers
    with suppress(RuntimeError):  # from torch, unless a Trainer has put back older handlers
        for _ in range(100):
            if not worker.is_alive():
                break
            worker.terminate()
            time.sleep(0.1)
    worker.join(10)
    assert worker.exitcode == -signal.SIGTERM


def test_a_run_that_sigterm_ends_does_not_wait_for_its_workers():
    batches = iter(DataLoader(Pids(), num_workers=2, worker_init_fn=begin_worker))
    next(batches)
    before = signal.getsignal(signal.SIGCHLD)
    try:
        end_workers()
        for worker in batches._workers:
            worker.join(10)
            assert worker.exitcode == -signal.SIGKILL
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_every_data_module_with_workers_says_how_far_they_read_ahead():
    found = 0
    for name in modules.__all__:
        cls = getattr(modules, name)
        if not (isinstance(cls, type) and issubclass(cls, RowsModule)):
            continue
        parser = ArgumentParser()
        options = parser.add_class_arguments(cls, "data", fail_untyped=False)
        assert ("data.num_workers" in options) == ("data.prefetch_factor" in options), name
        found += "data.num_workers" in options
    assert found > 25


def test_loaders_read_so_far_ahead(toy):
    data = toy(num_workers=1, prefetch_factor=5)
    assert data.train_dataloader().prefetch_factor == 5
    assert data.val_dataloader().prefetch_factor == 5
    assert data.bank_dataloader().prefetch_factor == 5
    assert toy(num_workers=1).train_dataloader().prefetch_factor == 2  # torch's own


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefetch_factor": 2}, "prefetch_factor: 2 is for workers, and num_workers is 0: set"),
        ({"prefetch_factor": 0, "num_workers": 1}, "prefetch_factor must be at least 1, got 0"),
    ],
)
def test_reading_ahead_without_workers_or_batches_is_refused(toy, options, message):
    with pytest.raises(InputError, match=message):
        toy(**options)
