"""How fast the training really is."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
import torch

from lit_ssl.callbacks.monitors.sync_advice import wait_for
from lit_ssl.contracts.batches import num_samples, split_batch
from lit_ssl.errors import InputError
from lit_ssl.trainer.run import logging_interval


class SpeedMonitor(pl.Callback):
    """Logs images per second, time per batch, waiting time for data, and peak device memory.

    The device is waited for only when values are logged and around validation, so the training is
    not slowed down. Time spent in validation does not count. Logged:

    - ``perf/images_per_second``: samples of any kind (not views), all processes together;
    - ``perf/step_seconds``: wall time per batch, everything included;
    - ``perf/data_seconds``: of this, the time between the end of a batch and the start of the
      next: waiting for the loader, moving the batch;
    - ``perf/peak_memory_gib``: peak memory allocated on this process's CUDA device in the window.

    Args:
        every_n_batches: Batches in a window, >= 1; None takes the trainer's ``log_every_n_steps``
            times its ``accumulate_grad_batches``.
        skip: Batches at the start of the fit that do not count (compilation, cache warm-up), >= 0.

    Raises:
        ValueError: If a value lies outside its range.
    """

    def __init__(self, every_n_batches: int | None = None, skip: int = 5) -> None:
        if (every_n_batches is not None and every_n_batches < 1) or skip < 0:
            raise InputError(
                "SpeedMonitor needs every_n_batches >= 1 and skip >= 0, got "
                f"{every_n_batches} and {skip}"
            )
        self.every_n_batches = every_n_batches
        self.skip = skip
        self._to_skip = 0
        self._paused_at: float | None = None
        self._open_window(0.0)

    def _open_window(self, now: float) -> None:
        self._start = now
        self._batches = 0
        self._images = 0
        self._data = 0.0
        self._last_end = now

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin with the batches to skip."""
        self._to_skip = self.skip
        self._paused_at = None
        self._open_window(time.perf_counter())

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The wait for this batch is over."""
        self._data += time.perf_counter() - self._last_end

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count the batch; log when the window is full."""
        device = pl_module.device
        if self._to_skip > 0:
            self._to_skip -= 1
            if self._to_skip == 0:
                wait_for(device)
                self._begin(device)
            return
        self._batches += 1
        self._images += num_samples(split_batch(batch)[0])
        self._last_end = time.perf_counter()
        every = self.every_n_batches or logging_interval(trainer) * trainer.accumulate_grad_batches
        if self._batches < every:
            return
        wait_for(device)
        seconds = time.perf_counter() - self._start
        values = {
            "perf/images_per_second": self._images * trainer.world_size / seconds,
            "perf/step_seconds": seconds / self._batches,
            "perf/data_seconds": self._data / self._batches,
        }
        if device.type == "cuda":
            values["perf/peak_memory_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
        # tensors of the host: numbers would be uploaded, one by one
        logged = {name: torch.tensor(value) for name, value in values.items()}
        pl_module.log_dict(logged, batch_size=1)
        self._begin(device)

    def _begin(self, device: torch.device) -> None:
        """Open a window; the device has done all that came before."""
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self._open_window(time.perf_counter())

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock."""
        if trainer.state.fn == "fit":
            wait_for(pl_module.device)
            self._paused_at = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock again, as if validation had taken no time."""
        if self._paused_at is not None:
            wait_for(pl_module.device)
            pause = time.perf_counter() - self._paused_at
            self._start += pause
            self._last_end += pause
            self._paused_at = None
