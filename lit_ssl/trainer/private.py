"""Every private name of Lightning, torch and jsonargparse that this library uses, and why.

A new release of theirs is checked in this one file. Each function stands for what there is no
public way to ask or to say. Hooks that a subclass overrides, such as LightningCLI's
``_run_subcommand``, stay where they are overridden.
"""

from __future__ import annotations

import csv
import inspect
import io
import os
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial, reduce
from itertools import count
from operator import or_
from typing import Any, get_args

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.fabric.utilities.optimizer import _optimizer_to_device
from lightning.pytorch.callbacks import (
    GradientAccumulationScheduler,
    ModelCheckpoint,
    RichModelSummary,
    StochasticWeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loops import _Loop
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.overrides.distributed import _sync_module_states
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.strategies import DDPStrategy, Strategy
from lightning.pytorch.tuner.lr_finder import _ExponentialLR, _LinearLR
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn
from torch.optim import Optimizer

from lit_ssl.files import write_file
from lit_ssl.trainer.resumed_loops import Rest

__all__ = [
    "around_batches",
    "backend_of",
    "before_batch_transfer",
    "built_by_cli",
    "checkpoint_to_come",
    "chosen_checkpoint_io",
    "collectives_begun",
    "compiled_before",
    "copy_from_first_rank",
    "defer_requeue",
    "ends_now",
    "finds_unused_parameters",
    "goes_on",
    "is_accumulating",
    "is_finding_lr",
    "is_last_batch",
    "is_up_to_date",
    "joins_batch_norms_on_cpu",
    "keep_metrics",
    "leftover_scale",
    "lightning_instantiator",
    "link_by",
    "loader_of_call",
    "loaders_of",
    "lower_loss_scale",
    "max_epochs_of",
    "named_version",
    "not_compiled",
    "on_sigterm",
    "optimizer_to_device",
    "option_types",
    "quiet_hp_metric",
    "required_options",
    "save_at_epoch_ends",
    "saves_at_step",
    "saves_within_epochs",
    "set_version",
    "steps_made",
    "subcommand_parsers",
    "summary_options",
    "timeout_of",
    "trainer_of",
    "uncounted_steps",
    "val_batches",
    "validate_now",
    "validate_the_end",
    "values_kept_when_wrapped",
    "was_validated",
    "whole_numbers_first",
]

# The loops


def before_batch_transfer(trainer: pl.Trainer, batch: Any) -> Any:
    """Call the hook of the data module or module, whichever has it; Lightning's loops do it so.

    Args:
        trainer: of the run.
        batch: from a loader, on the host.

    Returns:
        The batch, as the hook has changed it.
    """
    return trainer.lightning_module._on_before_batch_transfer(batch)


def loaders_of(loop: Any) -> list[Any] | None:
    """The loaders of a loop of the Trainer, None before it has any.

    ``trainer.val_dataloaders`` keeps answering with those of an earlier fit.

    Args:
        loop: of fit, validate, test or predict.
    """
    combined = loop._combined_loader
    return None if combined is None else combined.flattened


def loader_of_call(trainer: pl.Trainer) -> Any:
    """What validate, test or predict reads: an object of this very call, None in a fit.

    Each call of the Trainer combines its loaders anew, also where they are the same.

    Args:
        trainer: of the run.
    """
    loops = {
        "validate": trainer.validate_loop,
        "test": trainer.test_loop,
        "predict": trainer.predict_loop,
    }
    loop: Any = loops.get(trainer.state.fn or "")
    return None if loop is None else loop._combined_loader


def checkpoint_to_come(module: Any) -> str | None:
    """The checkpoint that the run which has called ``setup`` is going to load, if any.

    ``trainer.ckpt_path`` tells it only after ``setup``; until then the path is an argument of
    ``Trainer._run``, which is on the stack. Elsewhere the answer is None.

    Args:
        module: the LightningModule that is set up.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code is pl.Trainer._run.__code__ and frame.f_locals.get("model") is module:
            return frame.f_locals.get("ckpt_path")
        frame = frame.f_back
    return None


def steps_made(trainer: pl.Trainer) -> int:
    """The step at which Lightning logs its own metrics: batches after which an optimiser stepped.

    ``global_step`` counts every optimiser.

    Args:
        trainer: of the fit.
    """
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def is_finding_lr(trainer: pl.Trainer) -> bool:
    """Whether ``Tuner.lr_find`` or its callback is trying learning rates at the moment.

    Args:
        trainer: of the fit.
    """
    return any(
        isinstance(config.scheduler, _LinearLR | _ExponentialLR)
        for config in trainer.lr_scheduler_configs
    )


def max_epochs_of(trainer: pl.Trainer) -> int | None:
    """``max_epochs`` without the epoch that ``StochasticWeightAveraging`` adds for BatchNorm.

    Args:
        trainer: of the fit.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        averaged = getattr(callback, "_max_epochs", None)
        if isinstance(callback, StochasticWeightAveraging) and averaged is not None:
            is_longer = averaged != -1 and trainer.max_epochs == averaged + 1
            return averaged if is_longer else trainer.max_epochs
    return trainer.max_epochs


def ends_now(trainer: pl.Trainer) -> bool:
    """Whether a fit stops after the batch that it has just done: last epoch, step or minute.

    Args:
        trainer: of the fit.
    """
    fit = trainer.fit_loop
    loop = fit.epoch_loop
    out_of_steps = loop.max_steps != -1 and loop.global_step >= loop.max_steps
    stopped = trainer.should_stop and fit._can_stop_early
    is_last_epoch = trainer.max_epochs not in (None, -1) and (
        trainer.current_epoch + 1 >= trainer.max_epochs
    )
    return out_of_steps or stopped or (is_last_epoch and loop._num_ready_batches_reached())


class _ResumedEpochLoop(_TrainingEpochLoop):
    """Goes on behind the batch of which a checkpoint is, with what was still to do there."""

    rest: Rest

    @property
    def done(self) -> bool:
        return not self.rest.after_batch and super().done

    def reset(self) -> None:
        super().reset()
        self._restarting = self._restarting and self.rest.after_batch

    def advance(self, data_fetcher: Any) -> None:
        if not self.rest.after_batch:
            super().advance(data_fetcher)
        self.val_loop.restarting = self._restarting = False

    def on_advance_end(self, data_fetcher: Any) -> None:
        self._skip_next_val = self.rest.after_batch and self.rest.validated
        self.rest.after_batch = False
        super().on_advance_end(data_fetcher)


class _ResumedFitLoop(_FitLoop):
    """Begins in the middle of an epoch or between two, as the counters of ``mend`` say."""

    rest: Rest

    @property
    def done(self) -> bool:
        return not self.rest.after_batch and super().done

    @property
    def skip(self) -> bool:
        is_over = super().skip
        if is_over and self.rest.before_end and self.rest.in_epoch:
            # Where it stays stopped in mid-epoch, that counts as an epoch.
            self.epoch_progress.increment_processed()
            self.epoch_progress.increment_completed()
            self.rest.in_epoch = False
        return is_over and not self.rest.before_end

    def reset(self) -> None:
        if not self.rest.in_epoch:
            _Loop.restarting.fset(self, False)  # type: ignore[attr-defined]
        super().reset()
        if self.rest.metrics is not None:
            known, device = self.trainer._logger_connector, self.trainer.strategy.root_device
            metrics = {name: value.to(device) for name, value in self.rest.metrics.items()}
            known._callback_metrics.update(metrics)
            if self.rest.after_epoch:
                self.epoch_progress.current.completed -= 1
                self.epoch_loop.update_lr_schedulers("epoch", update_plateau_schedulers=True)
                self.epoch_progress.current.completed += 1

    def advance(self) -> None:
        if self.rest.in_epoch:  # its start, at which they set it, is passed over
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, GradientAccumulationScheduler):
                    callback.on_train_epoch_start(self.trainer, self.trainer.lightning_module)
        super().advance()

    def on_advance_end(self) -> None:
        # Lightning keeps schedules that look at metrics from it, since it does not save these.
        self._restarting = self._restarting and self.rest.metrics is None
        super().on_advance_end()

    def on_iteration_done(self) -> None:
        super().on_iteration_done()
        self._forget()

    def on_run_end(self) -> None:
        super().on_run_end()
        self._forget()

    def _forget(self) -> None:
        self.rest.in_epoch = self.rest.after_epoch = self.rest.before_end = False
        self.rest.metrics = None


def goes_on(trainer: pl.Trainer, rest: Rest) -> bool:
    """Let a fit go on with what was still to do when a checkpoint was written.

    Args:
        trainer: Before the counters of the checkpoint (``mend``) are loaded.
        rest: What was still to do.

    Returns:
        Whether it can: False where someone has exchanged the loops of the Trainer.
    """
    fit: Any = trainer.fit_loop
    kinds = (_FitLoop, _ResumedFitLoop), (_TrainingEpochLoop, _ResumedEpochLoop)
    if type(fit) not in kinds[0] or type(fit.epoch_loop) not in kinds[1]:
        return False
    fit.__class__, fit.epoch_loop.__class__ = _ResumedFitLoop, _ResumedEpochLoop
    fit.rest = fit.epoch_loop.rest = rest
    return True


def is_accumulating(trainer: pl.Trainer) -> bool:
    """Whether the latest batch has left gradients to which the next one adds.

    Args:
        trainer: of the fit.
    """
    loop = trainer.fit_loop.epoch_loop
    return loop.batch_progress.current.ready > 0 and loop._should_accumulate()


def is_last_batch(trainer: pl.Trainer) -> bool:
    """Whether the latest batch is the last of its epoch.

    Args:
        trainer: of the fit.
    """
    loop = trainer.fit_loop.epoch_loop
    return loop.batch_progress.current.ready > 0 and loop._num_ready_batches_reached()


def validate_the_end(trainer: pl.Trainer) -> None:
    """Let a fit validate after its last batch too, wherever that falls; calling it again is free.

    Lightning validates where ``check_val_every_n_epoch`` and ``val_check_interval`` say, and so
    not at all after the last epoch or step of a fit whose length they do not divide.

    Args:
        trainer: of the fit; its loop is changed.
    """
    loop = trainer.fit_loop.epoch_loop
    if "_should_check_val_fx" in vars(loop):
        return
    is_due = type(loop)._should_check_val_fx

    def is_due_or_last(data_fetcher: Any) -> bool:
        if is_due(loop, data_fetcher):
            return True
        if not trainer.enable_validation:
            return False
        if loop.restarting:  # without ExactResume: such a validation has been done
            return loop.restarted_on_last and loop._num_ready_batches_reached()
        return ends_now(trainer)

    loop._should_check_val_fx = is_due_or_last  # type: ignore[method-assign]


def was_validated(trainer: pl.Trainer) -> bool:
    """Whether the weights of now were validated before the checkpoint that a fit goes on from.

    Args:
        trainer: of the fit.
    """
    fit: Any = trainer.fit_loop
    rest: Rest | None = getattr(fit, "rest", None)
    return rest is not None and rest.validated_at == fit.epoch_loop.batch_progress.total.processed


def validate_now(trainer: pl.Trainer) -> None:
    """Validate at ``on_train_end``, as part of the epoch that has just ended.

    Nothing is done where that was done before the checkpoint that the fit goes on from.

    Args:
        trainer: of the fit.
    """
    fit: Any = trainer.fit_loop
    rest: Rest | None = getattr(fit, "rest", None)
    if rest is not None and rest.end_validated_at == fit.epoch_loop.batch_progress.total.processed:
        return
    fit.epoch_progress.current.completed -= 1  # what trainer.current_epoch is
    fit.epoch_loop._batches_that_stepped -= 1  # the step in the logs
    trainer.validating = True
    try:
        fit.epoch_loop.val_loop.run()
    finally:
        trainer.training = True
        fit.epoch_loop._batches_that_stepped += 1
        fit.epoch_progress.current.completed += 1


def val_batches(trainer: pl.Trainer) -> float:
    """Batches of each validation of a fit on this process; makes the loaders, as Lightning will.

    Args:
        trainer: of the fit.
    """
    if not trainer.enable_validation:
        return 0
    trainer.validating = True
    trainer.fit_loop.epoch_loop.val_loop.setup_data()
    trainer.training = True
    return sum(trainer.num_val_batches)


def leftover_scale(trainer: pl.Trainer, optimizer: Optimizer) -> torch.Tensor | None:
    """Factor that gradients still have before the step; None: 1.

    Fused optimizers under ``16-mixed`` divide by the scale of the loss within their step. The
    factor stays on the device.

    Args:
        trainer: of the fit.
        optimizer: the one whose gradients these are.

    Returns:
        Float32, 0-d, on the device of its first parameter, or None.
    """
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is None or not getattr(optimizer, "_step_supports_amp_scaling", False):
        return None
    device = optimizer.param_groups[0]["params"][0].device
    return scaler.scale(torch.ones((), device=device))


def finds_unused_parameters(strategy: Any) -> bool:
    """Whether a DDP strategy was told to expect parameters without gradient.

    Args:
        strategy: a ``DDPStrategy``.
    """
    return bool(strategy._ddp_kwargs.get("find_unused_parameters"))


def joins_batch_norms_on_cpu(trainer: pl.Trainer) -> bool:
    """Whether ``sync_batchnorm`` was asked for where torch's layer does not run: on CPUs.

    Args:
        trainer: of the run.
    """
    strategy: Any = trainer.strategy
    return bool(getattr(strategy, "_layer_sync", None)) and strategy.root_device.type == "cpu"


# Optimizers


@contextmanager
def uncounted_steps(optimizer: Any) -> Iterator[None]:
    """Let the steps of one of several optimizers of a manual optimization not count.

    Else ``trainer.global_step`` and ``max_steps`` would count those of all optimizers.

    Args:
        optimizer: as ``self.optimizers()`` gives it; a plain one of torch is never counted.
    """
    counting = [getattr(optimizer, name, None) for name in ("_on_before_step", "_on_after_step")]
    if None not in counting:
        optimizer._on_before_step = optimizer._on_after_step = _nothing
    try:
        yield
    finally:
        if None not in counting:
            optimizer._on_before_step, optimizer._on_after_step = counting


def _nothing() -> None:
    """Do nothing."""


# Callbacks and loggers


def is_up_to_date(callback: ModelCheckpoint, step: int) -> bool:
    """Whether the last file that a callback wrote is of this step.

    Args:
        callback: which saves checkpoints.
        step: as ``trainer.global_step`` counts.
    """
    return callback._last_global_step_saved == step


def save_at_epoch_ends(callback: ModelCheckpoint) -> None:
    """Do not let a callback wait for a validation, unless the user had it do so.

    Args:
        callback: which saves checkpoints; it is changed.
    """
    if callback._save_on_train_epoch_end is None:
        callback._save_on_train_epoch_end = True


def link_by(callback: ModelCheckpoint, link: Callable[[str, str], None] | None) -> None:
    """Let something else make the link of ``save_last="link"``, on the first process.

    Args:
        callback: makes it as soon as the writing of the file has begun.
        link: gets the file and the name of the link; None: the callback itself, as before.
    """

    def instead(trainer: pl.Trainer, file: str, name: str) -> None:
        if trainer.is_global_zero and link is not None:
            link(file, name)

    vars(callback).pop("_link_checkpoint", None)
    if link is not None:
        vars(callback)["_link_checkpoint"] = instead


def saves_at_step(callback: ModelCheckpoint, step: int) -> bool:
    """Whether a callback that saves every n-th step is due after this one.

    Args:
        callback: which saves checkpoints.
        step: as ``trainer.global_step`` counts.
    """
    every = callback._every_n_train_steps
    return every > 0 and step % every == 0


def summary_options(callback: RichModelSummary) -> dict[str, Any]:
    """The arguments that a model summary was made with; it keeps no public copy.

    Args:
        callback: the model summary.
    """
    return {"max_depth": callback._max_depth, **callback._summarize_kwargs}


def quiet_hp_metric(logger: TensorBoardLogger) -> None:
    """Keep ``hp_metric`` out of a logger that is there already; else an argument of its class.

    Args:
        logger: it is changed.
    """
    logger._default_hp_metric = False


def named_version(logger: Any) -> int | str | None:
    """The version of a TensorBoard or CSV logger if it has one; asking it looks for the next.

    Args:
        logger: a ``TensorBoardLogger`` or ``CSVLogger``.
    """
    return logger._version


def set_version(logger: Any, version: int | str) -> None:
    """Let a TensorBoard or CSV logger, which has not begun, write into the folder of a version.

    Args:
        logger: a ``TensorBoardLogger`` or ``CSVLogger``; it is changed.
        version: a number, or the name of the folder.
    """
    logger._version = version


class _KeptMetrics(ExperimentWriter):
    """Adds rows to ``metrics.csv`` where Lightning deletes the file of an earlier run."""

    def _check_log_dir_exists(self) -> None:
        if not os.path.isfile(self.metrics_file_path):
            return
        with open(self.metrics_file_path, "rb") as file:
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        rows = _rows_of(whole)
        if rows is None:
            aside = next(
                path
                for number in count(1)
                if not os.path.lexists(path := f"{self.metrics_file_path}.damaged-{number}")
            )
            os.rename(self.metrics_file_path, aside)
            rank_zero_warn(
                f"{self.metrics_file_path} is no table any more: it is kept as "
                f"{os.path.basename(aside)}, and a new one begins"
            )
            return
        self.metrics_keys = rows[0] if rows else []
        if whole != content:  # a killed process has left half a row
            write_file(self.metrics_file_path, lambda file: file.write(whole), binary=True)

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        with open(self.metrics_file_path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))

        def write(file: Any) -> None:
            writer = csv.DictWriter(file, fieldnames=fieldnames)
            writer.writeheader()
            writer.writerows(rows)

        write_file(self.metrics_file_path, write)


def _rows_of(content: bytes) -> list[list[str]] | None:
    """The rows of a table; None if it is none, or has a row that is longer than the first."""
    try:
        rows = list(csv.reader(io.StringIO(content.decode("utf-8"), newline="")))
    except (UnicodeDecodeError, csv.Error):
        return None
    is_table = b"\0" not in content and all(len(row) <= len(rows[0]) for row in rows)
    return rows if is_table else None


def keep_metrics(logger: CSVLogger) -> None:
    """Let a CSV logger, which has not begun, go on with the ``metrics.csv`` in its folder.

    Args:
        logger: it is changed.
    """
    logger._experiment = _KeptMetrics(log_dir=logger.log_dir)


# LightningCLI and jsonargparse


def built_by_cli() -> bool:
    """Whether a LightningCLI is building a module, and keeps its hyper-parameters itself."""
    from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters

    return _given_hyperparameters.get() is not None


def lightning_instantiator(cli: Any, key: str) -> Callable[..., Any]:
    """What LightningCLI builds its model (``key`` "model") or data module ("data") with.

    Args:
        cli: the ``LightningCLI``.
        key: ``model`` or ``data``.
    """
    from lightning.pytorch.cli import _InstantiatorFn

    return _InstantiatorFn(cli=cli, key=key)


def subcommand_parsers(cli: Any) -> dict[str, ArgumentParser]:
    """The parsers of ``fit``, ``test`` …; none if the program has no such words.

    Args:
        cli: the ``LightningCLI``.

    Returns:
        Each by its word.
    """
    return getattr(cli, "_subcommand_parsers", {})


def option_types(parser: ArgumentParser) -> dict[str, Any]:
    """Every option of a parser, e.g. ``trainer.max_epochs``, with its type.

    Types are None for options that jsonargparse does not check by type. The attributes are those of
    jsonargparse 4.40 to 4.53; without them all types would be None.

    Args:
        parser: of one command.
    """
    return {
        name.lstrip("-"): getattr(action, "_typehint", None)
        for action in parser._actions
        for name in action.option_strings
        if not name.endswith((".help", "+"))
    }


def required_options(parser: ArgumentParser) -> list[str]:
    """Options that must be given, in their order; jsonargparse once kept them in a set of names.

    Args:
        parser: of one command.
    """
    names = getattr(parser, "required_args", ())
    return [action.dest for action in parser._actions if action.required or action.dest in names]


def whole_numbers_first(parser: ArgumentParser) -> None:
    """Let an option that takes int or float read ``1`` as one and not as 1.0.

    ``typing`` keeps one object for ``Optional[Union[int, float]]`` and
    ``Optional[Union[float, int]]``: where another package wrote the second one before Lightning was
    imported, ``--trainer.limit_val_batches 1`` would mean 100 % of the batches.

    Args:
        parser: of one command; its options are changed.
    """
    for action in parser._actions:
        kinds = get_args(getattr(action, "_typehint", None))
        if int in kinds and float in kinds and kinds.index(float) < kinds.index(int):
            others = (kind for kind in kinds if kind not in (int, float))
            action._typehint = reduce(or_, others, int | float)  # type: ignore[attr-defined]


# Strategies


def chosen_checkpoint_io(strategy: Strategy) -> CheckpointIO | None:
    """How a strategy was told to write checkpoints; its attribute makes Lightning's, if at all.

    Args:
        strategy: of the run.

    Returns:
        None where it was told nothing.
    """
    return strategy._checkpoint_io


def trainer_of(module: pl.LightningModule | None) -> pl.Trainer | None:
    """The Trainer of a module, if it has one by now.

    Args:
        module: the module; None has no Trainer.
    """
    return None if module is None else module._trainer


def compiled_before(module: nn.Module) -> bool:
    """Whether somebody has compiled a module or a part of it, by a wrapper or in place.

    Args:
        module: any module.
    """
    whole = getattr(module, "_compiler_ctx", None)  # where Lightning notes a module of its own
    return whole is not None or any(
        "_orig_mod" in part._modules or part._compiled_call_impl is not None
        for part in module.modules()
    )


def not_compiled(module: nn.Module) -> None:
    """Undo ``module.compile()``.

    Args:
        module: which was compiled in place.
    """
    module._compiled_call_impl = None


def timeout_of(strategy: DDPStrategy) -> timedelta | None:
    """How long the collectives of a strategy wait.

    Args:
        strategy: of the run.

    Returns:
        None where it was given none.
    """
    return strategy._timeout


def backend_of(strategy: DDPStrategy) -> str:
    """Backend of a strategy's process group.

    Args:
        strategy: of the run.

    Returns:
        Such as ``nccl`` or ``gloo``.
    """
    return strategy._get_process_group_backend()


@contextmanager
def values_kept_when_wrapped(strategy: DDPStrategy) -> Iterator[None]:
    """Let a new wrapper of a DDP strategy not send rank 0's parameters and buffers to all.

    Args:
        strategy: which wraps its module within the block.
    """
    before = strategy._ddp_kwargs
    strategy._ddp_kwargs = {**before, "init_sync": False}
    try:
        yield
    finally:
        strategy._ddp_kwargs = before


def copy_from_first_rank(module: nn.Module) -> None:
    """Give all processes the parameters and buffers of rank 0.

    Args:
        module: the same on all processes, but for values.
    """
    _sync_module_states(module)


def collectives_begun() -> int:
    """How many collectives this process has begun in the group of all; 0 if nobody counts."""
    group: Any = dist.group.WORLD
    try:
        return group._get_sequence_number_for_group()
    except RuntimeError:  # of a backend without
        return 0


def optimizer_to_device(optimizer: Optimizer, device: torch.device) -> None:
    """Move the state of an optimizer.

    Args:
        optimizer: it is changed.
        device: where its state is needed.
    """
    _optimizer_to_device(optimizer, device)


def lower_loss_scale(scaler: Any, scale: float) -> None:
    """Set the scale of a GradScaler, and begin anew to count towards a larger one.

    Args:
        scaler: a ``GradScaler``; one that has scaled nothing yet stays as it is.
        scale: > 0.
    """
    if scaler._scale is not None:
        scaler.update(scale)
        scaler._growth_tracker.zero_()


def saves_within_epochs(callback: pl.Callback) -> bool:
    """Whether a callback saves checkpoints after some steps, or some time.

    Args:
        callback: any callback.
    """
    return isinstance(callback, ModelCheckpoint) and bool(
        callback._every_n_train_steps or callback._train_time_interval
    )


def on_sigterm(trainer: pl.Trainer, handle: Callable[[int, Any], None]) -> None:
    """Exchange what is done on SIGTERM during a call of the Trainer.

    Lightning's handler sends a message to all processes, wherever this one is at that moment, and
    passes the signal on to those that it has started, which may have got it already.

    Args:
        trainer: before its signal handlers are registered.
        handle: the new handler.
    """
    trainer._signal_connector._sigterm_notifier_fn = handle  # type: ignore[method-assign, assignment]


def around_batches(
    trainer: pl.Trainer, before: Callable[[], None], after: Callable[[], None]
) -> None:
    """Call functions before each training batch and after it, between all hooks of the batches.

    Args:
        trainer: before it fits.
        before: called with several processes, in the place of the message by which Lightning
            tells of rank 0's SIGTERM.
        after: called when a batch is done and logged, before a validation that may follow.
    """
    loop = trainer.fit_loop.epoch_loop
    if hasattr(type(loop), "_broadcast_sigterm_tensor"):  # since Lightning 2.6
        loop._broadcast_sigterm_tensor = before  # type: ignore[method-assign]

    def on_advance_end(data_fetcher: Any) -> None:
        after()
        type(loop).on_advance_end(loop, data_fetcher)

    loop.on_advance_end = on_advance_end  # type: ignore[method-assign]


def defer_requeue(
    trainer: pl.Trainer, note: Callable[[int, Any], None]
) -> Callable[[int, Any], None]:
    """Exchange what is done on the signal by which SLURM announces the end of a job.

    Args:
        trainer: before its signal handlers are registered.
        note: the new handler.

    Returns:
        Lightning's handler: saves ``hpc_ckpt_N.ckpt``, which communicates, and requeues the job.
    """
    connector = trainer._signal_connector
    connector._slurm_sigusr_handler_fn = note  # type: ignore[method-assign, assignment]
    return partial(type(connector)._slurm_sigusr_handler_fn, connector)
