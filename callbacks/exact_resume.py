"""A fit that goes on from a checkpoint as if it had never been stopped."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping, GradientAccumulationScheduler
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor

from lit_ssl.callbacks.seed import StepSeeder
from lit_ssl.seeding import run_seed
from lit_ssl.trainer.known_files import know_files
from lit_ssl.trainer.length import finished_batches
from lit_ssl.trainer.private import (
    checkpoint_to_come,
    ends_now,
    goes_on,
    is_accumulating,
    is_last_batch,
    max_epochs_of,
)
from lit_ssl.trainer.resumed_loops import KEY, mend

__all__ = ["ExactResume"]


class ExactResume(pl.Callback):
    """Lets a resumed fit do exactly what the fit that wrote the checkpoint had still to do.

    Wherever a checkpoint was written (after a batch, in a validation, at the end of an epoch or of
    the fit) and whatever limits the Trainer has: steps, epochs, batches and validations are those
    of a fit that was not stopped. Lightning alone counts some epochs twice, and leaves out
    validations and what follows an epoch; see ``docs/reliability.md``. Between the batches of an
    accumulated step the gradients are part of the checkpoint (with one process; with several a
    line says at the resume that they are lost). A fit that ``EarlyStopping`` has ended stays ended,
    unless its ``patience`` is larger now; callbacks that save go on with the best files of before
    (``lit_ssl.trainer.known_files.know_files``). Where limits of the Trainer are other ones
    now, a line says which.

    ``lit-ssl`` adds it. In Python give it with ``StepSeeder``, before other callbacks that save:
    ``Trainer(callbacks=[ExactResume(), StepSeeder(), ...])``. Checkpoints that were written without
    it are resumed as well as their counters tell.
    """

    def __init__(self) -> None:
        self._validated = self._end_validated = -1  # finished batches at the last validation
        self._gradients: dict[str, Tensor] = {}
        self._limits: dict[str, Any] = {}  # of the fit that wrote the checkpoint
        self._is_end = self._is_ended = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Forget an earlier fit."""
        self._validated = self._end_validated = -1
        self._gradients, self._limits, self._is_ended = {}, {}, False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let a training that was ended on purpose stay so."""
        if self._is_ended:
            trainer.should_stop = True
            rank_zero_info("EarlyStopping has ended this training; with more patience it goes on")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on with the gradients of an unfinished step; say what is another than it was."""
        for name, parameter in pl_module.named_parameters():
            if name in self._gradients:
                parameter.grad = self._gradients[name].to(parameter)
        self._gradients = {}
        now = _limits(trainer)
        pairs = [(name, self._limits.get(name, value), value) for name, value in now.items()]
        changed = [f"{name} {was} -> {value}" for name, was, value in pairs if was != value]
        if changed:
            rank_zero_warn(
                f"This fit has other limits than the one that wrote its checkpoint "
                f"({', '.join(changed)}): schedules that ask for the length of the run follow the "
                "new ones from here on, and steps are others than those of a fit that began so"
            )

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note whether it is known to be of the end, as evaluators ask."""
        self._is_end = trainer.state.fn == "fit" and ends_now(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note of which batch that was."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._validated = finished_batches(trainer)
            if self._is_end:
                self._end_validated = self._validated

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write down what Lightning does not."""
        metrics = trainer.callback_metrics
        checkpoint[KEY] = {
            "validated": self._validated,
            "end_validated": self._end_validated,
            "validating": trainer.validating,
            "last": is_last_batch(trainer),
            "metrics": {name: value.detach().cpu().clone() for name, value in metrics.items()},
            "gradients": _gradients(trainer, pl_module),
            "accumulating": is_accumulating(trainer),
            "stops": bool(trainer.should_stop),
            "limits": _limits(trainer),
        }

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Let the fit go on from there."""
        is_resumed = trainer.ckpt_path and trainer.ckpt_path == checkpoint_to_come(pl_module)
        if trainer.state.fn != "fit" or "loops" not in checkpoint or not is_resumed:
            return  # a finder of learning rates or batch sizes takes back its steps
        know_files(trainer, checkpoint)
        known = checkpoint.get(KEY, {})
        self._is_ended = known.get("stops", False) and _is_out_of_patience(trainer, checkpoint)
        self._limits = known.get("limits", {})
        counters = deepcopy(checkpoint["loops"])
        rest = mend(checkpoint)
        if rest is None or not goes_on(trainer, rest):
            checkpoint["loops"] = counters
            return
        self._validated, self._end_validated = known.get("validated", -1), rest.end_validated_at
        self._gradients = known.get("gradients", {})
        if known.get("accumulating") and rest.in_epoch and not self._gradients:
            rank_zero_warn(
                "The checkpoint was written between the batches of one step "
                "(accumulate_grad_batches), and with several processes their gradients are not "
                "kept: this step is made of the remaining batches"
            )


def _limits(trainer: pl.Trainer) -> dict[str, Any]:
    """What the course of a fit depends on beside its module and data."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    seed = next((c.seed for c in callbacks if isinstance(c, StepSeeder)), None)
    batches = trainer.num_training_batches
    changes = any(isinstance(c, GradientAccumulationScheduler) for c in callbacks)
    return {
        "max_epochs": max_epochs_of(trainer),
        "max_steps": trainer.max_steps,
        "batches of an epoch": batches if math.isfinite(batches) else None,
        "accumulate_grad_batches": 0 if changes else trainer.accumulate_grad_batches,
        "seed of the steps": run_seed(seed),
    }


def _is_out_of_patience(trainer: pl.Trainer, checkpoint: dict[str, Any]) -> bool:
    """Whether ``EarlyStopping`` would stop here again; its ``patience`` of now counts."""
    found = False
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, EarlyStopping):
            state = checkpoint.get("callbacks", {}).get(callback.state_key)
            if state:
                state["patience"] = callback.patience
                found = found or state["wait_count"] >= callback.patience
    return found


def _gradients(trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Tensor]:
    """What the batches of an unfinished step have given so far."""
    if trainer.world_size > 1 or not is_accumulating(trainer):
        return {}
    parameters = module.named_parameters()
    return {name: p.grad.detach() for name, p in parameters if p.grad is not None}
