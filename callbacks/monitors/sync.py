"""What local SGD and its relatives communicate, and whether it pays."""

from __future__ import annotations

import statistics
import time
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from lit_ssl.callbacks.monitors.sync_advice import StepClock, time_all_reduce, wait_for
from lit_ssl.distributed import is_distributed
from lit_ssl.errors import InputError
from lit_ssl.trainer.private import steps_made
from lit_ssl.trainer.run import logging_interval

__all__ = ["SyncMonitor"]


class SyncMonitor(pl.Callback):
    """Logs the synchronisations of a strategy with local steps, and advises how often to have them.

    With a strategy that synchronises in every step, such as DDP, it does nothing. Logged after a
    batch that ends a round, but no more often than every ``log_every_n_steps`` steps:

    - ``strategy/sync_ms``: mean time that the process spent in a synchronisation, waiting for
      slower processes included; not with ``delay``, where it happens in the background;
    - ``strategy/bytes``: bytes that this process has sent since the run began, for averages of all
      kinds;
    - ``strategy/H``: length of the last round, in steps of the first optimizer;
    - ``strategy/drift``: RMS distance of the processes' parameters from their mean at the end of
      the round. Measuring it costs as much traffic as a synchronisation, so it is rare;
    - ``strategy/slow_norm``: norm of the slow velocity, with slow momentum.

    The advisor times a few averages of the model before the first step, and computation in the
    first steps: local ones, or those of the warm-up, where DDP's communication is left out by
    estimate. It prints one line and logs ``strategy/compute_ms``, ``strategy/allreduce_ms`` and
    ``strategy/advised_H`` once: the smallest H at which communication takes no more than
    ``overhead`` of the time. It knows nothing of accuracy, which falls as H grows.

    Args:
        drift_every: Synchronisations between two measurements of the drift, >= 0; 0: never.
        advise: Whether to time and advise.
        overhead: Share of the time that communication may take, in (0, 1).
        skip: Batches that are not timed at the start, >= 1.
        timed_batches: Batches that are timed, >= 1.

    Raises:
        ValueError: If a value lies outside its range.
    """

    def __init__(
        self,
        drift_every: int = 10,
        advise: bool = True,
        overhead: float = 0.1,
        skip: int = 5,
        timed_batches: int = 20,
    ) -> None:
        if drift_every < 0 or not 0 < overhead < 1 or skip < 1 or timed_batches < 1:
            raise InputError(
                "SyncMonitor needs drift_every >= 0, overhead in (0, 1), skip >= 1 and "
                f"timed_batches >= 1, got {drift_every}, {overhead}, {skip}, {timed_batches}"
            )
        self.drift_every = drift_every
        self.advise = advise
        self.overhead = overhead
        self.skip = skip
        self.timed_batches = timed_batches
        self._clock: StepClock | None = None
        self._all_reduce = 0.0
        self._numel = 0
        self._began = 0.0
        self._values: dict[str, float] = {}  # that are not logged yet
        self._sync_ms: list[float] = []
        self._logged_at: int | None = None

    # synchronisations

    def on_before_sync(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Called by the strategy: measure what ends with the round, start the clock.

        Args:
            trainer: the running trainer, with a strategy that averages rarely.
            pl_module: the module, on its device.
        """
        strategy: Any = trainer.strategy
        start = time.perf_counter()
        self._values["strategy/H"] = float(strategy.round_length)
        if self.drift_every and strategy.rounds % self.drift_every == 0:
            self._values["strategy/drift"] = strategy.drift()
        wait_for(pl_module.device)
        self._began = time.perf_counter()
        self._leave_out(self._began - start)

    def on_after_sync(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Called by the strategy: stop the clock, read the counters.

        Args:
            trainer: the running trainer, with a strategy that averages rarely.
            pl_module: the module, on its device.
        """
        strategy: Any = trainer.strategy
        wait_for(pl_module.device)
        if not strategy.options.delay:
            took = time.perf_counter() - self._began
            self._sync_ms.append(1e3 * took)
            self._leave_out(took)
        self._values["strategy/bytes"] = float(strategy.bytes_sent)
        if callable(slow_norm := getattr(strategy, "slow_norm", None)):
            self._values["strategy/slow_norm"] = slow_norm()

    def _leave_out(self, seconds: float) -> None:
        if self._clock is not None:
            self._clock.leave_out(seconds)

    # batches

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Time an average of the model, if advice is wanted."""
        self._values, self._sync_ms, self._logged_at, self._clock = {}, [], None, None
        if self.advise and _has_rounds(trainer) and is_distributed():
            self._clock = StepClock(self.skip, self.timed_batches)
            trained = (p for p in pl_module.parameters() if p.requires_grad)
            self._numel = sum(p.numel() for p in trained)
            self._all_reduce = time_all_reduce(self._numel, pl_module.device)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The batch is there."""
        if self._clock is not None:
            self._clock.start_batch(pl_module.device)

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        """A forward pass is done."""
        if self._clock is not None:
            self._clock.end_forward(pl_module.device)

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A backward pass is done."""
        if self._clock is not None:
            self._clock.end_backward(pl_module.device)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Log what happened, and advise when enough batches were timed."""
        if self._clock is not None:
            local = trainer.strategy.is_local and trainer.strategy.options.group_size == 1  # type: ignore[attr-defined]
            self._clock.end_batch(pl_module.device, communicates=not local)
            if not self._clock.is_running:
                self._give_advice(trainer, self._clock)
                self._clock = None
        last = self._logged_at
        is_due = last is None or trainer.global_step - last >= logging_interval(trainer)
        if is_due and getattr(trainer.strategy, "just_synced", False):
            self._log(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log what is left."""
        self._log(trainer)

    def _log(self, trainer: pl.Trainer) -> None:
        if not self._values:
            return
        if self._sync_ms:
            self._values["strategy/sync_ms"] = statistics.fmean(self._sync_ms)
        # Not by the module's log, which drops what does not fall on a logging step.
        trainer.callback_metrics.update({k: torch.tensor(v) for k, v in self._values.items()})
        step = steps_made(trainer)
        for logger in trainer.loggers:
            logger.log_metrics(self._values, step=step)
        self._values, self._sync_ms, self._logged_at = {}, [], trainer.global_step

    def _give_advice(self, trainer: pl.Trainer, clock: StepClock) -> None:
        advice = clock.advice(trainer, self._all_reduce, self._numel, self.overhead)
        self._values["strategy/compute_ms"] = 1e3 * advice.compute
        self._values["strategy/allreduce_ms"] = 1e3 * advice.all_reduce
        self._values["strategy/advised_H"] = float(advice.period)
        self._log(trainer)
        if trainer.is_global_zero:
            line = advice.line(trainer.strategy.round_length)  # type: ignore[attr-defined]
            print(f"SyncMonitor: {line}", flush=True)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starting the loader is no part of a step."""
        if self._clock is not None:
            self._clock.pause()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validation is no part of a step."""
        if self._clock is not None:
            self._clock.pause()


def _has_rounds(trainer: pl.Trainer) -> bool:
    """Whether the strategy takes local steps."""
    return hasattr(trainer.strategy, "just_synced")
