"""Lightning's DDP with local steps in between: all that surrounds the rule of the strategies."""

from __future__ import annotations

import gc
from collections.abc import Callable
from inspect import signature
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor
from torch.optim import Optimizer

from lit_ssl.strategies.ddp import checks
from lit_ssl.strategies.ddp.attempts import join_attempt, leave_group_at_exit
from lit_ssl.strategies.ddp.gradients import GradientSwitch, Groups
from lit_ssl.strategies.ddp.quiet import QuietDDPStrategy
from lit_ssl.strategies.ddp.uneven_data import FINISHED, LOOKS, UnevenData
from lit_ssl.strategies.options import Options, shows_options
from lit_ssl.strategies.sync.averaging import Averager, InFlight
from lit_ssl.strategies.sync.evaluation import Evaluation
from lit_ssl.strategies.sync.inner_optimizer import loss_scale
from lit_ssl.strategies.sync.rounds import SyncSchedule
from lit_ssl.strategies.sync.synchroniser import Synchroniser
from lit_ssl.strategies.sync.units import (
    SyncUnit,
    build_units,
    check_same_parameters,
    make_equal,
)
from lit_ssl.trainer.checkpoint_io import write_whole
from lit_ssl.trainer.private import (
    copy_from_first_rank,
    timeout_of,
    values_kept_when_wrapped,
)
from lit_ssl.trainer.requeue import requeue_of

__all__ = ["LocalStepsStrategy"]


class LocalStepsStrategy(QuietDDPStrategy):
    """What the strategies stand on: DDP that can be passed by, set-up, evaluation, unequal data.

    The rule itself, ``begin_local_steps`` and ``end_round``, is that of
    [`LocalSGDStrategy`][lit_ssl.LocalSGDStrategy].

    Args:
        **kwargs: of ``Options``, and of ``DDPStrategy``.
    """

    @shows_options
    def __init__(self, **kwargs: Any) -> None:
        ours = signature(Options).parameters
        self.options = Options(**{name: kwargs.pop(name) for name in set(kwargs) & set(ours)})
        checks.check_ddp_arguments(type(self), self.options, kwargs)
        super().__init__(bucket_cap_mb=self.options.bucket_cap_mb, **kwargs)
        options = self.options
        self.schedule = SyncSchedule(options.sync_every, options.sync_schedule, options.delay + 1)
        self.just_synced = False
        self.rounds = 0
        self.steps: list[int] = []  # of each optimizer
        self.loaded_from: str | None = None  # the checkpoint
        self.at_train_start: Callable[[], None] | None = None  # the end of resuming
        self.gradients = GradientSwitch()
        self.is_fitting = False  # from set-up on
        # What is synchronised together: one for each optimizer, or for each of its fragments.
        self.units: list[SyncUnit] = []
        self._compared = False

    # what is going on

    @property
    def is_local(self) -> bool:
        """Whether local steps are running."""
        return self.gradients.is_local

    @property
    def steps_in_round(self) -> int:
        """Local steps that the first optimizer has done in its round."""
        return self.units[0].round.step if self.units else 0

    @property
    def round_length(self) -> int:
        """Length H of its round."""
        return self.units[0].round.period if self.units else self.options.sync_every

    @property
    def bytes_sent(self) -> int:
        """Bytes that this process has sent for averages since the run began."""
        return self.engine.averager.bytes_sent if self.is_fitting else 0

    def drift(self) -> float:
        """RMS distance of the processes' parameters from their mean; all must call it."""
        self.end_silence(is_over=True)
        return self.engine.drift() if self.is_local else 0.0

    def settings(self) -> dict[str, Any]:
        """Everything that was chosen, as plain values."""
        return self.options.settings()

    def note_bad_loss(self, bad: Tensor) -> None:
        """Let the next averages count this process among those with inf or NaN.

        Args:
            bad: whether a loss since the last average was one, bool, on the device.
        """
        self.engine.averager.bad_loss = bad

    # the rule

    def begin_local_steps(self) -> None:
        """Begin the first round; the parameters must be the same on all processes."""
        raise NotImplementedError

    def end_round(self, unit: SyncUnit) -> None:
        """Average a unit and do the outer step; all processes must call it.

        Args:
            unit: whose round ends.
        """
        raise NotImplementedError

    def sync(self) -> None:
        """End the running round now; all processes must call it. Does nothing between rounds."""
        self.end_silence(is_over=True)
        for unit in self.units if self.is_local else []:
            if unit.in_flight is not None:
                self.end_round(unit)
            if not self.engine.is_level(unit):
                self.end_round(unit)

    def follow_parameters(self, unit: SyncUnit) -> None:
        """The parameters of a unit have changed: adapt what the outer step keeps beside it.

        Args:
            unit: whose they are.
        """

    def begin_round_here(self, unit: SyncUnit) -> None:
        """Begin a round with the current parameters, which must be the same on all processes.

        Args:
            unit: whose round begins.
        """
        unit.take_snapshot()
        unit.round.restart(unit.round.period, unit.round.start_lr, completed=False)

    def tell(self, hook: str) -> None:
        """Call a hook of the callbacks, and of the module, that have it.

        Args:
            hook: its name, such as ``on_after_sync``.
        """
        module = self.lightning_module
        for callback in self.trainer.callbacks if self.trainer is not None else []:  # type: ignore[attr-defined]
            if callable(method := getattr(callback, hook, None)):
                method(self.trainer, module)
        if callable(method := getattr(module, hook, None)):
            method(self)

    # set-up

    def setup_environment(self) -> None:
        """Write checkpoints whole, also where a run was not made by the command line."""
        write_whole(self)
        super().setup_environment()

    def setup_distributed(self) -> None:
        """Create the process group; under torchrun with a store of this attempt's own."""
        join_attempt(self)
        super().setup_distributed()  # leaves a process group that exists as it is
        leave_group_at_exit()

    def setup(self, trainer: pl.Trainer) -> None:
        """Prepare the model; when fitting, begin with local steps unless there is a warm-up."""
        assert self.lightning_module is not None
        self.is_fitting, self.units, self.rounds = False, [], 0
        self.gradients = GradientSwitch()
        if trainer.state.fn != TrainerFn.FITTING:
            super().setup(trainer)
            return
        name, options, rank = type(self).__name__, self.options, self.global_rank
        checks.check_unsharded(self.lightning_module, name)
        warmup = checks.count_warmup(options.warmup_steps, trainer)
        self._groups = Groups(rank, self.world_size, options, timeout_of(self))
        self.gradients = GradientSwitch(self._groups.node, warmup)
        super().setup(trainer)
        checks.check_optimizers(self.lightning_module, self.optimizers, name)
        self.steps = [0] * len(self.optimizers)
        self.units = build_units(self.lightning_module, self.optimizers, options)
        averager = Averager(rank, self.world_size, self._groups, options)
        self.engine = Synchroniser(self.lightning_module, self.units, averager, options)
        self.evaluation = Evaluation(self.engine)
        self.is_fitting = True
        self._uneven = UnevenData(options.uneven == "join", self.world_size, self.root_device)
        check_same_parameters(self.units, rank, name)
        self.requeue = requeue_of(trainer, self.lightning_module)
        if warmup == 0:
            self.begin_local_steps()

    def configure_ddp(self) -> None:
        """Wrap the model in DDP only if gradients are averaged at all."""
        if not self.gradients.needs_wrapper:
            assert self.lightning_module is not None
            copy_from_first_rank(self.lightning_module)
            return
        super().configure_ddp()
        assert self.model is not None
        self.gradients.attach(self.model)

    def _wrap_again(self) -> None:
        """Make a new wrapper, which knows parameters that were unfrozen; nothing is sent."""
        self.model = self.lightning_module
        gc.collect()  # the old one takes its hooks along
        with values_kept_when_wrapped(self):
            self.configure_ddp()

    def on_train_start(self) -> None:
        """Find out whether the processes have the same number of batches."""
        if self.at_train_start is not None:
            self.at_train_start()
            self.at_train_start = None
        if self.world_size > 1 and self.is_fitting:
            assert self.trainer is not None
            checks.warn_about_collectives(self.trainer.lightning_module, type(self).__name__)
            self._uneven.look_at(self.trainer)
            self.requeue.within_epochs = not (self._uneven.is_possible and self._uneven.join)

    def on_train_end(self) -> None:
        """End with one model: the average, or the result of a last outer step."""
        self.announce_look()
        for unit in self.units:
            if unit.in_flight is not None:
                self.end_round(unit)
        if self.options.final_sync == "outer":
            self.sync()
        elif self.options.final_sync == "average" and self.is_local:
            self.evaluation.keep_average()
            for unit in self.units:
                self.begin_round_here(unit)

    def on_exception(self, exception: BaseException) -> None:
        """Drop averages under way, which may never be answered; leave the module its own values."""
        super().on_exception(exception)
        for unit in self.units:
            unit.in_flight = None
        if self.units:
            self.evaluation.end()

    def teardown(self) -> None:
        """Wait for averages that are under way, unless interrupted, and let go of the model."""
        if self.units and not self.interrupted:
            self.engine.wait()
        super().teardown()

    # steps

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Forget that the last batch may have ended a round."""
        super().on_train_batch_start(batch, batch_idx)
        self.just_synced = False
        self.go_on_silently()
        if self.options.bn_recalibration_batches and self.is_fitting:
            self.evaluation.recalibration.remember(batch)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module's step; before it, begin local steps when the warm-up is over."""
        module = self.lightning_module
        assert module is not None
        warm = min(self.steps, default=0) >= self.gradients.warmup
        if not self.is_local and self.is_fitting and warm:
            share = self.world_size // self.options.group_size
            rank_zero_info(
                f"{type(self).__name__}: local steps begin after {min(self.steps)} steps of DDP. A "
                f"step now sees 1/{share} of the samples that it saw before; the learning rate is "
                "not changed."
            )
            make_equal(self.units, self.root_device, type(self).__name__)
            self.begin_local_steps()
        if self.gradients.is_outdated:
            self._wrap_again()
        if self.gradients.passes_by:
            with self.precision_plugin.train_step_context():
                output = module.training_step(*args, **kwargs)
        else:
            output = super().training_step(*args, **kwargs)
        if not module.automatic_optimization:
            self.end_silence()
            self.end_batch()
            self.go_on_silently()
        return output

    def pre_backward(self, closure_loss: Tensor) -> None:
        """Prepare DDP's reducer, except in local steps."""
        if not self.gradients.passes_by:
            super().pre_backward(closure_loss)

    def post_backward(self, closure_loss: Tensor) -> None:
        """Flush DDP's reducer, except in local steps."""
        if not self.gradients.passes_by:
            super().post_backward(closure_loss)

    def count_step(self, optimizer: Optimizer) -> list[SyncUnit]:
        """Count a step of an optimizer; returns the units that it moved, none in the warm-up.

        Attempted steps count: a process whose GradScaler skips one must not fall out of step.

        Args:
            optimizer: which has made it.
        """
        index = next((i for i, other in enumerate(self.optimizers) if other is optimizer), None)
        if not self.is_fitting or index is None:
            return []
        self.end_silence()
        self.steps[index] += 1
        moved = [unit for unit in self.units if unit.index == index] if self.is_local else []
        self.just_synced = self.just_synced or not self.is_local  # DDP keeps them equal
        for unit in moved:
            self.schedule.begin(unit.round, unit.learning_rates()[0])
            unit.round.advance(unit.learning_rates())
        return moved

    def row_of(self, unit: SyncUnit) -> tuple[float, ...]:
        """What this process tells the others with an average, in the averager's columns.

        Args:
            unit: which is averaged.
        """
        state, rates = unit.round, unit.rates_of_round()
        joins = self._uneven.is_possible and self._uneven.join
        weight = state.step / state.period if joins else 1.0
        period = self.schedule.expected(self.steps[unit.index], state)
        told = Averager.tell(period, asks=self.requeue.asked, ends=self.requeue.terminated)
        return (weight, 0.0, told, loss_scale(self.precision_plugin), *rates)

    def heed(self, flight: InFlight) -> None:
        """Act upon what all processes have told with an average.

        They save at the end of this batch if the job of one is about to end, or has to end now.

        Args:
            flight: the average, which has arrived.

        Raises:
            InputRuntimeError: on every process, if they had rounds of different lengths.
        """
        counting = [row for row in flight.table if row[Averager.WEIGHT] > 0]
        self.schedule.check_same([int(row[Averager.PERIOD]) for row in counting])
        if flight.asks or flight.ends:
            self.requeue.agree(asks=flight.asks, ends=flight.ends)
            for unit in self.units:  # these may ask for the same
                if unit.in_flight is not None:
                    unit.in_flight.is_heeded = True

    def go_on_silently(self) -> None:
        """Expect no communication up to the next step; at the end of an epoch there may be some."""
        if self.is_local and self.trainer is not None and not self.trainer.is_last_batch:
            self.listen()

    # what is seldom asked for

    def done_before(self, unit: SyncUnit, period: int) -> int:
        """Steps that the first round is shortened by: with fragments, or ``first_sync``.

        Args:
            unit: whose round it is.
            period: the length of a round, in steps.
        """
        if self.options.first_sync == "immediate":
            # PyTorch's hierarchical averages fall on multiples of the steps since the run began.
            missing = -self.steps[unit.index] % period if self.options.average_every else 0
            return period - 1 - missing
        fragments = sum(other.index == unit.index for other in self.units)
        return period - (unit.fragment + 1) * period // fragments  # they take turns

    def average_within_round(self, unit: SyncUnit) -> None:
        """Average the parameters without an outer step, with ``average_every``.

        Args:
            unit: which has just made a step.
        """
        every = self.options.average_every
        if every and unit.round.step % every == 0:
            groups = self._groups
            self.engine.average_parameters(unit, groups.average, groups.average_size)

    def announce(self, unit: SyncUnit) -> None:
        """Tell the other processes of an average, if they may have run out of data.

        Args:
            unit: which is about to be averaged.
        """
        if self._uneven.is_possible:
            self._uneven.announce(self.units.index(unit) + 1, sum(self.steps))

    def announce_look(self) -> None:
        """Tell the others that this process looks at the average, if they may be elsewhere."""
        self.end_silence(is_over=True)
        if self.is_local and self._uneven.is_possible:
            self._uneven.announce(LOOKS, sum(self.steps))

    def end_batch(self) -> None:
        """At the end of an epoch: wait for processes that have more data, or complain."""
        if not self.is_local or self.trainer is None or not self.trainer.is_last_batch:
            return
        uneven = self._uneven
        if uneven.is_possible:
            while (code := uneven.announce(FINISHED, sum(self.steps))) != FINISHED:
                self.end_round(self.units[code - 1])
            for unit in self.units if uneven.join else []:  # the next epoch begins with equal ones
                if any(step for step, _ in uneven.exchange(unit.round.step, 0)):
                    self.end_round(unit)
        if self.options.sync_at_epoch_end:
            self.sync()

    # evaluation

    def on_validation_start(self) -> None:
        """Put the parameters to validate into the module (after the callbacks' hooks)."""
        trainer = self.trainer
        if trainer is None or trainer.sanity_checking or not self.is_local:
            return
        self.announce_look()
        if self.options.eval_params == "sync":
            self.sync()
        self.evaluation.begin(self.precision_plugin.val_step_context())

    def on_validation_end(self) -> None:
        """Put the local parameters back (after the callbacks' hooks: they save the average)."""
        trainer = self.trainer
        if trainer is None or trainer.sanity_checking or not self.is_local:
            return
        self.evaluation.end()
        if not self._compared and self.world_size > 1:
            self._compared = True
            checks.warn_about_monitors(trainer, self.world_size, self.root_device)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Weights for a checkpoint: the average of all processes; the training is not touched."""
        if not self.is_local or self.interrupted:
            return super().lightning_module_state_dict()
        self.announce_look()
        if self.options.per_rank_state == "none":
            self.evaluation.end()
            self.sync()
        return self.evaluation.average(super().lightning_module_state_dict)
