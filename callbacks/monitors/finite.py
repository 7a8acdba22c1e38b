"""Stops a training whose numbers are no numbers any more, and lets no such weights be saved."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor

from lit_ssl.contracts.finite import (
    first_nonfinite,
    losses_of,
    nonfinite,
    optimizer_states,
    running_statistics,
    watched,
)
from lit_ssl.distributed import gather_stack
from lit_ssl.errors import InputError, NonFiniteError, check_numbers
from lit_ssl.trainer.private import is_finding_lr

__all__ = ["FiniteGuard"]

_USUAL = 50  # steps between two looks where the trainer logs nothing


class _Kept(NamedTuple):
    """Losses of a batch, which stay on the device."""

    step: int
    losses: dict[str, Tensor]


class FiniteGuard(pl.Callback):
    """Stops a fit whose loss or weights are NaN or infinite, and keeps the last good checkpoint.

    After each batch it keeps the loss on the device, without waiting for it. Every
    ``every_n_steps`` steps, before a validation, before anything is saved and at the end it looks:
    at these losses, at all parameters and buffers of the module, those of networks that follow
    (EMA) and running statistics too, and at what optimizers keep of each weight. With several
    processes all hear of it in the same step, and stop. What is saved is looked at as it goes into
    the file, so that ``last.ckpt`` is never replaced by weights that are no numbers. The error
    names the step, the loss or the weight, and the newest checkpoint of this run; ``lit-ssl``
    prints the command that goes on from it.

    With local steps (``LocalSGDStrategy`` and its children) processes hear of it where they
    synchronise, and the strategy's ``nonfinite`` says what follows. Gradients that overflow under
    ``16-mixed`` are skipped by the scaler and are no fault. Buffers that hold NaN or infinity when
    the training starts hold them on purpose, but for BatchNorm's. In validate, test and predict,
    the weights are looked at once, at the start.

    ``lit-ssl`` adds this callback; in Python, ``Trainer(callbacks=[FiniteGuard()])``. Tensors that
    are sharded over processes are not looked at, only their losses.

    Args:
        every_n_steps: Optimiser steps between two looks, >= 1; None takes the trainer's
            ``log_every_n_steps``, 50 where that is 0.

    Raises:
        ValueError: If ``every_n_steps`` lies outside its range.
    """

    def __init__(self, every_n_steps: int | None = None) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise InputError(f"FiniteGuard needs every_n_steps >= 1, got {every_n_steps}")
        self.every_n_steps = every_n_steps
        self._window: list[_Kept] = []
        self._looked_at = 0  # step
        self._on_purpose: set[str] = set()  # buffers that may hold anything
        self._saved: dict[str, None] = {}  # files of this run, oldest first
        self._found: NonFiniteError | None = None
        self._has_begun = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begin anew; from now on, look at whatever is saved."""
        self._window, self._on_purpose = [], set()
        self._saved, self._found, self._has_begun = {}, None, False
        if stage == "fit":
            check_numbers({"gradient_clip_val": trainer.gradient_clip_val or 0.0}, "trainer.")
            self._watch_saving(trainer)

    def _watch_saving(self, trainer: pl.Trainer) -> None:
        """Look at what goes into a file; ``on_save_checkpoint`` hears nothing of weights alone."""
        strategy = trainer.strategy
        vars(strategy).pop("save_checkpoint", None)  # left by a fit that failed
        write = strategy.save_checkpoint

        def look_and_write(
            checkpoint: dict[str, Any], filepath: Any, *args: Any, **kwargs: Any
        ) -> None:
            if self._has_begun:  # else a file of the start, as the finder of a rate keeps one
                module = trainer.lightning_module
                state = watched(module, (checkpoint.get("state_dict") or {}).items())
                rest = _states(trainer, module) if "optimizer_states" in checkpoint else {}
                self._look(trainer, {**state, **rest})
            write(checkpoint, filepath, *args, **kwargs)
            self._saved.pop(str(filepath), None)
            self._saved[str(filepath)] = None

        strategy.save_checkpoint = look_and_write  # type: ignore[method-assign]

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Let go of the losses, and of the strategy."""
        self._window = []
        vars(trainer.strategy).pop("save_checkpoint", None)

    # in a fit

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse weights and rates that are no numbers; note which buffers are so on purpose."""
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                check_numbers({n: v for n, v in group.items() if n != "params"}, "optimizer ")
        self._looked_at = trainer.global_step
        must = _never_on_purpose(pl_module)
        others = {n: t for n, t in watched(pl_module).items() if n not in must}
        bad = nonfinite(others.values(), trainer.strategy.root_device).tolist()
        self._on_purpose = {name for name, is_bad in zip(others, bad, strict=True) if is_bad}
        self._look_at_all(trainer, pl_module)
        self._has_begun = True

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Keep the losses of this batch; look at those of the last ones if it is time."""
        step = trainer.global_step
        if losses := losses_of(outputs, is_manual=not pl_module.automatic_optimization):
            self._window.append(_Kept(step, losses))
        every = self.every_n_steps or trainer.log_every_n_steps or _USUAL  # type: ignore[attr-defined]
        if step // every > self._looked_at // every and not _is_local(trainer):
            self._looked_at = step
            self._look_at_all(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the last steps."""
        if not _is_local(trainer):
            self._look_at_all(trainer, pl_module)

    # local steps

    def on_before_sync(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Called by the strategy: tell the others of this process's losses.

        Args:
            trainer: the running trainer, with a strategy that averages rarely.
            pl_module: not used.
        """
        window, self._window = self._window, []
        losses = [loss for kept in window for loss in kept.losses.values()]
        found = first_nonfinite(losses, trainer.strategy.root_device)
        trainer.strategy.note_bad_loss(found >= 0)  # type: ignore[attr-defined]

    # evaluation

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look before anything is measured, and chosen by it."""
        if trainer.state.fn != "fit":
            self._look_at_start(trainer, pl_module)
        elif not trainer.sanity_checking and not _is_local(trainer):
            self._look_at_all(trainer, pl_module)

    def _look_at_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at what an evaluation is of."""
        self._look(trainer, watched(pl_module, _never_on_purpose(pl_module).items()))

    on_test_start = on_predict_start = _look_at_start

    # what is found

    def _look_at_all(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at everything that a fit goes on with."""
        self._look(trainer, {**watched(pl_module), **_states(trainer, pl_module)})

    def _look(self, trainer: pl.Trainer, tensors: dict[str, Tensor]) -> None:
        """Raise if a loss since the last look, or one of the tensors, is not finite anywhere.

        All processes call it, with tensors of the same names. The host waits for the device once.
        """
        if self._found is not None:  # a file that the error itself makes others save
            raise self._found
        window: list[_Kept] = []
        if not _is_local(trainer):  # else the strategy asks for the losses
            window, self._window = self._window, []
        if is_finding_lr(trainer):  # rates are tried until the loss diverges
            return
        tensors = {n: t for n, t in tensors.items() if n not in self._on_purpose}
        device = trainer.strategy.root_device
        names = [f"{name} of step {kept.step}" for kept in window for name in kept.losses]
        losses = [loss for kept in window for loss in kept.losses.values()]
        mine = torch.stack([first_nonfinite(n, device) for n in (losses, tensors.values())])
        is_alone = trainer.world_size == 1 or trainer.interrupted
        table = (mine[None] if is_alone else gather_stack(mine)).T.tolist()
        loss, weight = _first(table[0], names), _first(table[1], list(tensors))
        if loss or weight:
            after = "" if loss else f" after step {trainer.global_step}"
            found = " and ".join(filter(None, [loss, weight and f"weight {weight}"]))
            is_or_are = "are" if loss and weight else "is"
            self._found = NonFiniteError(f"{found} {is_or_are} NaN or infinite{after}")
            raise self._found

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Tell from where a fit can go on, whoever found the number that is none."""
        self._window = []
        if not isinstance(exception, NonFiniteError) or not self._has_begun:
            return
        kept = [p for p in reversed(self._saved) if "://" in p or os.path.lexists(p)]
        newest = kept[0] if kept else trainer.ckpt_path
        where = f"the newest checkpoint is {newest}" if newest else "no checkpoint was written"
        exception.args = (f"{exception}; {where}",)


def _first(places: list[int], names: list[str]) -> str:
    """The name of what comes first among the finds of all processes; empty if there is none."""
    found = [(place, rank) for rank, place in enumerate(places) if place >= 0]
    if not found:
        return ""
    place, rank = min(found)
    name = names[place] if place < len(names) else "one"  # of a file that this process has not
    return f"{name} on rank {rank}" if len(places) > 1 else name


def _never_on_purpose(module: pl.LightningModule) -> dict[str, Tensor]:
    """Parameters, and statistics of BatchNorm: other buffers may hold anything on purpose."""
    statistics = running_statistics(module)
    buffers = {name: b for name, b in module.named_buffers() if name in statistics}
    return {**dict(module.named_parameters()), **buffers}


def _states(trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Tensor]:
    """What optimizers keep of weights; none in local steps, which may go on without a process."""
    return {} if _is_local(trainer) else optimizer_states(module, trainer.optimizers)


def _is_local(trainer: pl.Trainer) -> bool:
    """Whether processes are in local steps, and hear of each other where they synchronise."""
    return bool(getattr(trainer.strategy, "is_local", False))
