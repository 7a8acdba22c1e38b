"""A fit that ends with a validation, and says at its start what it will not evaluate."""

from __future__ import annotations

import lightning.pytorch as pl

from lit_ssl.trainer.private import validate_now, validate_the_end, was_validated
from lit_ssl.trainer.validation import tell_schedule

__all__ = ["LastValidation"]


class LastValidation(pl.Callback):
    """Validates the end of a fit, and says at its start which evaluations will never run, and why.

    The end is validated whether the last epoch, ``max_steps``, ``max_time`` or a callback brings
    it, also in the middle of an epoch; elsewhere the Trainer's ``check_val_every_n_epoch`` and
    ``val_check_interval`` hold. ``lit-ssl`` adds this callback. The evaluators of this library do
    the same, so that in Python it is needed only without them.
    """

    def __init__(self) -> None:
        self._step = -1  # of the last validation

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Let the end be validated."""
        if stage == "fit":
            validate_the_end(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say what will never run."""
        tell_schedule(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note for which weights that was."""
        self._step = -1 if trainer.sanity_checking else trainer.global_step

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate where a callback stopped the fit only when its last epoch was over."""
        is_open = self._step != trainer.global_step and not was_validated(trainer)
        if is_open and trainer.enable_validation:
            validate_now(trainer)
