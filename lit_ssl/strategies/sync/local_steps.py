"""Counts local steps, ends rounds and runs their synchronisations; base of the strategies."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor
from torch.optim import Optimizer

from lit_ssl.strategies.ddp import checks
from lit_ssl.strategies.ddp import uneven_data as uneven
from lit_ssl.strategies.ddp.attempts import keep_signals_local
from lit_ssl.strategies.ddp.process_groups import Groups
from lit_ssl.strategies.ddp.switchable import SwitchableDDPStrategy
from lit_ssl.strategies.options import Options
from lit_ssl.strategies.state.rng import set_rng
from lit_ssl.strategies.sync.averaging import Averager
from lit_ssl.strategies.sync.buffers import fingerprints
from lit_ssl.strategies.sync.compression import make_codec
from lit_ssl.strategies.sync.loss_scale import loss_scale, lower_loss_scale
from lit_ssl.strategies.sync.rounds import SyncSchedule
from lit_ssl.strategies.sync.synchroniser import Synchroniser, deciding_row
from lit_ssl.strategies.sync.units import SyncUnit, build_units

__all__ = ["LocalStepsStrategy"]


class LocalStepsStrategy(SwitchableDDPStrategy):
    """Runs rounds of local steps; what a round ends with is up to ``_outer_step``.

    Args:
        options: everything that can be chosen.
        **kwargs: of DDPStrategy and DistributedDataParallel.
    """

    def __init__(self, options: Options, **kwargs: Any) -> None:
        checks.check_ddp_arguments(options, kwargs, type(self).__name__)
        super().__init__(bucket_cap_mb=options.bucket_cap_mb, **kwargs)
        self.options = options
        self.schedule = SyncSchedule(
            options.sync_every, options.sync_schedule, shortest=options.delay + 1
        )
        self.just_synced = False
        self.rounds = 0
        self._engine: Synchroniser | None = None
        self.steps: list[int] = []
        self._warmup = 0
        self._groups: Groups | None = None
        self._uneven = False
        self._in_step = False
        self.rng_at_start: dict[str, Any] | None = None

    @property
    def engine(self) -> Synchroniser:
        """Runs the synchronisations, when fitting."""
        assert self._engine is not None
        return self._engine

    @property
    def units(self) -> list[SyncUnit]:
        """What is synchronised together: one for each optimizer, or for each of its fragments."""
        return [] if self._engine is None else self._engine.units

    def sync(self) -> None:
        """End the running round now; all processes must call it. Does nothing between rounds."""
        if self._engine is None or not self.is_local:
            return
        for unit in self.units:
            if unit.in_flight is not None:
                self._complete(unit)
            if not self.engine.is_level(unit):
                self._start(unit)
                self._complete(unit)

    # set-up

    def setup(self, trainer: pl.Trainer) -> None:
        """Prepare the model; when fitting, take the first snapshot of its parameters."""
        fitting = trainer.state.fn == TrainerFn.FITTING
        self._engine, self.is_local, self.rounds, self._uneven = None, False, 0, False
        assert self.lightning_module is not None
        name, options = type(self).__name__, self.options
        if fitting:
            checks.check_unsharded(self.lightning_module, name)
            self._warmup = checks.count_warmup(options.warmup_steps, trainer)
            self._groups = Groups(self.global_rank, self.world_size, options, self._timeout)
            self.node_group = self._groups.node
            self.averages_gradients = self._warmup > 0 or self.node_group is not None
        super().setup(trainer)
        if not fitting:
            return
        checks.check_optimizers(self.lightning_module, self.optimizers, name)
        self.steps = [0] * len(self.optimizers)
        self._engine = self._make_engine()
        checks.check_same_parameters(self.units, self.global_rank, name)
        keep_signals_local(trainer, lambda: self.is_local)
        if self._warmup == 0:
            self.begin_local_steps()

    def _make_engine(self) -> Synchroniser:
        assert self.lightning_module is not None
        assert self._groups is not None
        options = self.options
        units = build_units(
            self.lightning_module,
            self.optimizers,
            options.fragments,
            options.buffers,
            options.sync_every,
        )
        averager = Averager(
            self.global_rank,
            self.world_size,
            chunk_bytes=int(options.bucket_cap_mb * 2**20),
            group=self._groups.peers,
            group_ranks=self._groups.peer_ranks,
            codec=make_codec(options.compression),
            skip_nonfinite=options.nonfinite == "skip_rank",
        )
        return Synchroniser(self.lightning_module, units, averager, options)

    def settings(self) -> dict[str, Any]:
        """Everything that was chosen, as plain values."""
        return self.options.settings()

    def _prepare_unit(self, unit: SyncUnit) -> None:
        """Take the first snapshot; override it to add what the outer step has to remember."""
        unit.take_snapshot()

    def begin_round_here(self, unit: SyncUnit) -> None:
        """Begin a round with the current parameters, which must be the same on all processes."""
        unit.take_snapshot()
        unit.round.restart(unit.round.period, unit.round.start_lr, completed=False)

    def begin_local_steps(self) -> None:
        """Begin the first round; the parameters must be the same on all processes."""
        self._switch_to_local_steps()
        for unit in self.units:
            self._prepare_unit(unit)
            lr = float(unit.learning_rates()[0])
            period = self.schedule.period(self.steps[unit.index], lr)
            fragments = sum(other.index == unit.index for other in self.units)
            # Fragments take turns: their first rounds are shorter, by equal parts.
            offset = period - (unit.fragment + 1) * period // fragments
            offset = period - 1 if self.options.first_sync == "immediate" else offset
            unit.round.restart(period, lr, offset, completed=False)
            unit.fingerprints = fingerprints(self.engine.extras_of(unit))

    def teardown(self) -> None:
        """Wait for averages that are under way, unless interrupted, and let go of the model."""
        if self._engine is not None and not self.interrupted:
            self.engine.wait()
        super().teardown()

    def on_exception(self, exception: BaseException) -> None:
        """Drop averages that are under way: the other processes may never answer."""
        super().on_exception(exception)
        self._in_step = False
        if self._engine is not None:
            self.engine.forget()

    def on_train_start(self) -> None:
        """Find out whether the processes have the same number of batches."""
        trainer = self.trainer
        assert trainer is not None
        if self.rng_at_start is not None:  # setting up the loaders has drawn numbers
            set_rng(self.rng_at_start, self.root_device)
            self.rng_at_start = None
        if self.world_size == 1 or self._engine is None:
            return
        checks.warn_about_collectives(trainer.lightning_module, type(self).__name__)
        join = self.options.uneven == "join"
        self._uneven = uneven.may_be_uneven(trainer, self.world_size, self.root_device, join)
        if self._uneven and join:
            uneven.check_join(trainer)

    # steps

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Forget that the last batch may have ended a round."""
        self.just_synced = False

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module's step; before it, begin local steps when the warm-up is over."""
        assert self.lightning_module is not None
        warm = min(self.steps, default=0) >= self._warmup
        if not self.is_local and self._engine is not None and warm:
            share = self.world_size // self.options.group_size
            rank_zero_info(
                f"{type(self).__name__}: local steps begin after {min(self.steps)} steps of DDP. A "
                f"step now sees 1/{share} of the samples that it saw before; the learning rate is "
                "not changed."
            )
            self.begin_local_steps()
        self._in_step = True
        output = super().training_step(*args, **kwargs)
        self._in_step = False
        if not self.lightning_module.automatic_optimization:
            self._end_batch()
        return output

    def optimizer_step(
        self, optimizer: Optimizer, closure: Any, model: Any = None, **kwargs: Any
    ) -> Any:
        """Step an optimizer and end its round if this was the last step.

        Attempted steps count: a process whose GradScaler skips one must not fall out of step.
        """
        output = super().optimizer_step(optimizer, closure, model, **kwargs)
        index = next((i for i, other in enumerate(self.optimizers) if other is optimizer), None)
        if self._engine is None or index is None:
            return output
        self.steps[index] += 1
        if self.is_local:
            for unit in self.units:
                if unit.index == index:
                    self._count_step(unit)
        if self.lightning_module is not None and self.lightning_module.automatic_optimization:
            self._end_batch()
        return output

    def _count_step(self, unit: SyncUnit) -> None:
        unit.round.advance(unit.learning_rates())
        every, left = self.options.average_every, unit.round.period - unit.round.step
        if left <= self.options.delay and unit.in_flight is None:
            if self._uneven:
                self._announce(self.units.index(unit) + 1)
            self._start(unit)
        if left <= 0:
            self._complete(unit)
        elif every and unit.round.step % every == 0:
            assert self._groups is not None
            groups = self._groups
            self.engine.average_parameters(unit, groups.average, groups.average_size)

    # synchronisation

    def _outer_step(self, unit: SyncUnit, mean: Tensor) -> Tensor:
        """What a round ends with; override it for another method.

        It has to give the same result on all processes, and must not communicate.

        Args:
            unit: the parameters; ``unit.x0`` are those at the start of the round, ``unit.rates``
                their last and mean learning rates.
            mean: average over processes, ``[unit.numel]``; may be changed.

        Returns:
            The parameters to go on with, ``[unit.numel]``; ``unit.x0`` has to be set to them.
        """
        assert unit.x0 is not None
        unit.x0.copy_(mean)
        return mean

    def _start(self, unit: SyncUnit) -> None:
        self._tell("on_before_sync")
        state = unit.round
        joins = self._uneven and self.options.uneven == "join"
        weight = state.step / state.period if joins else 1.0
        lr = unit.learning_rates()[0] if not state.worked else state.last_lr(0)
        period = self.schedule.period(self.steps[unit.index], float(lr), state)
        rates = [float(lr) for lr in unit.learning_rates()]
        last, mean = rates, rates
        if state.worked:
            groups = range(len(rates))
            last, mean = [state.last_lr(g) for g in groups], [state.mean_lr(g) for g in groups]
        row = (weight, 0.0, float(period), loss_scale(self.precision_plugin), *last, *mean)
        self.engine.start(unit, row)

    def _complete(self, unit: SyncUnit) -> None:
        table = self.engine.finish(unit, self._outer_step)
        row = deciding_row(table)
        unit.round.restart(int(row[Averager.PERIOD]), row[Averager.RATES])
        lower_loss_scale(self.precision_plugin, [row[Averager.SCALE] for row in table])
        self.rounds += 1
        self.just_synced = True
        self._tell("on_after_sync")

    def _tell(self, hook: str) -> None:
        """Call a hook of the callbacks, and of the module, that have it."""
        module = self.lightning_module
        for callback in self.trainer.callbacks if self.trainer is not None else []:  # type: ignore[attr-defined]
            if callable(method := getattr(callback, hook, None)):
                method(self.trainer, module)
        if callable(method := getattr(module, hook, None)):
            method(self)

    # unequal data

    def _end_batch(self) -> None:
        """At the end of an epoch: wait for processes that have more data, or complain."""
        if not self.is_local or self.trainer is None or not self.trainer.is_last_batch:
            return
        if self._uneven:
            while (code := self._announce(uneven.FINISHED)) != uneven.FINISHED:
                self._start(self.units[code - 1])
                self._complete(self.units[code - 1])
            if self.options.uneven == "join":
                self._level_out()
        if self.options.sync_at_epoch_end:
            self.sync()

    def _level_out(self) -> None:
        """End the rounds that some process has begun: the next epoch starts with equal ones."""
        for unit in self.units:
            answers = uneven.exchange(unit.round.step, 0, self.world_size, self.root_device)
            if any(step for step, _ in answers):
                self._start(unit)
                self._complete(unit)

    def _announce(self, code: int) -> int:
        """Say what comes next here; returns what comes next on the processes that go on."""
        steps = sum(self.steps)
        answers = uneven.exchange(code, steps, self.world_size, self.root_device)
        codes = {c for c, _ in answers}
        if len(codes - {uneven.FINISHED}) > 1 or (
            len(codes) > 1 and self.options.uneven == "error"
        ):
            raise RuntimeError(uneven.describe(answers))
        return max(codes)
